"""Write a de-identified dataset as a Part 10 file: little endian, attributes in order, nothing but what is given."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from pydicom.datadict import dictionary_VR
from pydicom.uid import ImplicitVRLittleEndian

from pipelines.dicom.header import tag_of

IMPLEMENTATION = "2.25.229563213216424207171925326398021457106"
VERSION = "RADTRANSFER 1"
_LONG = frozenset({"OB", "OW", "SQ"})
_PACKED = {"US": "H", "SS": "h", "FL": "f", "FD": "d"}
_UNDEFINED = b"\xff\xff\xff\xff"

Value = str | int | float | bytes | Sequence[str | int | float]


@dataclass(frozen=True)
class Typed:
    """A value whose VR is not that of the dictionary."""

    vr: str
    value: Value


Attributes = Mapping[str, "Value | Typed | Items"]


@dataclass(frozen=True)
class Items:
    """A sequence's items."""

    items: tuple[Attributes, ...]


def part10(attributes: Attributes, transfer_syntax: str, pixels: bytes, pixel_vr: str, *, encapsulated: bool) -> bytes:
    """A whole file: zero preamble, file meta information (PS3.10 7.1), attributes, pixel data.

    Args:
        attributes: values by keyword, text in ASCII.
        transfer_syntax: UID of implicit or explicit VR little endian, or of a compressed syntax.
        pixels: the image, without padding.
        pixel_vr: OB or OW.
        encapsulated: put the image into one fragment behind an empty offset table (PS3.5 A.4).
    """
    meta = _dataset(
        {
            "FileMetaInformationVersion": b"\0\1",
            "MediaStorageSOPClassUID": attributes["SOPClassUID"],
            "MediaStorageSOPInstanceUID": attributes["SOPInstanceUID"],
            "TransferSyntaxUID": transfer_syntax,
            "ImplementationClassUID": IMPLEMENTATION,
            "ImplementationVersionName": VERSION,
        },
        implicit=False,
    )
    length = _element(0x00020000, "UL", struct.pack("<I", len(meta)), implicit=False)
    implicit = transfer_syntax == ImplicitVRLittleEndian
    image = _encapsulated(pixels) if encapsulated else _element(tag_of("PixelData"), pixel_vr, _even(pixels), implicit)
    return b"\0" * 128 + b"DICM" + length + meta + _dataset(attributes, implicit) + image


def _dataset(attributes: Attributes, implicit: bool) -> bytes:
    written = []
    for keyword in sorted(attributes, key=tag_of):
        value = attributes[keyword]
        vr = _vr(keyword)
        if isinstance(value, Typed):
            vr, value = value.vr, value.value
        content = _items(value, implicit) if isinstance(value, Items) else _content(vr, value)
        written.append(_element(tag_of(keyword), vr, content, implicit))
    return b"".join(written)


_vr = cache(dictionary_VR)


def _element(tag: int, vr: str, content: bytes, implicit: bool) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack("<I", len(content)) + content
    if vr in _LONG:
        return head + vr.encode() + b"\0\0" + struct.pack("<I", len(content)) + content
    return head + vr.encode() + struct.pack("<H", len(content)) + content


def _content(vr: str, value: Value) -> bytes:
    if isinstance(value, bytes):
        return _even(value)
    values = [value] if isinstance(value, str | int | float) else list(value)
    if vr in _PACKED:
        return struct.pack(f"<{len(values)}{_PACKED[vr]}", *values)
    return _even("\\".join(map(str, values)).encode("ascii"), b"\0" if vr == "UI" else b" ")


def _items(sequence: Items, implicit: bool) -> bytes:
    datasets = [_dataset(item, implicit) for item in sequence.items]
    return b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(dataset)) + dataset for dataset in datasets)


def _encapsulated(frame: bytes) -> bytes:
    item = struct.Struct("<HHI")
    head = struct.pack("<HH", 0x7FE0, 0x0010) + b"OB\0\0" + _UNDEFINED
    fragment = _even(frame)
    return (
        head + item.pack(0xFFFE, 0xE000, 0) + item.pack(0xFFFE, 0xE000, len(fragment)) + fragment + item.pack(0xFFFE, 0xE0DD, 0)
    )


def _even(content: bytes, padding: bytes = b"\0") -> bytes:
    return content + padding if len(content) % 2 else content
