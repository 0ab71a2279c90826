"""One identified file in, one de-identified file and its row of the manifest out.

The header is built anew (`attributes`), the pixel data come from `pixels`. The same file and key give the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from io import BytesIO
from typing import BinaryIO, Literal

from pipelines.dicom.account import Treatment, treatment
from pipelines.dicom.attributes import DAYS, Identity, attributes
from pipelines.dicom.confidentiality import Option
from pipelines.dicom.header import Header, tag_of
from pipelines.dicom.pixel_text import without_text
from pipelines.dicom.pixels import LOSSY, NATIVE, PixelData, pixel_data, shape_of
from pipelines.dicom.profile import DEFAULT
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.reading import STORAGE_CLASSES, Source, open_source
from pipelines.dicom.writing import Attributes, part10
from pipelines.errors import RefusedFileError
from pipelines.records import Reason

Row = dict[str, str | int | float | None]

# Waveforms, presentation states, registrations and segmentations, reports, documents, and plans (PS3.4 B.5).
_NO_IMAGES = tuple(f"{STORAGE_CLASSES}{branch}" for branch in ("9.", "11.", "66", "88.", "104.", "481."))
_RT_IMAGE = f"{STORAGE_CLASSES}481.1"
_DOCUMENT_MODALITIES = frozenset(
    {"SR", "KO", "PR", "DOC", "AU", "ECG", "HD", "REG", "SEG", "PLAN", "RTSTRUCT", "RTPLAN", "RTDOSE"}
)
_DOCUMENT, _CONTENT = map(tag_of, ("EncapsulatedDocument", "ContentSequence"))
_KEY = re.compile(r"radtransfer allow-list \d+, key ([0-9a-f]{8})", re.ASCII)


@dataclass(frozen=True)
class Accept:
    """Which images are taken, and what may stay of their headers.

    Attributes:
        modalities: values of Modality.
        burned_in: with text in the pixels: look at every image and blank what may identify (`clean`), or trust the header and
            refuse images that it says have some (`quarantine`), or take them (`keep`).
        options: the options of PS3.15 Table E.1-1 by which more may stay than by the Basic Profile alone.
    """

    modalities: tuple[str, ...]
    burned_in: Literal["clean", "quarantine", "keep"] = "quarantine"
    options: frozenset[Option] = DEFAULT


@dataclass(frozen=True, repr=False)
class Clean:
    """A de-identified file.

    Attributes:
        content: the whole Part 10 file.
        row: its row of the manifest (`records.MANIFEST`).
        image_sha256: of the image's bytes as stored, by which two files are told to show the same.
        without_patient: there was no PatientID, the pseudonym comes from the study.
        treatment: what was done to each attribute.
        blanked: text in the pixels was blanked.
    """

    content: bytes
    row: Row
    image_sha256: str
    without_patient: bool
    treatment: Treatment
    blanked: bool = False

    @property
    def image(self) -> str:
        """The image's pseudonym."""
        return str(self.row["image"])


def deidentify(stream: BinaryIO, pseudonyms: Pseudonyms, accept: Accept) -> Clean | None:
    """De-identify one file.

    Returns:
        The clean file, or None for a DICOMDIR.

    Raises:
        RefusedFileError: the file cannot be used; nothing in the message identifies anybody.
    """
    source = open_source(stream, whole=Option.CLEAN_DESCRIPTORS in accept.options)
    if source.is_directory:
        return None
    _check_image(source)
    _check_accepted(source.header, accept)
    pixels = pixel_data(source)
    identity = Identity.of(source.header, pseudonyms, accept.modalities)
    kept = attributes(identity, pseudonyms, accept.options)
    done = treatment(source.tags, kept, accept.options, pseudonyms)
    cleaned = None
    if accept.burned_in == "clean":
        kept = {**kept, "BurnedInAnnotation": "NO"}
        cleaned = _without_text(_written(kept, pixels), source)
    if cleaned is not None:
        done = replace(done, fates=(*done.fates, ("replaced", "PixelData")))
    pixels = cleaned or pixels
    content = _written({**kept, **_compression(source, pixels, kept)}, pixels)
    row = _checked_row(content, source)
    image = hashlib.sha256(pixels.image).hexdigest()
    return Clean(content, row, image, not source.header.text("PatientID"), done, cleaned is not None)


def _checked_row(content: bytes, source: Source) -> Row:
    """The row of the manifest, if what is left of the header describes the same image: no value of it was dropped."""
    clean = open_source(BytesIO(content))
    if shape_of(clean.header) != shape_of(source.header):
        raise RefusedFileError(Reason.UNREADABLE, "an attribute that describes the image and cannot be written anew")
    return manifest_row(clean)


def _written(kept: Attributes, pixels: PixelData) -> bytes:
    encapsulated = pixels.transfer_syntax not in NATIVE
    return part10(kept, pixels.transfer_syntax, pixels.image, pixels.vr, encapsulated=encapsulated)


def _without_text(content: bytes, source: Source) -> PixelData | None:
    return without_text(content, shape_of(source.header), declared=_declares_text(source.header))


def _compression(source: Source, pixels: PixelData, kept: Attributes) -> Attributes:
    """What an image that is no longer compressed must still say of the loss that it suffered (PS3.3 C.7.6.1.1.5)."""
    lost = source.transfer_syntax in LOSSY and pixels.transfer_syntax not in LOSSY
    return {"LossyImageCompression": "01"} if lost and "LossyImageCompression" not in kept else {}


def image_sha256(stream: BinaryIO) -> str:
    """`Clean.image_sha256` of a de-identified file."""
    return hashlib.sha256(pixel_data(open_source(stream)).image).hexdigest()


def key_fingerprint(source: Source) -> str:
    """The fingerprint of the key under which a file was de-identified, "" if it is not one of ours."""
    match = _KEY.fullmatch(source.header.text("DeidentificationMethod"))
    return match[1] if match else ""


def _check_image(source: Source) -> None:
    """Refuse reports, documents, presentation states and the like, which speak of patients wherever one looks."""
    kind = source.header.text("SOPClassUID")
    modality = source.header.text("Modality").upper()
    report = not source.has_pixels and (modality in _DOCUMENT_MODALITIES or _CONTENT in source.tags)
    if (kind.startswith(_NO_IMAGES) and kind != _RT_IMAGE) or report or _DOCUMENT in source.tags:
        raise RefusedFileError(Reason.NOT_IMAGE)


def _check_accepted(header: Header, accept: Accept) -> None:
    if not header.text("SOPInstanceUID"):
        raise RefusedFileError(Reason.MISSING_UID)
    if header.text("Modality").upper() not in accept.modalities:
        raise RefusedFileError(Reason.MODALITY)
    if accept.burned_in == "quarantine" and _declares_text(header):
        raise RefusedFileError(Reason.BURNED_IN)


def _declares_text(header: Header) -> bool:
    return any(text.upper().startswith("Y") for text in header.texts("BurnedInAnnotation"))


def manifest_row(source: Source) -> Row:
    """The row of the manifest of a de-identified file (`records.MANIFEST`)."""
    header = source.header

    def text(keyword: str) -> str | None:
        return header.text(keyword) or None

    patient, image, studied = header.text("PatientID"), header.text("SOPInstanceUID"), header.text("StudyDate")
    return {
        "image": image,
        "study": text("StudyInstanceUID"),
        "series": text("SeriesInstanceUID"),
        "accession": text("AccessionNumber"),
        "patient": patient,
        "site": text("InstitutionName"),
        "file": f"dicom/{patient}/{image}.dcm",
        "modality": text("Modality"),
        "body_part": text("BodyPartExamined"),
        "view": text("ViewPosition"),
        "laterality": text("ImageLaterality") or text("Laterality"),
        "manufacturer": text("Manufacturer"),
        "age_years": _years(header.text("PatientAge")),
        "sex": text("PatientSex"),
        "study_date": f"{studied[:4]}-{studied[4:6]}-{studied[6:]}" if studied else None,
        "transfer_syntax": source.transfer_syntax,
        "photometric": text("PhotometricInterpretation"),
        "rows": header.integer("Rows"),
        "columns": header.integer("Columns"),
        "bits_stored": header.integer("BitsStored"),
        "spacing_mm": _spacing(header),
    }


def _years(age: str) -> float:
    return round(int(age[:-1]) * DAYS[age[-1]] / DAYS["Y"], 3) if age else float("nan")


def _spacing(header: Header) -> float:
    """Row spacing in mm, from the attribute that says most; NaN where none does."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        values = header.numbers(keyword)
        if len(values) == 2 and values[0] > 0:
            return float(values[0])
    return float("nan")
