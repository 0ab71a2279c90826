"""Read a DICOM file up to its pixel data, trusting none of it.

The walk knows where the file ends, so a truncated file is told from a whole one, and it keeps only the attributes that
`profile` lists: a large private element is stepped over, not read.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipelines.dicom.header import Element, Header, tag_of
from pipelines.dicom.walking import LARGEST_VALUE, LONG, PIXELS, Walk
from pipelines.errors import RefusedFileError
from pipelines.records import Reason

PREAMBLE = 128
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
STORAGE_CLASSES = "1.2.840.10008.5.1.4.1.1."
LARGEST_INFLATED = 1 << 28
"""Bytes; the largest image that is decoded takes three quarters of it."""
MOST_FRAGMENTS = 1 << 16
_UNDEFINED = 0xFFFFFFFF
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
_INFLATED_AT_ONCE = 1 << 20


@dataclass(frozen=True, repr=False)
class Source:
    """A file whose header was read.

    Attributes:
        header: the listed attributes before the pixel data; with `whole`, all of them.
        transfer_syntax: UID of the encoding, "" if the file does not say and it cannot be told.
        stream: stands at the pixel data element if `has_pixels`.
        implicit: the dataset is in implicit VR.
        has_pixels: there is a (7FE0,0010).
        tags: every attribute before the pixel data, outside of sequences, listed or not.
        meta: the file meta information.
        preamble: the 128 bytes before it, b"" if there are none.
    """

    header: Header
    transfer_syntax: str
    stream: BinaryIO
    implicit: bool
    has_pixels: bool
    tags: tuple[int, ...] = ()
    meta: Header = field(default_factory=lambda: Header({}))
    preamble: bytes = b""

    @property
    def is_directory(self) -> bool:
        """Whether the file is a DICOMDIR (PS3.3 F.3)."""
        return self.header.text("SOPClassUID") == MEDIA_DIRECTORY


def open_source(stream: BinaryIO, *, whole: bool = False) -> Source:
    """Read the header of a DICOM file.

    Files without the Part 10 preamble are taken if a storage class stands among the first attributes (PS3.10 7.1).

    Args:
        whole: read every attribute, at any depth, not only the listed ones; of large ones the first 64 kB.

    Raises:
        RefusedFileError: not DICOM, truncated, a VR that the standard does not know, or a header that cannot be read.
    """
    walk = Walk(stream, whole=whole)
    preamble = _preamble(walk)
    meta = _file_meta(walk)
    syntax = meta.text("TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        stream = _inflated(stream, walk.at)
        walk = Walk(stream, whole=whole)
    implicit, order = _encoding(syntax, walk.peek(8))
    walk.set_order(order)
    elements = walk.dataset(implicit)
    if not preamble and not Header(elements).text("SOPClassUID").startswith(STORAGE_CLASSES):
        raise RefusedFileError(Reason.NOT_DICOM)
    if "MediaStorageSOPClassUID" in meta:
        elements.setdefault(tag_of("SOPClassUID"), Element("UI", meta.raw("MediaStorageSOPClassUID")))
    syntax = syntax or (ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian)
    stream.seek(walk.at)
    header, has_pixels = Header(elements, order == "<"), walk.stopped_at == PIXELS
    return Source(header, syntax, stream, implicit, has_pixels, tuple(walk.tags), meta, preamble)


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
    while len(found) <= MOST_FRAGMENTS:
        group, element, length = struct.unpack("<HHI", exactly(stream, 8))
        tag = group << 16 | element
        if tag == _SEQUENCE_END:
            return found[1:]
        if tag != _ITEM or length == _UNDEFINED:
            raise RefusedFileError(Reason.UNDECODABLE, "a fragment without an item tag")
        found.append(exactly(stream, length))
    raise RefusedFileError(Reason.UNDECODABLE, f"more than {MOST_FRAGMENTS:,} fragments")


def _preamble(walk: Walk) -> bytes:
    """Step over the preamble if there is one; its bytes."""
    start = walk.peek(PREAMBLE + 4)
    if start[PREAMBLE:] == b"DICM":
        walk.at = PREAMBLE + 4
        return start[:PREAMBLE]
    if not _plausible(start[:8]):
        raise RefusedFileError(Reason.NOT_DICOM)
    return b""


def _plausible(head: bytes) -> bool:
    """Whether eight bytes can be the first element of group 0002 or 0008, in one of the three encodings."""
    group, big = head[:2], head[:2] == b"\0\x08"
    if len(head) < 8 or group not in (b"\x02\0", b"\x08\0", b"\0\x08"):
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or (not big and int.from_bytes(head[4:8], "little") < 4096)


def _file_meta(walk: Walk) -> Header:
    """The file meta information (PS3.10 7.1); always in explicit VR little endian."""
    start = walk.at
    while (head := walk.peek(12))[:2] == b"\x02\0":
        long = head[4:6] in LONG
        if len(head) < (12 if long else 8):
            raise RefusedFileError(Reason.TRUNCATED, "the file ends within its file meta information")
        walk.step_over(12 + int.from_bytes(head[8:12], "little") if long else 8 + int.from_bytes(head[6:8], "little"))
        if walk.at - start > LARGEST_VALUE:
            raise RefusedFileError(Reason.UNREADABLE, "file meta information without end")
    end = walk.at
    if not walk.peek(8):
        raise RefusedFileError(Reason.TRUNCATED, "the file ends with its file meta information")
    walk.at = start
    meta = Header(walk.dataset(implicit=False, end=end))
    walk.at = end
    walk.tags.clear()
    return meta


def _encoding(syntax: str, head: bytes) -> tuple[bool, str]:
    """Implicit VR, and the byte order: as the first element has it, since transfer syntaxes have been known to lie."""
    first = int.from_bytes(head[:2], "big" if syntax == ExplicitVRBigEndian else "little")
    order = ">" if syntax == ExplicitVRBigEndian or (not syntax and head[:2] == b"\0\x08") else "<"
    if order == "<" and first > 0x0028:
        raise RefusedFileError(Reason.UNREADABLE, "the dataset does not start as one")
    return not (head[4:6].isalpha() and head[4:6].isupper()), order


def _inflated(stream: BinaryIO, start: int) -> BinaryIO:
    """The rest of a deflated file (PS3.5 A.5), piece by piece, refused where it grows larger than any image."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    content = BytesIO()
    stream.seek(start)
    try:
        while not engine.eof and (piece := engine.unconsumed_tail or stream.read(_INFLATED_AT_ONCE)):
            content.write(engine.decompress(piece, _INFLATED_AT_ONCE))
            if content.tell() > LARGEST_INFLATED:
                raise RefusedFileError(Reason.SIZE, "deflated data of more than 256 MiB")
    except zlib.error:
        raise RefusedFileError(Reason.TRUNCATED, "deflated data that cannot be inflated") from None
    if not engine.eof:
        raise RefusedFileError(Reason.TRUNCATED, "the deflated data end early")
    return content
