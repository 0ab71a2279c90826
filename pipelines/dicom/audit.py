"""Look a DICOM file over for what de-identification should have taken out, whoever did it; no value is ever handed on.

A file is held against PS3.15 Table E.1-1 with the options that it says it was treated by. What can be decided is a fault;
what a file alone cannot tell (whether a UID was exchanged, or a date moved) is a doubt, to be looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, unique
from typing import BinaryIO

from pydicom.datadict import dictionary_VR, keyword_for_tag

from pipelines.dicom.confidentiality import Entry, Option, entry_of
from pipelines.dicom.header import Element, Header, decoded, tag_of
from pipelines.dicom.pixel_audit import Hidden, hidden_parts
from pipelines.dicom.reading import Source, open_source
from pipelines.errors import RefusedFileError
from pipelines.records import Reason

# What de-identification tools write UIDs under: UUIDs (PS3.5 B.2), pydicom, The Cancer Imaging Archive.
_EXCHANGED = ("2.25.", "1.2.826.0.1.3680043.8.498.", "1.3.6.1.4.1.14519.5.2.1.", "1.2.840.10008.")
_DUMMY_DATES = ("00010101", "18991230", "19000101", "19600101", "19700101", "20000101")
_SAY_NOBODY = (
    "anon anonym anonymous anonymized anonymised deidentified de identified removed redacted unknown none dummy empty na no name "
    "patient research subject site hospital institution x xx xxx xxxx"
)
_DUMMY_WORDS = frozenset(_SAY_NOBODY.split())
_DUMMY = re.compile(
    r"p[0-9a-f]{16}|a[0-9a-f]{14}|(site|vendor|model)-[0-9a-f]{6,8}|(?=.*[a-f])(?=.*\d)[0-9a-f]{16,64}|[0xX*\s]+", re.ASCII
)
_TIMES = ("DA", "DT", "TM")
_TEXTS = ("CS", "LO", "LT", "SH", "ST", "UC", "UR", "UT")
_NUMBERS = re.compile(r"[0-9eE+.\s\\-]*", re.ASCII)
_CODES = frozenset(map(tag_of, ("CodeValue", "LongCodeValue", "CodingSchemeVersion", "DeidentificationMethod")))
_SPEAKS = re.compile(
    r"[^\W\d_]\s*\^\s*[^\W\d_]"  # a name as PS3.5 6.2 writes it
    r"|\b(Dr|Prof|Mr|Mrs|Ms|Miss|Herr|Frau|Mme|Mlle|Sr|Sra)\b[.]?\s+[^\W\d_]|\bDR[.]\s*[^\W\d_]"  # not the DR of machines
    r"|(?i:\b(name|patient|pat|dob|born|geb|mrn|pid|id|accession|phone|tel)\b[.]?\s*[:=#])"
    r"|\d{6}|\b\d{1,2}[./-]\d{1,2}[./-](19|20)\d\d\b|\b(19|20)\d\d[./-]\d{1,2}[./-]\d{1,2}\b|\S@\S+[.]\S"
)


@unique
class Why(Enum):
    """What is wrong, or doubtful, with an attribute or a part of a file."""

    REMOVE = "has to be removed (Table E.1-1)"
    DUMMY = "has to be empty or a dummy (Table E.1-1), and what it holds is no evident dummy"
    DATE = "holds a date or time, and the file declares no option that lets it stay"
    PRIVATE = "private attribute"
    UNKNOWN = "attribute that the standard does not know"
    TEXT = "text that looks like a name, a number or a date"
    NOT_DECLARED = "PatientIdentityRemoved is not YES"
    NO_METHOD = "says by no code or word how it was de-identified"
    TITLE = "network or private information in the file meta information"
    META_UID = "the file meta information names another image"
    PREAMBLE = "bytes in the preamble"
    BEHIND = "bytes behind the pixel data"
    COMMENT = "a comment, application data or boxes in the compressed image"
    UNUSED_BITS = "bits outside of the stored ones, where overlays were kept"
    BURNED_IN_FLAG = "BurnedInAnnotation says YES"
    BURNED_IN_TEXT = "text in the image that is no marker"
    CANNOT_READ = "cannot be read to its end"
    UID = "a UID that may still be the original one"
    CLEANED = "was to be cleaned, which only its reader can judge"
    UNDECODED = "pixel data that could not be looked into"

    @property
    def doubtful(self) -> bool:
        """Whether a file alone cannot tell."""
        return self in (Why.UID, Why.CLEANED, Why.UNDECODED)


@dataclass(frozen=True, order=True)
class Finding:
    """Something in a file that should not be there: which attribute or part, and why; never what it says."""

    where: str
    why: str
    doubtful: bool = False


def audit(stream: BinaryIO) -> tuple[Finding, ...]:
    """What is wrong with a file, in the order of the file, each attribute once.

    Raises:
        RefusedFileError: not DICOM.
    """
    try:
        source = open_source(stream, whole=True)
    except RefusedFileError as error:
        if error.reason is Reason.NOT_DICOM:
            raise
        return (_finding("file", Why.CANNOT_READ),)
    options = _declared(source.header)
    found = [*_around(source), *_declarations(source.header), *_header(source.header, options)]
    if source.has_pixels:
        found += [_finding("PixelData", _HIDDEN[part]) for part in hidden_parts(source)]
    elif source.stream.read().strip(b"\0"):
        found.append(_finding("end of the file", Why.BEHIND))
    return tuple(dict.fromkeys(found))


def audit_with_text(stream: BinaryIO) -> tuple[Finding, ...]:
    """`audit`, and whether text can be read in the image that is no marker such as L, AP or PORTABLE."""
    from pydicom import dcmread

    from pipelines.dicom.burned_in import Kind, find
    from pipelines.imaging.decode import decode
    from pipelines.imaging.header import quiet

    found = audit(stream)
    if _finding("file", Why.CANNOT_READ) in found:
        return found
    stream.seek(0)
    try:
        with quiet():
            stored = decode(dcmread(stream, force=True))
    except RefusedFileError as error:
        return found if error.reason is Reason.NO_PIXELS else (*found, _finding("PixelData", Why.UNDECODED))
    text = any(region.kind is not Kind.MARKER for region in find(stored))
    return (*found, _finding("PixelData", Why.BURNED_IN_TEXT)) if text else found


_HIDDEN = {
    Hidden.BEHIND: Why.BEHIND,
    Hidden.COMMENT: Why.COMMENT,
    Hidden.UNUSED_BITS: Why.UNUSED_BITS,
    Hidden.TRUNCATED: Why.CANNOT_READ,
    Hidden.UNDECODED: Why.UNDECODED,
}


def _finding(where: str, why: Why) -> Finding:
    return Finding(where, why.value, why.doubtful)


def _declared(header: Header) -> frozenset[Option]:
    """The options that the file says it was treated by."""
    codes = {item.text("CodeValue") for item in header.items("DeidentificationMethodCodeSequence")}
    return frozenset(option for option in Option if option.code in codes)


def _around(source: Source) -> Iterator[Finding]:
    if source.preamble.strip(b"\0"):
        yield _finding("preamble", Why.PREAMBLE)
    for tag, element in source.meta.elements.items():
        if tag & 0xFFFF >= 0x0016 and element.value.strip(b"\0 "):
            yield _finding(_named(tag), Why.TITLE)
    uid = source.meta.text("MediaStorageSOPInstanceUID")
    if uid and uid != source.header.text("SOPInstanceUID"):
        yield _finding("MediaStorageSOPInstanceUID", Why.META_UID)


def _declarations(header: Header) -> Iterator[Finding]:
    if header.text("PatientIdentityRemoved").upper() != "YES":
        yield _finding("PatientIdentityRemoved", Why.NOT_DECLARED)
    if not header.text("DeidentificationMethod") and not header.items("DeidentificationMethodCodeSequence"):
        yield _finding("DeidentificationMethod", Why.NO_METHOD)
    if any(text.upper().startswith("Y") for text in header.texts("BurnedInAnnotation")):
        yield _finding("BurnedInAnnotation", Why.BURNED_IN_FLAG)


def _header(header: Header, options: frozenset[Option]) -> Iterator[Finding]:
    for tag, element in header.elements.items():
        why = _judged(tag, element, options) if element.items or element.value.strip(b"\0 ") else None
        if why is not None:
            yield _finding(_named(tag), why)
        if why is None or why.doubtful:
            for item in element.items:
                yield from _header(item, options)


def _judged(tag: int, element: Element, options: frozenset[Option]) -> Why | None:
    """What is wrong with an attribute that has a value."""
    entry = entry_of(tag)
    if tag >> 16 & 1:
        return Why.PRIVATE
    if entry is not None:
        return _against(entry, _vr(tag, element), element, options)
    if not keyword_for_tag(tag):
        return Why.UNKNOWN if tag & 0xFFFF else None
    vr, text = _vr(tag, element), _text(element)
    if vr in ("DS", "IS"):
        return None if _NUMBERS.fullmatch(text) else Why.TEXT
    speaks = vr == "PN" or (vr in _TEXTS and tag not in _CODES and _SPEAKS.search(text))
    return Why.TEXT if speaks and not _is_dummy(text) else None


def _against(entry: Entry, vr: str, element: Element, options: frozenset[Option]) -> Why | None:
    """An attribute of the table against its line."""
    action, text = entry.action(options), _text(element)
    if action == "K":
        return None
    if action == "C":
        if vr in _TIMES:
            return None
        return Why.TEXT if _SPEAKS.search(text) else Why.CLEANED
    if action == "U":
        return None if text.startswith(_EXCHANGED) else Why.UID
    if entry.permits("D", options) and (_is_dummy(text) or (vr == "SQ" and action == "D")) and vr not in ("OB", "OW", "UN"):
        return None
    if vr in _TIMES:
        return None if text.startswith(_DUMMY_DATES) or not text.strip("0:.+") else Why.DATE
    return Why.REMOVE if action == "X" else Why.DUMMY


def _is_dummy(text: str) -> bool:
    """Whether a value stands for nobody: empty, a pseudonym of ours or a hash, or words such as ANONYMOUS, numbered or not."""
    words = [word.rstrip("0123456789") for word in re.split(r"[\s^_=\\-]+", text.casefold().strip(" ^"))]
    known = words[0] in _DUMMY_WORDS and all(word in _DUMMY_WORDS or not word for word in words)
    return not text or known or any(_DUMMY.fullmatch(written) for written in (text, text.replace("-", "")))


def _text(element: Element) -> str:
    return decoded(element.value)


def _vr(tag: int, element: Element) -> str:
    if element.items:
        return "SQ"
    if element.vr and element.vr != "UN":
        return element.vr
    return dictionary_VR(tag) if keyword_for_tag(tag) else "UN"


def _named(tag: int) -> str:
    """The keyword of an attribute, or its tag."""
    return (not tag >> 16 & 1 and keyword_for_tag(tag)) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
