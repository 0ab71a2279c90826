"""Text that is burned into the pixels: find it, tell markers from what may identify somebody, blank the latter, prove it.

The Clean Pixel Data Option of PS3.15 E.3.1. Text that was read never leaves this module: what comes out are boxes and counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from functools import reduce
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from pipelines.dicom.markers import harmless
from pipelines.dicom.text_lines import Box, Gray, Line, Working, find_lines, working_images
from pipelines.dicom.text_reading import Reading, detect, glance, read_line

LIKELY = -3.0  # likeness from which a row of strokes is looked at
LIKELIER = 0.0  # from which it is read at once; below, the detector looks first, which is faster
LIKELY_IF_LARGE = 2.0
CLEAR = 1.0  # from which it is text even if it can hardly be read
STRONG = 3.0  # from which it is text even if it cannot be read: another script, mirrored, cut off
FEWEST = 4  # letters that such a text has; an arrow has one or two
LONG = 2.5  # times as long as its letters are tall; a mark of one letter, or in a circle, is not
MOST_LINES = 40  # of an image; with more, the detector looks at it as a whole, too
SURE = 0.85  # confidence from which a reading is believed
UNSURE = 0.65  # from which it speaks for text that is hard to read
_GLANCED = 0.1  # probability of text, to the detector, with which a row is read
_MARGIN = 16  # working pixels around the row that the detector sees
_LARGE_LETTERS, _SEEN_AS = 40, 24  # working pixels from top to bottom: larger letters are made so small
_GIST = 0.3  # of text that is read upside down
_LARGE = 60  # working pixels from top to bottom of a letter; ribs and spines are
_TALLEST = 48  # working pixels; what is larger and cannot be read is a spine
ROUNDS = 3  # of blanking; the first looks with the fast detector alone, unless the header declares text
_RIM = 4  # stored pixels; with the growth, what lossy compression smears of a letter
_GROWTH = 0.35  # of the height of the letters
_MORE = 2.5  # of that height, before the first letter and behind the last, where letters that are hard to see may go on
_STRIP = 4  # stored pixels of the surroundings that fill a box

Pixels = NDArray[Any]


class Kind(Enum):
    """What a text is."""

    MARKER = auto()
    IDENTIFYING = auto()
    UNCERTAIN = auto()


@dataclass(frozen=True)
class Region:
    """A text in the image.

    Attributes:
        box: in stored pixels.
        upright: the text runs from top to bottom.
    """

    box: Box
    kind: Kind
    upright: bool = False


@dataclass(frozen=True, repr=False)
class Cleaned:
    """An image without identifying text.

    Attributes:
        stored: pixel values; the array that was given where nothing was blanked.
        blanked: boxes that were blanked.
        markers: texts that were read as harmless.
        left: texts that are still there; more than 0 means that the image must not be used.
    """

    stored: Pixels
    blanked: int
    markers: int
    left: int


def clean(stored: Pixels, *, thorough: bool = False) -> Cleaned:
    """Blank all text but markers, and read the result again to prove that nothing is left.

    Args:
        stored: pixel values (rows, columns), of either polarity.
        thorough: look with the slow detector too, even if the fast one finds nothing.
    """
    regions = find(stored, thorough=thorough)
    blanked = 0
    for _ in range(ROUNDS):
        unwanted = _unwanted(regions)
        if not unwanted:
            break
        boxes = _blocks(unwanted, _shape(stored))
        stored, blanked = blank(stored, boxes), blanked + len(boxes)
        regions = find(stored, thorough=True)
    markers = [region for region in regions if region.kind is Kind.MARKER]
    return Cleaned(stored, blanked, len(_blocks(markers, _shape(stored))), len(_unwanted(regions)))


def find(stored: Pixels, *, thorough: bool = False) -> tuple[Region, ...]:
    """The texts of an image; see `clean`."""
    regions: list[Region] = []
    for working in working_images(stored):
        regions += _find(working, thorough)
    return tuple(regions)


def blank(stored: Pixels, boxes: Iterable[Box]) -> Pixels:
    """A copy whose boxes hold what their surroundings suggest, so that neither text nor an edge is left."""
    filled = stored.copy()
    for box in boxes:
        if box.height <= box.width:
            _fill(filled, box)
        else:
            _fill(filled.T, Box(box.left, box.top, box.right, box.bottom))
    return filled


def _fill(pixels: Pixels, box: Box) -> None:
    """Go from the median of the strip above to that of the strip below, column by column."""
    strips = [
        _level(pixels[rows, box.left : box.right], box.height)
        for rows in (slice(max(box.top - _STRIP, 0), box.top), slice(box.bottom, box.bottom + _STRIP))
    ]
    known = [strip for strip in strips if strip is not None] or [np.full(box.width, np.median(pixels))]
    share = (np.arange(box.height) + 0.5)[:, np.newaxis] / box.height
    values = known[0] * (1 - share) + known[-1] * share
    pixels[box.top : box.bottom, box.left : box.right] = np.rint(values).astype(pixels.dtype)


def _level(strip: Pixels, reach: int) -> NDArray[np.float64] | None:
    if not strip.shape[0]:
        return None
    level: NDArray[np.float64] = median_filter(np.median(strip, axis=0), size=2 * reach + 1, mode="nearest")
    return level


def _blocks(regions: Iterable[Region], shape: tuple[int, int]) -> list[Box]:
    """Boxes to blank: grown, so that no rim of a letter is left; joined where they touch, so that none surrounds another."""
    blocks: list[Box] = []
    for region in regions:
        across = region.box.width if region.upright else region.box.height
        more = round(_MORE * across)
        along = (more, 0) if region.upright else (0, more)
        box = region.box.grown(_RIM + round(_GROWTH * across), *shape, along=along)
        while touching := [other for other in blocks if box.overlap(other)]:
            blocks = [other for other in blocks if other not in touching]
            box = reduce(Box.joined, touching, box)
        blocks.append(box)
    return blocks


def _shape(stored: Pixels) -> tuple[int, int]:
    return stored.shape[0], stored.shape[1]


def _unwanted(regions: Iterable[Region]) -> list[Region]:
    return [region for region in regions if region.kind is not Kind.MARKER]


def _find(working: Working, thorough: bool) -> list[Region]:
    lines = [line for line in find_lines(working.gray, LIKELY) if line.across <= _LARGE or line.likeness >= LIKELY_IF_LARGE]
    lines.sort(key=lambda line: line.likeness, reverse=True)
    if thorough or len(lines) > MOST_LINES:
        detected = [Line(box, box.height > 1.5 * box.width, 0.0) for box in detect(working.gray)]
        lines = [*lines[:MOST_LINES], *detected]
    found: list[tuple[Line, Kind]] = []
    others: list[Line] = []
    for line in lines:
        known = any(_within(line, text) if kind is not Kind.MARKER else _piece(line, text) for text, kind in found)
        if known or any(_same(line, other) for other in others):
            continue
        kind = _judged(working.gray, line)
        if kind is None:
            others.append(line)
        else:
            found.append((line, kind))
    markers = [line for line, kind in found if kind is Kind.MARKER]
    return [
        Region(_stored(line.box, working.scale), kind, line.upright)
        for line, kind in found
        if kind is Kind.MARKER or not any(_piece(line, marker) for marker in markers)
    ]


def _piece(line: Line, marker: Line) -> bool:
    """Whether a row is a piece of a marker, and no smaller line of text within its box."""
    return _within(line, marker) and line.upright == marker.upright and line.across >= 0.6 * marker.across


def _within(line: Line, other: Line) -> bool:
    return line.box.overlap(other.box) > 0.8 * line.box.area


def _same(line: Line, other: Line) -> bool:
    shared = line.box.overlap(other.box)
    return line.upright == other.upright and 2 * shared > line.box.area + other.box.area - shared


def _judged(gray: Gray, line: Line) -> Kind | None:
    """What a row of strokes is; None if it is not text."""
    if line.likeness < LIKELIER and not _glanced(gray, line):
        return None
    reading = _read(gray, line)
    letters = [letter for letter in reading.text.upper() if letter.isalnum()]
    different = len(set(letters))  # ribs and vertebrae read "mmm" and "aaaa"
    if reading.confidence >= SURE:
        if harmless(reading.text) and (len(letters) > 1 or line.along <= 4 * line.across):
            return Kind.MARKER
        if different > 1:
            return Kind.IDENTIFYING
    legible = line.likeness >= CLEAR and reading.confidence >= UNSURE and different > 2
    return Kind.UNCERTAIN if line.across <= _TALLEST and (legible or _strong(line)) else None


def _glanced(gray: Gray, line: Line) -> bool:
    box = line.box.grown(_MARGIN, *gray.shape)
    part = gray[box.top : box.bottom, box.left : box.right]
    if line.across > _LARGE_LETTERS:
        factor = _SEEN_AS / line.across
        part = cv2.resize(part, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return glance(part) >= _GLANCED


def _strong(line: Line) -> bool:
    return line.likeness >= STRONG and line.letters >= FEWEST and line.along >= LONG * line.across


def _read(gray: Gray, line: Line) -> Reading:
    """Read a line in the direction in which it says more."""
    box = line.box.grown(2 + round(line.across / 4), *gray.shape)
    crop = np.rot90(gray[box.top : box.bottom, box.left : box.right], line.upright)
    first = read_line(crop)
    doubtful = first.confidence >= _GIST and (line.upright or line.likeness >= 0)
    if first.confidence >= SURE or not (doubtful or _strong(line)):
        return first
    return max(first, read_line(np.rot90(crop, 2)), key=lambda reading: reading.confidence * min(len(reading.text), 3))


def _stored(box: Box, scale: float) -> Box:
    return Box(int(box.top * scale), int(box.left * scale), int(np.ceil(box.bottom * scale)), int(np.ceil(box.right * scale)))
