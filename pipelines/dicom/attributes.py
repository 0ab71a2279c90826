"""Carry out `profile`: the attributes of a de-identified file from those of an identified one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache, cached_property
from typing import TypeVar

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.uid import UID

from pipelines.dicom import descriptors
from pipelines.dicom import vocabulary as words
from pipelines.dicom.confidentiality import Option
from pipelines.dicom.header import Header
from pipelines.dicom.lookup_tables import rewritten
from pipelines.dicom.profile import DEFAULT, Action, Rule, emptied, rules
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.reading import STORAGE_CLASSES
from pipelines.dicom.writing import Attributes, Items, Typed, Value
from pipelines.errors import RefusedFileError
from pipelines.records import Reason

METHOD = "radtransfer allow-list 2, key "
OLDEST_YEARS = 89
LARGEST_NUMBER = 999_999
SIGNIFICANT_DIGITS = 6
DAYS = {"D": 1.0, "W": 7.0, "M": 365.25 / 12, "Y": 365.25}
_MONTHS_UNTIL_YEARS = 24
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_DATE = re.compile(r"(\d{4})[.]?(\d{2})[.]?(\d{2})", re.ASCII)
# Dates that devices and archives write where they know none: beside the same patient's true ones, a moved one of them
# would give away by how much all were moved.
_PLACEHOLDERS = frozenset(
    {date(1, 1, 1), date(1899, 12, 30), date(9999, 12, 31), *(date(year, 1, 1) for year in (1900, 1970, 1980, 2000))}
)
_AGE = re.compile(r"(\d{1,3})\s*([DWMY]?)", re.ASCII)
_CODED = {
    "ViewPosition": ("ViewCodeSequence", words.VIEW_CODES),
    "BodyPartExamined": ("AnatomicRegionSequence", words.ANATOMY_CODES),
}
# One without the other says something else than both did.
_PAIRS = (("WindowCenter", "WindowWidth"), ("RescaleIntercept", "RescaleSlope"))

Kept = Value | Typed | Items | None
Single = TypeVar("Single", str, int, float)


@dataclass(frozen=True, repr=False)
class Identity:
    """Who and what an image is of, still identified.

    Attributes:
        header: the attributes of the file.
        patient: the patient's pseudonym.
        uids: the UIDs of image, series and study, by keyword.
        modalities: values of Modality that are taken.
    """

    header: Header
    patient: str
    uids: dict[str, str]
    modalities: tuple[str, ...]

    @classmethod
    def of(cls, header: Header, pseudonyms: Pseudonyms, modalities: tuple[str, ...]) -> Identity:
        """A missing study or series UID is taken from what there is; a missing PatientID from the study."""
        image, series = header.text("SOPInstanceUID"), header.text("SeriesInstanceUID")
        study = header.text("StudyInstanceUID") or series or image
        known = header.text("PatientID")
        patient = pseudonyms.patient(known) if known else pseudonyms.patient_of_study(study)
        uids = {"SOPInstanceUID": image, "SeriesInstanceUID": series or image, "StudyInstanceUID": study}
        return cls(header, patient, uids, modalities)

    @cached_property
    def named(self) -> frozenset[str]:
        """Words that name somebody or something, if the header was read whole."""
        return frozenset(descriptors.identifying_words(self.header))


Carry = Callable[[Rule, Identity, Pseudonyms], Kept]


def attributes(identity: Identity, pseudonyms: Pseudonyms, options: frozenset[Option] = DEFAULT) -> Attributes:
    """The attributes of the de-identified file, by keyword, without the pixel data.

    Args:
        options: the options of the Basic Profile that were chosen; those that are done to the pixels are only declared.

    Raises:
        RefusedFileError: a modality LUT that cannot be kept, without which the grey levels mean something else.
    """
    kept: dict[str, Value | Typed | Items] = {
        **dict.fromkeys(emptied(), ""),
        "PatientName": identity.patient,
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": METHOD + pseudonyms.fingerprint,
        "DeidentificationMethodCodeSequence": _method_codes(options),
        "LongitudinalTemporalInformationModified": "MODIFIED" if Option.MODIFIED_DATES in options else "REMOVED",
    }
    for rule, action, own in _carried_out(options):
        if own and rule.keyword not in identity.header:
            continue
        value = action(rule, identity, pseudonyms)
        if value is not None:
            kept[rule.keyword] = value
    alone = [one for pair in _PAIRS for one, other in (pair, pair[::-1]) if one in kept and other not in kept]
    return {keyword: value for keyword, value in kept.items() if keyword not in alone}


@cache
def _carried_out(options: frozenset[Option]) -> tuple[tuple[Rule, Carry, bool], ...]:
    """The lines to carry out, how, and whether each of them looks at nothing but its own attribute."""
    return tuple(
        (rule, _ACTIONS[rule.action], rule.action not in _FROM_OTHERS and rule.keyword not in _CODED)
        for rule in rules(options)
        if rule.action in _ACTIONS
    )


@cache
def _method_codes(options: frozenset[Option]) -> Items:
    """The Basic Profile and the options, each as an item of a code (PS3.3 Table 8.8-1)."""
    codes = sorted({Option.BASIC, *options}, key=lambda option: option.code)
    return Items(tuple({"CodeValue": one.code, "CodingSchemeDesignator": "DCM", "CodeMeaning": one.meaning} for one in codes))


def _number(rule: Rule, identity: Identity, _pseudonyms: Pseudonyms) -> Kept:
    values = identity.header.numbers(rule.keyword)
    vr, most = _vr_and_most(rule.keyword)
    if not values or len(values) > most or any(abs(value) > LARGEST_NUMBER for value in values):
        return None
    if vr == "DS":
        return _single([_rounded(value) for value in values])
    if vr in ("FL", "FD"):
        return _single([float(_rounded(value)) for value in values])
    if any(value != int(value) for value in values):
        return None
    return _whole(vr, [int(value) for value in values], identity)


def _whole(vr: str, values: list[int], identity: Identity) -> Kept:
    if vr == "IS":
        return _single([str(value) for value in values])
    if vr.startswith("US or SS"):
        vr = "SS" if identity.header.integer("PixelRepresentation") == 1 else "US"
    lowest, highest = (-(1 << 15), (1 << 15) - 1) if vr == "SS" else (0, (1 << 16) - 1)
    return Typed(vr, values) if all(lowest <= value <= highest for value in values) else None


def _rounded(value: float) -> str:
    """A number as a decimal string (PS3.5 6.2) with too few digits for an identifier behind the point."""
    return f"{value:.{SIGNIFICANT_DIGITS}g}"


@cache
def _vr_and_most(keyword: str) -> tuple[str, int]:
    """The VR of an attribute and how many values it may have (16 where the standard sets no bound)."""
    most = dictionary_VM(keyword).split("-")[-1]
    return dictionary_VR(keyword), int(most) if most.isdigit() else 16


def _term(rule: Rule, identity: Identity, _pseudonyms: Pseudonyms) -> Kept:
    found = [words.squashed(text) for text in identity.header.texts(rule.keyword)]
    if rule.keyword == "ImageType":
        found = found[:2]  # the third value and on are the vendor's own words
    values = [rule.vocabulary[text] for text in found if text in rule.vocabulary]
    if not values or len(values) != len(found) or len(values) > _vr_and_most(rule.keyword)[1]:
        return _coded(rule, identity)
    return _single(values)


def _coded(rule: Rule, identity: Identity) -> str | None:
    """View or body part from its code sequence, where the plain attribute says nothing that is known."""
    if rule.keyword not in _CODED:
        return None
    sequence, codes = _CODED[rule.keyword]
    values = [item.text(name) for item in identity.header.items(sequence) for name in ("CodeValue", "LongCodeValue")]
    return next((codes[value] for value in values if value in codes), None)


def _modality(rule: Rule, identity: Identity, _pseudonyms: Pseudonyms) -> Kept:
    found = identity.header.text(rule.keyword).upper()
    return next(modality for modality in identity.modalities if modality == found)


def _uid(rule: Rule, identity: Identity, pseudonyms: Pseudonyms) -> Kept:
    return pseudonyms.uid(identity.uids[rule.keyword])


def _storage_class(rule: Rule, identity: Identity, _pseudonyms: Pseudonyms) -> Kept:
    uid = identity.header.text(rule.keyword)
    known = uid.startswith(STORAGE_CLASSES) and UID(uid, validation_mode=IGNORE).type == "SOP Class"
    return uid if known else _SECONDARY_CAPTURE


def _patient(_rule: Rule, identity: Identity, _pseudonyms: Pseudonyms) -> Kept:
    return identity.patient


def _keyed(pseudonym: Callable[[Pseudonyms, str], str]) -> Callable[[Rule, Identity, Pseudonyms], Kept]:
    def action(rule: Rule, identity: Identity, pseudonyms: Pseudonyms) -> Kept:
        text = identity.header.text(rule.keyword)
        return pseudonym(pseudonyms, text) if text else None

    return action


def _descriptor(rule: Rule, identity: Identity, _pseudonyms: Pseudonyms) -> Kept:
    return descriptors.cleaned(identity.header.text(rule.keyword), identity.named) or None


def _vendor(rule: Rule, identity: Identity, pseudonyms: Pseudonyms) -> Kept:
    text = identity.header.text(rule.keyword)
    known = next((name for name, pattern in words.VENDORS.items() if pattern.search(text)), None)
    return known or (pseudonyms.vendor(text) if text else None)


def _date(rule: Rule, identity: Identity, pseudonyms: Pseudonyms) -> Kept:
    day = _day(identity.header, rule.keyword)
    if day is None or day in _PLACEHOLDERS:
        return None
    try:
        moved = day + timedelta(days=pseudonyms.days(identity.patient))
    except OverflowError:
        return None
    return moved.isoformat().replace("-", "")


def _day(header: Header, keyword: str) -> date | None:
    match = _DATE.fullmatch(header.text(keyword))
    try:
        return date(*map(int, match.groups())) if match else None
    except ValueError:
        return None


def _age(rule: Rule, identity: Identity, _pseudonyms: Pseudonyms) -> Kept:
    match = _AGE.fullmatch(identity.header.text(rule.keyword).upper())
    if match:
        number, unit = int(match[1]), match[2] or "Y"
        too_old = number * DAYS[unit] > OLDEST_YEARS * DAYS["Y"]
        return f"{OLDEST_YEARS:03d}Y" if too_old else f"{number:03d}{unit}"
    born, studied = _day(identity.header, "PatientBirthDate"), _day(identity.header, "StudyDate")
    if born is None or studied is None or studied < born:
        return None
    months = (studied.year - born.year) * 12 + studied.month - born.month - (studied.day < born.day)
    return f"{months:03d}M" if months < _MONTHS_UNTIL_YEARS else f"{min(months // 12, OLDEST_YEARS):03d}Y"


def _lut(rule: Rule, identity: Identity, _pseudonyms: Pseudonyms) -> Kept:
    tables = [rewritten(item, identity.header) for item in identity.header.items(rule.keyword)]
    if None in tables and rule.keyword == "ModalityLUTSequence":  # a window or VOI LUT speaks of what comes out of it
        raise RefusedFileError(Reason.UNREADABLE, "a modality LUT that cannot be written anew")
    items = tuple(table for table in tables if table is not None)
    return Items(items) if items else None


def _single(values: list[Single]) -> Single | Sequence[Single]:
    return values[0] if len(values) == 1 else values


_FROM_OTHERS = frozenset({Action.UID, Action.CLASS, Action.PATIENT, Action.AGE})
_ACTIONS: dict[Action, Carry] = {
    Action.NUMBER: _number,
    Action.TERM: _term,
    Action.MODALITY: _modality,
    Action.UID: _uid,
    Action.CLASS: _storage_class,
    Action.PATIENT: _patient,
    Action.ACCESSION: _keyed(Pseudonyms.accession),
    Action.SITE: _keyed(Pseudonyms.site),
    Action.VENDOR: _vendor,
    Action.MODEL: _keyed(Pseudonyms.model),
    Action.DATE: _date,
    Action.AGE: _age,
    Action.LUT: _lut,
    Action.DESCRIPTOR: _descriptor,
}
