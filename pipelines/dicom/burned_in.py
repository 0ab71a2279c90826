"""Text that is burned into the pixels: find it, tell markers from what may identify somebody, blank the latter, prove it.

The Clean Pixel Data Option of PS3.15 E.3.1. Text that was read never leaves this module: what comes out are boxes and counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import reduce

import cv2
import numpy as np

from pipelines.dicom.blanking import Pixels, blank
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
_REACH = 8  # times the height of its letters that a line may go on, to both sides, unseen by the fast detector
_TRUST = 3.0  # in the detector, where a line is known to be
_NEAR = 64  # working pixels around what was blanked that the detector looks at again
_GIST = 0.3  # of text that is read upside down
_LARGE = 60  # working pixels from top to bottom of a letter; ribs and spines are
_TALLEST = 48  # working pixels; what is larger and cannot be read is a spine
ROUNDS = 3  # of blanking
_RIM = 8  # stored pixels; in the blocks of a JPEG, which are as long, its ringing shows where a letter was
_GROWTH = 0.35  # of the height of the letters
_MORE = 1.5  # of that height, before the first letter and behind the last, where letters that are hard to see may go on


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
        thorough: look at all of it with the slow detector, too; otherwise that one looks where the fast one found something,
            and around what was blanked.
    """
    regions = find(stored, thorough=thorough)
    boxes: list[Box] = []
    for _ in range(ROUNDS):
        unwanted = _unwanted(regions)
        if not unwanted:
            break
        more = _blocks(unwanted, _shape(stored))
        stored, boxes = blank(stored, more), [*boxes, *more]
        regions = find(stored, near=boxes)
    markers = [region for region in regions if region.kind is Kind.MARKER]
    return Cleaned(stored, len(boxes), len(_blocks(markers, _shape(stored))), len(_unwanted(regions)))


def find(stored: Pixels, *, thorough: bool = False, near: Sequence[Box] = ()) -> tuple[Region, ...]:
    """The texts of an image; see `clean`.

    Args:
        near: boxes, in stored pixels, around which the slow detector looks in any case.
    """
    regions: list[Region] = []
    for working in working_images(stored):
        everywhere = Box(0, 0, *working.gray.shape)
        regions += _find(working, [everywhere] if thorough else _parts(near, working))
    return tuple(regions)


def _parts(boxes: Iterable[Box], working: Working) -> list[Box]:
    """Where the detector looks again: boxes in working pixels, with what surrounds them."""
    scaled = (Box(*(int(side / working.scale) for side in box)) for box in boxes)
    return _apart(box.grown(_NEAR, *working.gray.shape) for box in scaled)


def _blocks(regions: Iterable[Region], shape: tuple[int, int]) -> list[Box]:
    """Boxes to blank: grown, so that no rim of a letter is left; joined where they touch, so that none surrounds another."""
    return _apart(_block(region, shape) for region in regions)


def _block(region: Region, shape: tuple[int, int]) -> Box:
    across = region.box.width if region.upright else region.box.height
    more = round(_MORE * across)
    along = (more, 0) if region.upright else (0, more)
    return region.box.grown(_RIM + round(_GROWTH * across), *shape, along=along)


def _apart(boxes: Iterable[Box]) -> list[Box]:
    """Boxes of which no two overlap: those that do become one."""
    apart: list[Box] = []
    for box in boxes:
        while touching := [other for other in apart if box.overlap(other)]:
            apart = [other for other in apart if other not in touching]
            box = reduce(Box.joined, touching, box)
        apart.append(box)
    return apart


def _shape(stored: Pixels) -> tuple[int, int]:
    return stored.shape[0], stored.shape[1]


def _unwanted(regions: Iterable[Region]) -> list[Region]:
    return [region for region in regions if region.kind is not Kind.MARKER]


def _find(working: Working, parts: Sequence[Box]) -> list[Region]:
    """The texts of a working image; `parts` of it the detector looks at, too."""
    lines = [line for line in find_lines(working.gray, LIKELY) if line.across <= _LARGE or line.likeness >= LIKELY_IF_LARGE]
    lines.sort(key=lambda line: line.likeness, reverse=True)
    if len(lines) > MOST_LINES:
        parts = [Box(0, 0, *working.gray.shape)]
    lines = [*lines[:MOST_LINES], *(line for part in parts for line in _detected(working.gray, part))]
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
    pieces = {line for line, kind in found if kind is not Kind.MARKER and any(_piece(line, marker) for marker in markers)}
    return [
        Region(_stored((line if kind is Kind.MARKER else _whole(working.gray, line)).box, working.scale), kind, line.upright)
        for line, kind in found
        if line not in pieces
    ]


def _detected(gray: Gray, part: Box) -> Iterator[Line]:
    for box in detect(gray[part.top : part.bottom, part.left : part.right]):
        moved = box.moved(part.top, part.left)
        yield Line(moved, moved.height > 1.5 * moved.width, CLEAR)


def _whole(gray: Gray, line: Line) -> Line:
    """A line of text, to both sides as far as the detector follows it, which sees it whole."""
    reach = _REACH * line.across
    rows, columns = gray.shape
    around = line.box.grown(line.across // 2, rows, columns, along=(reach, 0) if line.upright else (0, reach))
    part, factor = _legible(gray, line, around)
    boxes = [Box(*(round(side / factor) for side in box)).moved(around.top, around.left) for box in detect(part, trust=_TRUST)]
    whole = line.box
    while near := [box for box in boxes if box.overlap(whole.grown(line.across, rows, columns))]:
        boxes = [box for box in boxes if box not in near]
        whole = reduce(Box.joined, near, whole)
    return replace(line, box=whole)


def _legible(gray: Gray, line: Line, box: Box) -> tuple[Gray, float]:
    """What is in a box, made smaller where the letters of the line are large; and by which factor."""
    part = gray[box.top : box.bottom, box.left : box.right]
    factor = _SEEN_AS / line.across if line.across > _LARGE_LETTERS else 1.0
    if factor < 1:
        part = cv2.resize(part, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return part, factor


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
    part, _ = _legible(gray, line, line.box.grown(_MARGIN, *gray.shape))
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
