"""One pass over the elements of a DICOM stream (PS3.5 7.1), in few reads, trusting none of its lengths."""

from __future__ import annotations

import os
import struct
from functools import cache
from typing import BinaryIO

from pydicom.datadict import dictionary_has_tag, dictionary_VR

from pipelines.dicom.header import Element, Header, tag_of
from pipelines.dicom.profile import CONSULTED, PROFILE
from pipelines.errors import RefusedFileError
from pipelines.records import Reason

DEEPEST = 32
MOST_ELEMENTS = 1 << 17
"""Of a header, with the items of its sequences; the longest genuine ones have some thousands."""
LARGEST_VALUE = 1 << 20
"""Bytes of a listed attribute; the largest, a lookup table, has 128 kB."""

_AT_ONCE = 8192  # most headers are shorter
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXELS = 0x7FE00010
_AT_PIXELS = frozenset({0x7FE00008, 0x7FE00009, PIXELS})
_NO_RUN = 0x7FE00000  # from here on come the pixel data and delimiters
# PS3.5 6.2; by whether the length takes four bytes or two
LONG = {code: code.decode() for code in b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()}
_SHORT = {code: code.decode() for code in b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()}
_LARGEST_UNLISTED = 1 << 16
_SEQUENCES = frozenset(map(tag_of, ("ModalityLUTSequence", "VOILUTSequence", "ViewCodeSequence", "AnatomicRegionSequence")))
_IN_ITEMS = ("LUTDescriptor", "LUTExplanation", "LUTData", "ModalityLUTType", "CodeValue", "LongCodeValue")
_IN_META = ("MediaStorageSOPClassUID", "TransferSyntaxUID")
_WANTED = frozenset(map(tag_of, (*(rule.keyword for rule in PROFILE), *CONSULTED, *_IN_ITEMS, *_IN_META)))


class Walk:
    """A position in a stream of known size, and the bytes around it.

    Attributes:
        at: the position; the stream itself may stand elsewhere.
        size: of the stream, in bytes.
        stopped_at: the tag of the pixel data if the walk came there, else 0.
        tags: every attribute before the pixel data, outside of sequences, listed or not.
    """

    def __init__(self, stream: BinaryIO, at: int = 0, *, whole: bool = False) -> None:
        self.stream = stream
        self.at = at
        self.size = _size(stream)
        self.stopped_at = 0
        self.tags: list[int] = []
        self._whole = whole
        self._count = 0
        self._data = b""
        self._base = 0
        self.set_order("<")

    def set_order(self, order: str) -> None:
        self._little = order == "<"
        self._head = struct.Struct(f"{order}HH2sH")
        self._tag_and_length = struct.Struct(f"{order}HHI")
        self._word = struct.Struct(f"{order}I")

    def peek(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        offset = self.at - self._base
        if offset < 0 or offset + count > len(self._data):
            self.stream.seek(self.at)
            self._data, self._base, offset = self.stream.read(max(count, _AT_ONCE)), self.at, 0
        return self._data[offset : offset + count]

    def take(self, count: int) -> bytes:
        """The next bytes, stepping over them.

        Raises:
            RefusedFileError: truncated: the stream ends before.
        """
        content = self.peek(count) if count <= _AT_ONCE else self._read(count)
        if len(content) < count:
            raise RefusedFileError(Reason.TRUNCATED, "the file ends within an attribute")
        self.at += count
        return content

    def step_over(self, count: int) -> None:
        """Go on behind the next bytes.

        Raises:
            RefusedFileError: truncated: the stream ends before.
        """
        self.at = self._within(count)

    def dataset(self, implicit: bool, end: int | None = None, depth: int = 0) -> dict[int, Element]:
        """The listed elements up to the pixel data, the position `end`, an item delimiter or the end of the file.

        Raises:
            RefusedFileError: truncated, a VR that the standard does not know, or no dataset.
        """
        if depth > DEEPEST:
            raise RefusedFileError(Reason.UNREADABLE, f"sequences nested deeper than {DEEPEST}")
        found: dict[int, Element] = {}
        unpack, top = self._head.unpack_from, not depth
        while end is None or self.at < end:
            self._run(found, implicit, end, top)
            if end is not None and self.at >= end:
                break
            offset = self.at - self._base
            if offset < 0 or offset + 12 > len(self._data):
                head = self.peek(12)
                if len(head) < 8 and not head.strip(b"\0") and top:
                    break
                if len(head) < 8:
                    raise RefusedFileError(Reason.TRUNCATED, "the file ends within the header")
                offset = self.at - self._base
            group, element, vr, length = unpack(self._data, offset)
            tag = group << 16 | element
            if tag == _ITEM_END:
                self.at += 8
                break
            if top:
                if tag in _AT_PIXELS:
                    self.stopped_at = tag
                    break
                self.tags.append(tag)
            self._count_one()
            name, length = self._vr_and_length(implicit, vr, length, offset)
            value = self._value(tag, name, length, implicit, depth)
            if value is not None and tag not in found:
                found[tag] = value
        return found

    def _run(self, found: dict[int, Element], implicit: bool, end: int | None, top: bool) -> None:
        """Take the elements at hand whose heads and values need no closer look, as nearly all do: this is what a scan spends."""
        data, base, whole = self._data, self._base, self._whole
        offset, stop = self.at - base, len(data) if end is None else min(len(data), end - base)
        if offset < 0 or (implicit and whole):
            return
        unpack = self._tag_and_length.unpack_from if implicit else self._head.unpack_from
        tags, most, vr = self.tags if top else [], MOST_ELEMENTS - self._count, None
        count = 0
        while offset + 8 <= stop and count < most:
            if implicit:
                group, element, length = unpack(data, offset)
            else:
                group, element, code, length = unpack(data, offset)
                vr = _SHORT.get(code)
                if vr is None:
                    break
            tag = group << 16 | element
            start = offset + 8
            if start + length > stop or tag >= _NO_RUN or tag in _SEQUENCES:
                break
            offset = start + length
            tags.append(tag)
            count += 1
            if (whole or tag in _WANTED) and tag not in found:
                found[tag] = Element(vr, data[start:offset])
        self.at = base + offset
        self._count += count

    def _count_one(self) -> None:
        self._count += 1
        if self._count > MOST_ELEMENTS:
            raise RefusedFileError(Reason.UNREADABLE, f"more than {MOST_ELEMENTS:,} attributes and items")

    def _vr_and_length(self, implicit: bool, vr: bytes, length: int, offset: int) -> tuple[str | None, int]:
        """VR and length of an element, stepping over its head."""
        # Some writers switch to implicit VR within sequences: what is no VR is taken for half of a length.
        if implicit or not (vr.isalpha() and vr.isupper()):
            self.at += 8
            return None, self._word.unpack_from(self._data, offset + 4)[0]
        if vr in _SHORT:
            self.at += 8
            return _SHORT[vr], length
        if vr not in LONG:  # nobody can say where its value ends (PS3.5 6.2.2)
            raise RefusedFileError(Reason.UNKNOWN_VR)
        if offset + 12 > len(self._data):
            raise RefusedFileError(Reason.TRUNCATED, "the file ends within an attribute")
        self.at += 12
        return LONG[vr], self._word.unpack_from(self._data, offset + 8)[0]

    def _value(self, tag: int, vr: str | None, length: int, implicit: bool, depth: int) -> Element | None:
        listed = tag in _WANTED
        wanted = listed or self._whole
        if length == _UNDEFINED or (listed and tag in _SEQUENCES) or (self._whole and _is_sequence(tag, vr)):
            end = None if length == _UNDEFINED else self._within(length)
            items = self._items(implicit, end, depth + 1)
            return Element(vr, items=items) if wanted else None
        end = self._within(length)
        largest = LARGEST_VALUE if listed else _LARGEST_UNLISTED
        value = None
        if wanted and (length <= largest or self._whole):
            offset = self.at - self._base
            held = offset + length <= len(self._data)
            value = Element(vr, self._data[offset : offset + length] if held else self._read(min(length, largest)))
        self.at = end
        return value

    def _read(self, count: int) -> bytes:
        self.stream.seek(self.at)
        return self.stream.read(count)

    def _within(self, length: int) -> int:
        end = self.at + length
        if end > self.size:
            raise RefusedFileError(Reason.TRUNCATED, "the file ends within the header")
        return end

    def _items(self, implicit: bool, end: int | None, depth: int) -> tuple[Header, ...]:
        items: list[Header] = []
        while end is None or self.at < end:
            group, element, length = self._tag_and_length.unpack(self.take(8))
            tag = group << 16 | element
            if tag == _SEQUENCE_END:
                break
            if tag != _ITEM:
                raise RefusedFileError(Reason.UNREADABLE, "a sequence without an item tag")
            self._count_one()
            items.append(self._item(implicit, length, depth))
        return tuple(items)

    def _item(self, implicit: bool, length: int, depth: int) -> Header:
        if length == _UNDEFINED:
            return Header(self.dataset(implicit, None, depth), self._little)
        end = self._within(length)
        # The item of an undefined-length OB is a fragment, not a dataset; what does not parse is stepped over.
        try:
            found = self.dataset(implicit, end, depth)
        except RefusedFileError:
            found = {}
        self.at = end
        return Header(found, self._little)


def _size(stream: BinaryIO) -> int:
    try:
        return os.fstat(stream.fileno()).st_size
    except OSError:  # not a file of the system's
        return stream.seek(0, os.SEEK_END)


@cache
def _is_sequence(tag: int, vr: str | None) -> bool:
    """Whether a value of defined length is a sequence: by its VR, or by the dictionary where the file gives none."""
    if vr is not None and vr != "UN":
        return vr == "SQ"
    return not tag >> 16 & 1 and dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"
