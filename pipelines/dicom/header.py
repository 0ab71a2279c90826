"""The attributes of a dataset as raw bytes, handed out as numbers and text that callers match against vocabularies.

Nothing here warns, logs or quotes a value: header values are identified data until the profile has passed them.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from pydicom.datadict import dictionary_VR, tag_for_keyword

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q", "AT": "H"}
_PADDING = " \t\r\n\0"


@cache
def tag_of(keyword: str) -> int:
    """The tag of a standard keyword, as group << 16 | element."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag


class Element(NamedTuple):
    """A raw value, or the items of a sequence, with the VR that the file gives (None in implicit VR)."""

    vr: str | None
    value: bytes = b""
    items: tuple[Header, ...] = ()

    def __repr__(self) -> str:
        return "Element()"  # values are identified data


@dataclass(frozen=True, repr=False)
class Header:
    """The attributes of a dataset or an item, by tag."""

    elements: Mapping[int, Element]
    little_endian: bool = True

    def __contains__(self, keyword: str) -> bool:
        return tag_of(keyword) in self.elements

    def raw(self, keyword: str) -> bytes:
        """The value's bytes, b"" if there is none."""
        element = self.elements.get(tag_of(keyword))
        return element.value if element else b""

    def items(self, keyword: str) -> tuple[Header, ...]:
        """The items of a sequence, none if it is not there."""
        element = self.elements.get(tag_of(keyword))
        return element.items if element else ()

    def text(self, keyword: str) -> str:
        """The value as text without padding, "" if there is none."""
        return decoded(self.raw(keyword))

    def texts(self, keyword: str) -> list[str]:
        """The values of a multi-valued text, each without padding; empty if there is none."""
        text = self.text(keyword)
        return [part.strip(_PADDING) for part in text.split("\\")] if text else []

    def numbers(self, keyword: str) -> list[int | float]:
        """The values as finite numbers; empty if there are none or any of them is not a number."""
        element = self.elements.get(tag_of(keyword))
        if element is None or not element.value:
            return []
        kind = self._binary_kind(keyword, element)
        return self._unpacked(element.value, kind) if kind else _parsed(self.texts(keyword))

    def number(self, keyword: str) -> int | float | None:
        """The first of `numbers`, or None."""
        return next(iter(self.numbers(keyword)), None)

    def integer(self, keyword: str) -> int | None:
        """The first of `numbers` if it is whole, else None."""
        value = self.number(keyword)
        return int(value) if value is not None and value == int(value) else None

    def _unpacked(self, value: bytes, kind: str) -> list[int | float]:
        count, rest = divmod(len(value), struct.calcsize(kind))
        if rest:
            return []
        values = struct.unpack(f"{'<' if self.little_endian else '>'}{count}{kind}", value)
        return list(values) if all(math.isfinite(number) for number in values) else []

    def _binary_kind(self, keyword: str, element: Element) -> str | None:
        """The struct code of a binary number; None for a number written as text."""
        vr = element.vr if element.vr and element.vr != "UN" else dictionary_VR(keyword)
        if vr.startswith("US or SS"):
            vr = "SS" if keyword != "PixelRepresentation" and self.integer("PixelRepresentation") == 1 else "US"
        return _BINARY.get(vr)


def decoded(value: bytes) -> str:
    """A value as text without padding: UTF-8 if it can be that, else Latin-1, which any bytes can be."""
    try:
        return value.decode().strip(_PADDING)
    except UnicodeDecodeError:
        return value.decode("latin-1").strip(_PADDING)


def _parsed(texts: list[str]) -> list[int | float]:
    if not all(_NUMBER.fullmatch(text) for text in texts):
        return []
    values = [float(text) for text in texts]
    if not all(math.isfinite(value) for value in values):
        return []
    return [int(value) if value.is_integer() and abs(value) < 1e15 else value for value in values]
