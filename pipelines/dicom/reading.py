"""Read a DICOM file up to its pixel data, trusting none of it.

The walk knows where the file ends, so a truncated file is told from a whole one, and it keeps only the attributes that
`profile` lists: a large private element is stepped over, not read.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipelines.dicom.header import Element, Header, tag_of
from pipelines.dicom.profile import CONSULTED, PROFILE
from pipelines.errors import RefusedFileError
from pipelines.records import Reason

PREAMBLE = 128
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
STORAGE_CLASSES = "1.2.840.10008.5.1.4.1.1."
LARGEST_INFLATED = 1 << 30
DEEPEST = 32
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = 0x7FE00010
_AT_PIXELS = frozenset({0x7FE00008, 0x7FE00009, _PIXELS})
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SEQUENCES = frozenset(map(tag_of, ("ModalityLUTSequence", "VOILUTSequence", "ViewCodeSequence", "AnatomicRegionSequence")))
_IN_ITEMS = ("LUTDescriptor", "LUTData", "ModalityLUTType", "CodeValue", "LongCodeValue")
_IN_META = ("MediaStorageSOPClassUID", "TransferSyntaxUID")
_WANTED = frozenset(map(tag_of, (*(rule.keyword for rule in PROFILE), *CONSULTED, *_IN_ITEMS, *_IN_META)))


@dataclass(frozen=True, repr=False)
class Source:
    """A file whose header was read.

    Attributes:
        header: the listed attributes before the pixel data.
        transfer_syntax: UID of the encoding, "" if the file does not say and it cannot be told.
        stream: stands at the pixel data element if `has_pixels`.
        implicit: the dataset is in implicit VR.
        has_pixels: there is a (7FE0,0010).
    """

    header: Header
    transfer_syntax: str
    stream: BinaryIO
    implicit: bool
    has_pixels: bool

    @property
    def is_directory(self) -> bool:
        """Whether the file is a DICOMDIR (PS3.3 F.3)."""
        return self.header.text("SOPClassUID") == MEDIA_DIRECTORY


def open_source(stream: BinaryIO) -> Source:
    """Read the header of a DICOM file.

    Files without the Part 10 preamble are taken if a storage class stands among the first attributes (PS3.10 7.1).

    Raises:
        RefusedFileError: not DICOM, truncated, or a header that cannot be read.
    """
    part10 = _at_start(stream)
    meta = _file_meta(stream)
    syntax = meta.text("TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        stream = _inflated(stream)
    implicit, order = _encoding(syntax, _peek(stream, 8))
    walk = _Walk(stream, order)
    elements = walk.dataset(implicit)
    if not part10 and not Header(elements).text("SOPClassUID").startswith(STORAGE_CLASSES):
        raise RefusedFileError(Reason.NOT_DICOM)
    if "MediaStorageSOPClassUID" in meta:
        elements.setdefault(tag_of("SOPClassUID"), Element("UI", meta.raw("MediaStorageSOPClassUID")))
    syntax = syntax or (ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian)
    return Source(Header(elements, order == "<"), syntax, stream, implicit, walk.stopped_at == _PIXELS)


def exactly(stream: BinaryIO, count: int) -> bytes:
    """The next `count` bytes.

    Raises:
        RefusedFileError: truncated: the file ends before.
    """
    content = stream.read(count)
    if len(content) < count:
        raise RefusedFileError(Reason.TRUNCATED, "the file ends within an attribute")
    return content


def pixel_element(source: Source) -> tuple[str | None, int | None]:
    """Step over the head of the pixel data element.

    Returns:
        Its VR (None in implicit VR) and its length in bytes (None: encapsulated, PS3.5 A.4).
    """
    order = "<" if source.header.little_endian else ">"
    head = exactly(source.stream, 8)
    if source.implicit:
        vr, length = None, struct.unpack(f"{order}4xI", head)[0]
    elif head[4:6] in (b"OB", b"OW", b"UN"):
        vr, length = head[4:6].decode(), struct.unpack(f"{order}I", exactly(source.stream, 4))[0]
    else:
        raise RefusedFileError(Reason.UNREADABLE, "the VR of the pixel data is neither OB nor OW")
    return vr, None if length == _UNDEFINED else length


def fragments(stream: BinaryIO) -> list[bytes]:
    """The fragments of encapsulated pixel data (PS3.5 A.4), without the offset table.

    Raises:
        RefusedFileError: truncated: the file ends before the sequence does; undecodable: it is not a sequence.
    """
    found: list[bytes] = []
    while True:
        group, element, length = struct.unpack("<HHI", exactly(stream, 8))
        tag = group << 16 | element
        if tag == _SEQUENCE_END:
            return found[1:]
        if tag != _ITEM or length == _UNDEFINED:
            raise RefusedFileError(Reason.UNDECODABLE, "a fragment without an item tag")
        found.append(exactly(stream, length))


class _Walk:
    """One pass over the elements of a stream (PS3.5 7.1)."""

    def __init__(self, stream: BinaryIO, order: str) -> None:
        self.stream = stream
        self.stopped_at = 0
        self._tag = struct.Struct(f"{order}HH")
        self._short = struct.Struct(f"{order}H")
        self._word = struct.Struct(f"{order}I")
        here = stream.tell()
        self._size = stream.seek(0, os.SEEK_END)
        stream.seek(here)

    def dataset(self, implicit: bool, end: int | None = None, depth: int = 0) -> dict[int, Element]:
        """The listed elements up to the pixel data, the position `end`, an item delimiter or the end of the file."""
        if depth > DEEPEST:
            raise RefusedFileError(Reason.UNREADABLE, f"sequences nested deeper than {DEEPEST}")
        found: dict[int, Element] = {}
        while end is None or self.stream.tell() < end:
            head = self.stream.read(8)
            if len(head) < 8 and not head.strip(b"\0") and not depth:
                break
            if len(head) < 8:
                raise RefusedFileError(Reason.TRUNCATED, "the file ends within the header")
            group, element = self._tag.unpack_from(head)
            tag = group << 16 | element
            if tag == _ITEM_END:
                break
            if not depth and tag in _AT_PIXELS:
                self.stream.seek(-8, os.SEEK_CUR)
                self.stopped_at = tag
                break
            value = self._element(tag, head, implicit, depth)
            if value is not None:
                found.setdefault(tag, value)
        return found

    def _element(self, tag: int, head: bytes, implicit: bool, depth: int) -> Element | None:
        vr, length = self._vr_and_length(head, implicit)
        wanted = tag in _WANTED
        if length == _UNDEFINED or (wanted and tag in _SEQUENCES):
            end = None if length == _UNDEFINED else self._within(length)
            items = self._items(implicit, end, depth + 1)
            return Element(vr, items=items) if wanted else None
        self._within(length)
        if not wanted:
            self.stream.seek(length, os.SEEK_CUR)
            return None
        return Element(vr, self.stream.read(length))

    def _vr_and_length(self, head: bytes, implicit: bool) -> tuple[str | None, int]:
        vr = head[4:6]
        # Some writers switch to implicit VR within sequences: what is no VR is taken for half of a length.
        if implicit or not (vr.isalpha() and vr.isupper()):
            return None, self._word.unpack_from(head, 4)[0]
        if vr in _LONG:
            return vr.decode(), self._word.unpack(exactly(self.stream, 4))[0]
        return vr.decode(), self._short.unpack_from(head, 6)[0]

    def _within(self, length: int) -> int:
        end = self.stream.tell() + length
        if end > self._size:
            raise RefusedFileError(Reason.TRUNCATED, "the file ends within the header")
        return end

    def _items(self, implicit: bool, end: int | None, depth: int) -> tuple[Header, ...]:
        items: list[Header] = []
        while end is None or self.stream.tell() < end:
            head = exactly(self.stream, 8)
            group, element = self._tag.unpack_from(head)
            tag, length = group << 16 | element, self._word.unpack_from(head, 4)[0]
            if tag == _SEQUENCE_END:
                break
            if tag != _ITEM:
                raise RefusedFileError(Reason.UNREADABLE, "a sequence without an item tag")
            items.append(self._item(implicit, length, depth))
        return tuple(items)

    def _item(self, implicit: bool, length: int, depth: int) -> Header:
        little = self._tag.format.startswith("<")
        if length == _UNDEFINED:
            return Header(self.dataset(implicit, None, depth), little)
        end = self._within(length)
        # The item of an undefined-length OB is a fragment, not a dataset; what does not parse is stepped over.
        try:
            found = self.dataset(implicit, end, depth)
        except RefusedFileError:
            found = {}
        self.stream.seek(end)
        return Header(found, little)


def _at_start(stream: BinaryIO) -> bool:
    """Step over the preamble if there is one; whether there is."""
    start = stream.read(PREAMBLE + 4)
    if start[PREAMBLE:] == b"DICM":
        return True
    stream.seek(0)
    if not _plausible(start[:8]):
        raise RefusedFileError(Reason.NOT_DICOM)
    return False


def _plausible(head: bytes) -> bool:
    """Whether eight bytes can be the first element of group 0002 or 0008, in one of the three encodings."""
    group, big = head[:2], head[:2] == b"\0\x08"
    if len(head) < 8 or group not in (b"\x02\0", b"\x08\0", b"\0\x08"):
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or (not big and int.from_bytes(head[4:8], "little") < 4096)


def _file_meta(stream: BinaryIO) -> Header:
    """The file meta information (PS3.10 7.1); always in explicit VR little endian."""
    start = stream.tell()
    while _peek(stream, 2) == b"\x02\0":
        head = exactly(stream, 8)
        long = head[4:6] in _LONG
        length = struct.unpack("<I", exactly(stream, 4))[0] if long else struct.unpack_from("<H", head, 6)[0]
        exactly(stream, length)
    end = stream.tell()
    if not _peek(stream, 8) and end - start < 1 << 16:
        raise RefusedFileError(Reason.TRUNCATED, "the file ends with its file meta information")
    stream.seek(start)
    meta = BytesIO(stream.read(end - start))
    return Header(_Walk(meta, "<").dataset(implicit=False))


def _encoding(syntax: str, head: bytes) -> tuple[bool, str]:
    """Implicit VR, and the byte order: as the first element has it, since transfer syntaxes have been known to lie."""
    first = int.from_bytes(head[:2], "big" if syntax == ExplicitVRBigEndian else "little")
    order = ">" if syntax == ExplicitVRBigEndian or (not syntax and head[:2] == b"\0\x08") else "<"
    if order == "<" and first > 0x0028:
        raise RefusedFileError(Reason.UNREADABLE, "the dataset does not start as one")
    return not (head[4:6].isalpha() and head[4:6].isupper()), order


def _inflated(stream: BinaryIO) -> BinaryIO:
    """The rest of a deflated file (PS3.5 A.5), refused where it grows past a gigabyte."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = engine.decompress(stream.read(), LARGEST_INFLATED)
    except zlib.error:
        raise RefusedFileError(Reason.TRUNCATED, "deflated data that cannot be inflated") from None
    if engine.unconsumed_tail:
        raise RefusedFileError(Reason.SIZE, "deflated data of more than a gigabyte")
    if not engine.eof:
        raise RefusedFileError(Reason.TRUNCATED, "the deflated data end early")
    return BytesIO(content)


def _peek(stream: BinaryIO, count: int) -> bytes:
    start = stream.read(count)
    stream.seek(-len(start), os.SEEK_CUR)
    return start
