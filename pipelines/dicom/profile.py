"""What survives of a header, as data: one line per attribute, with what is done to it and why it is kept.

Everything that is not listed is gone, private attributes too. No free text survives: a value is a number written anew, a
term of a closed vocabulary, or a keyed pseudonym. What is listed stays only as far as `confidentiality` (PS3.15 Table E.1-1)
permits its action under the options that are chosen; a test holds every line of that table against this one. In one line more
stays than the table means: InstitutionName (X/Z/D) need not be there, so that it could go, and is a dummy, the same for the same
institution.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, unique
from functools import cache

from pipelines.dicom import vocabulary as words
from pipelines.dicom.confidentiality import Option, entries, entry_for


@unique
class Action(Enum):
    """What is done to the value of a listed attribute."""

    NUMBER = "kept if it parses as numbers of at most six digits before the point, written anew with six digits in all"
    TERM = "kept if every value is in the vocabulary, in the vocabulary's spelling"
    MODALITY = "kept, since only configured modalities come in"
    UID = "replaced by a keyed pseudonym under 2.25"
    CLASS = "kept if it is a registered storage class, else Secondary Capture"
    PATIENT = "replaced by the patient's pseudonym"
    ACCESSION = "replaced by a keyed pseudonym: a…"
    SITE = "replaced by a keyed pseudonym: site-…"
    VENDOR = "the vendor's usual name if a word of it is recognised, else a keyed pseudonym"
    MODEL = "replaced by a keyed pseudonym: model-…"
    DATE = "moved by the patient's number of days; intervals stay"
    AGE = "kept, at most 89 years; computed from the birth date where it is missing"
    LUT = "rebuilt from its numbers alone, if they rise or fall throughout"
    DESCRIPTOR = "kept are words of the vocabulary that stand in no identifying attribute of the header"
    SET = "written by us"

    @property
    def letter(self) -> str:
        """The action of Table E.1-1 that this one amounts to."""
        return _LETTERS.get(self, "D")


_LETTERS = {
    **dict.fromkeys((Action.NUMBER, Action.TERM, Action.MODALITY, Action.CLASS, Action.AGE, Action.LUT), "K"),
    **dict.fromkeys((Action.DATE, Action.DESCRIPTOR, Action.VENDOR), "C"),
    Action.UID: "U",
}

# What is done if params.yaml says nothing else.
DEFAULT = frozenset({Option.PATIENT, Option.DEVICE, Option.MODIFIED_DATES})


@dataclass(frozen=True)
class Rule:
    """One attribute that survives.

    Attributes:
        keyword: PS3.6 keyword.
        action: what is done to its value.
        why: what it is kept for.
        vocabulary: squashed spelling → term, for `Action.TERM`.
        option: an option without which it goes, though Table E.1-1 does not list the attribute.
    """

    keyword: str
    action: Action
    why: str
    vocabulary: Mapping[str, str] = field(default_factory=dict, repr=False)
    option: Option | None = None

    def permitted(self, options: frozenset[Option]) -> bool:
        """Whether the action is one that Table E.1-1 names with these options, or stricter."""
        entry = entry_for(self.keyword)
        if self.option and self.option not in options:
            return False
        return entry is None or entry.permits(self.action.letter, options)


def _rules(action: Action, why: str, *keywords: str) -> tuple[Rule, ...]:
    return tuple(Rule(keyword, action, why) for keyword in keywords)


def _term(keyword: str, vocabulary: Mapping[str, str], why: str) -> Rule:
    return Rule(keyword, Action.TERM, why, vocabulary)


PROFILE: tuple[Rule, ...] = (
    Rule("SOPClassUID", Action.CLASS, "what kind of image this is"),
    *_rules(Action.UID, "identity", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    Rule("Modality", Action.MODALITY, "CR, DX or RG"),
    Rule("PatientID", Action.PATIENT, "splits are by patient"),
    Rule("AccessionNumber", Action.ACCESSION, "labels can be keyed by it"),
    Rule("InstitutionName", Action.SITE, "site hold-outs and shortcut audits, which nothing else allows"),
    Rule("Manufacturer", Action.VENDOR, "results by vendor", option=Option.DEVICE),
    Rule("ManufacturerModelName", Action.MODEL, "results by device", option=Option.DEVICE),
    *_rules(Action.DATE, "time hold-outs and intervals", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"),
    Rule("PatientAge", Action.AGE, "results by age"),
    _term("PatientSex", words.SEXES, "results by sex"),
    _term("ImageType", words.IMAGE_TYPES, "original or derived"),
    _term("ConversionType", words.CONVERSIONS, "secondary captures"),
    _term("PresentationIntentType", words.INTENT, "raw detector data or an image to look at"),
    _term("BodyPartExamined", words.BODY_PARTS, "what is shown"),
    _term("ViewPosition", words.VIEWS, "results by view"),
    _term("Laterality", words.LATERALITIES, "side of a paired part"),
    _term("ImageLaterality", words.LATERALITIES, "side of a paired part"),
    _term("PatientOrientation", words.ORIENTATIONS, "which edge is left"),
    _term("BurnedInAnnotation", words.YES_NO, "text in the pixels"),
    _term("PhotometricInterpretation", words.PHOTOMETRIC, "polarity"),
    _term("PresentationLUTShape", words.LUT_SHAPES, "polarity"),
    _term("VOILUTFunction", words.VOI_FUNCTIONS, "window"),
    _term("WindowCenterWidthExplanation", words.WINDOWS, "which of several windows"),
    _term("RescaleType", words.RESCALE_TYPES, "unit of the modality LUT"),
    _term("PixelIntensityRelationship", words.INTENSITIES, "linear or logarithmic detector"),
    _term("LossyImageCompression", words.LOSSY, "image quality"),
    _term("LossyImageCompressionMethod", words.LOSSY_METHODS, "image quality"),
    _term("PixelSpacingCalibrationType", words.CALIBRATIONS, "what the spacing refers to"),
    _term("FieldOfViewShape", words.FIELD_SHAPES, "acquisition"),
    _term("FieldOfViewHorizontalFlip", words.YES_NO, "orientation"),
    _term("CollimatorShape", words.COLLIMATORS, "acquisition"),
    _term("DetectorType", words.DETECTORS, "acquisition"),
    _term("DetectorConfiguration", words.CONFIGURATIONS, "acquisition"),
    *_rules(
        Action.NUMBER,
        "decoding and grey levels",
        "SamplesPerPixel",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "PixelPaddingValue",
        "PixelPaddingRangeLimit",
        "WindowCenter",
        "WindowWidth",
        "RescaleIntercept",
        "RescaleSlope",
        "PixelIntensityRelationshipSign",
    ),
    *_rules(
        Action.NUMBER,
        "scale of the image",
        "PixelSpacing",
        "ImagerPixelSpacing",
        "NominalScannedPixelSpacing",
        "PixelAspectRatio",
        "DetectorElementSpacing",
        "EstimatedRadiographicMagnificationFactor",
        "DistanceSourceToDetector",
        "DistanceSourceToPatient",
    ),
    *_rules(
        Action.NUMBER,
        "exposure and acquisition",
        "KVP",
        "ExposureTime",
        "ExposureTimeInuS",
        "XRayTubeCurrent",
        "XRayTubeCurrentInuA",
        "Exposure",
        "ExposureInuAs",
        "RelativeXRayExposure",
        "ExposureIndex",
        "TargetExposureIndex",
        "DeviationIndex",
        "Sensitivity",
        "ImageAndFluoroscopyAreaDoseProduct",
        "EntranceDoseInmGy",
        "FocalSpots",
        "FieldOfViewDimensions",
        "FieldOfViewRotation",
        "CollimatorLeftVerticalEdge",
        "CollimatorRightVerticalEdge",
        "CollimatorUpperHorizontalEdge",
        "CollimatorLowerHorizontalEdge",
        "PositionerPrimaryAngle",
        "PositionerSecondaryAngle",
        "LossyImageCompressionRatio",
    ),
    *_rules(Action.NUMBER, "order within the study", "SeriesNumber", "AcquisitionNumber", "InstanceNumber"),
    *_rules(Action.LUT, "grey levels", "ModalityLUTSequence", "VOILUTSequence"),
    *_rules(
        Action.DESCRIPTOR,
        "what the study is about, in the words of its makers",
        "StudyDescription",
        "SeriesDescription",
        "ProtocolName",
        "PerformedProcedureStepDescription",
        "RequestedProcedureDescription",
    ),
    Rule("PatientName", Action.SET, "the pseudonym again, for viewers"),
    Rule("PatientIdentityRemoved", Action.SET, "PS3.15 E.1: YES"),
    Rule("DeidentificationMethod", Action.SET, "PS3.15 E.1: this profile and the fingerprint of the key"),
    Rule("DeidentificationMethodCodeSequence", Action.SET, "PS3.15 E.1: the profile and its options, CID 7050"),
    Rule("LongitudinalTemporalInformationModified", Action.SET, "PS3.15 E.3.6: MODIFIED, or REMOVED"),
    Rule("PatientBirthDate", Action.SET, "empty, since the standard wants it there; fills PatientAge where that is missing"),
    *_rules(Action.SET, "empty, since the standard wants it there", "StudyTime", "ReferringPhysicianName", "StudyID"),
    Rule("PixelData", Action.SET, "the image, cleaned by `pixels`"),
)

# Attributes that are read to fill a listed one, and are themselves gone.
CONSULTED = {
    "ViewCodeSequence": "ViewPosition, where that is missing",
    "AnatomicRegionSequence": "BodyPartExamined, where that is missing",
    "NumberOfFrames": "multi-frame images are refused",
}


@cache
def rules(options: frozenset[Option]) -> tuple[Rule, ...]:
    """The lines that are carried out under these options."""
    return tuple(rule for rule in PROFILE if rule.permitted(options))


@cache
def emptied() -> tuple[str, ...]:
    """Attributes that a radiograph must have and that may be empty: they are written so where nothing is kept of them."""
    listed = {rule.keyword for rule in PROFILE}
    return tuple(entry.keyword for entry in entries() if entry.type == 2 and entry.keyword in listed)


@cache
def fingerprint() -> str:
    """The SHA-256 of every line of the profile with its vocabulary, as 64 hexadecimal digits."""
    lines = [f"{rule.keyword} {rule.action.name} {rule.action.value} {sorted(rule.vocabulary.items())}" for rule in PROFILE]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
