"""Where lines of text may stand in a radiograph: bright or dark strokes, thinner than anatomy, side by side in a row.

A few milliseconds an image, made to miss nothing; `text_reading` decides which of the lines are text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

WORKING_SIDE = 1280
_LEVELS = 3
_STROKE = 7  # top-hat kernel: strokes up to 6 pixels wide at their level
_GAP = 11  # letters this near to each other belong to one line
_HEIGHT = (5, 24)  # of letters, at their level
_LONGEST = 400
_NOISE_WINDOW = 65
_CROWD_WINDOW = 21
_CROWD = 2  # grey levels of stroke per pixel
_FAINTEST = 8  # grey levels of 256
_ABOVE_NOISE = 3.0
_WIDE = 4  # times the range of most values

Array = NDArray[Any]
Gray = Array


class Box(NamedTuple):
    """Half-open, in pixels."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    def grown(self, by: int, rows: int, columns: int, along: tuple[int, int] = (0, 0)) -> Box:
        """Larger by `by` on every side and by `along` at top and bottom, left and right, in an image of `rows` × `columns`."""
        high, wide = by + along[0], by + along[1]
        top, left = max(self.top - high, 0), max(self.left - wide, 0)
        return Box(top, left, min(self.bottom + high, rows), min(self.right + wide, columns))

    def moved(self, down: int, right: int) -> Box:
        return Box(self.top + down, self.left + right, self.bottom + down, self.right + right)

    @property
    def area(self) -> int:
        return self.height * self.width

    def overlap(self, other: Box) -> int:
        """Pixels that both hold."""
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        wide = min(self.right, other.right) - max(self.left, other.left)
        return max(high, 0) * max(wide, 0)

    def joined(self, other: Box) -> Box:
        return Box(
            min(self.top, other.top), min(self.left, other.left), max(self.bottom, other.bottom), max(self.right, other.right)
        )


@dataclass(frozen=True)
class Line:
    """A row of strokes that may be text.

    Attributes:
        box: in pixels of the working image.
        upright: the row runs from top to bottom.
        likeness: logit of being text.
        letters: connected strokes in the row.
    """

    box: Box
    upright: bool
    likeness: float
    letters: int = 0

    @property
    def across(self) -> int:
        """Pixels from top to bottom of a letter."""
        return self.box.width if self.upright else self.box.height

    @property
    def along(self) -> int:
        """Pixels from the first letter to the last."""
        return self.box.height if self.upright else self.box.width


@dataclass(frozen=True)
class Working:
    """What text is looked for in.

    Attributes:
        gray: the image (rows, columns), uint8, its long side at most `WORKING_SIDE`.
        scale: stored pixels per working pixel.
    """

    gray: Gray
    scale: float


def working_images(stored: Array) -> Iterator[Working]:
    """The image in 256 grey levels; a second time with its middle spread, where a few values take most of the range.

    Args:
        stored: pixel values (rows, columns) of 8 or 16 bits; polarity does not matter.
    """
    scale = max(1.0, max(stored.shape) / WORKING_SIDE)
    unsigned = stored.view(f"u{stored.itemsize}")
    small: Array = unsigned if stored.dtype.kind == "u" else unsigned ^ unsigned.dtype.type(1 << (8 * stored.itemsize - 1))
    if scale > 1:
        size = (max(1, round(stored.shape[1] / scale)), max(1, round(stored.shape[0] / scale)))
        small = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
    sample = small[::3, ::3]
    low, high = np.percentile(sample, (0.1, 99.9))
    least, most = float(small.min()), float(small.max())
    spare = (high - low) / 4  # text may be a little brighter than anything else, and too small to count
    yield Working(_spread(small, max(low - spare, least), min(high + spare, most)), scale)
    inner = sample[(sample > least) & (sample < most)]  # without padding
    if inner.size:
        dark, bright = np.percentile(inner, (2, 98))
        if high - low > _WIDE * (bright - dark) > 0:
            yield Working(_spread(small, dark, bright), scale)


def _spread(values: Array, low: float, high: float) -> Gray:
    factor = 255 / max(high - low, 1)
    gray: Gray = cv2.convertScaleAbs(np.clip(values, low, high), alpha=factor, beta=-low * factor)
    return gray


def find_lines(gray: Gray, likely: float) -> list[Line]:
    """Rows of strokes whose likeness to text is at least `likely`, at three sizes, both polarities and directions."""
    found: list[Line] = []
    level, scale = gray, 1
    for _ in range(_LEVELS):
        if min(level.shape) < 2 * _HEIGHT[0]:
            break
        for operation in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
            for line in _lines(level, operation, likely):
                found.append(replace(line, box=Box(*(scale * side for side in line.box))))
        level, scale = cv2.resize(level, (level.shape[1] // 2, level.shape[0] // 2), interpolation=cv2.INTER_AREA), 2 * scale
    return found


@dataclass(frozen=True)
class _Parts:
    """Connected strokes; arrays are by part, in pixels and grey levels.

    Attributes:
        box: (parts, 4): top, left, bottom, right.
        part: of each stroke pixel.
        where: stroke pixels, as positions in the flattened image.
        first: one of them for each part.
        density: summed-area table of the strokes.
    """

    shape: tuple[int, int]
    box: Array
    area: Array
    contrast: Array
    part: Array
    where: Array
    first: Array
    density: Array


def _lines(gray: Gray, operation: int, likely: float) -> Iterator[Line]:
    parts = _parts(cv2.morphologyEx(gray, operation, np.ones((_STROKE, _STROKE), np.uint8)))
    if parts is not None:
        for upright in (False, True):
            yield from _rows_of(parts, upright, likely)


def _parts(strokes: Gray) -> _Parts | None:
    """The strokes that rise above the noise around them and have others near."""
    around = cv2.blur(strokes, (_NOISE_WINDOW, _NOISE_WINDOW))
    threshold = np.maximum(cv2.convertScaleAbs(around, alpha=_ABOVE_NOISE), np.uint8(_FAINTEST))
    mask = (strokes > threshold).view(np.uint8)
    crowd = cv2.blur(strokes * mask, (_CROWD_WINDOW, _CROWD_WINDOW))
    mask &= crowd >= _CROWD
    where = np.flatnonzero(mask.view(np.bool_))
    if not where.size:
        return None
    _, labels = cv2.connectedComponents(mask, connectivity=8, ltype=cv2.CV_32S)
    part = labels.ravel()[where] - 1
    order = np.argsort(part, kind="stable")
    starts = np.flatnonzero(np.diff(part[order], prepend=-1))
    row, column = np.divmod(where[order], mask.shape[1])
    least, most = np.minimum.reduceat, np.maximum.reduceat
    box = np.stack([least(row, starts), least(column, starts), most(row, starts) + 1, most(column, starts) + 1])
    area = np.diff(starts, append=where.size)
    contrast = np.bincount(part, strokes.ravel()[where]) / area
    return _Parts(strokes.shape, box, area, contrast, part, where, where[order][starts], cv2.integral(mask))


def _rows_of(parts: _Parts, upright: bool, likely: float) -> Iterator[Line]:
    tall, long = _sides(parts.box, upright)
    letters = (tall >= _HEIGHT[0]) & (tall <= _HEIGHT[1]) & (long <= _LONGEST) & (parts.area >= _HEIGHT[0])
    chosen = np.flatnonzero(letters)
    if not chosen.size:
        return
    row = _joined(parts, letters, upright)[chosen]
    number = np.bincount(row)
    box = np.empty((4, number.size), np.int64)
    box[:2], box[2:] = np.iinfo(np.int64).max, 0
    for side, extreme in enumerate((np.minimum, np.minimum, np.maximum, np.maximum)):
        extreme.at(box[side], row, parts.box[side][chosen])
    across, along = _sides(box, upright)
    formed = ((number >= 3) & (along >= 1.6 * across)) | ((number >= 1) & (along >= 4 * across))
    which = np.flatnonzero(formed & (across <= 1.3 * _HEIGHT[1]))
    ink = np.bincount(row, parts.area[chosen])[which]
    contrast = (np.bincount(row, parts.contrast[chosen]) / np.maximum(number, 1))[which]
    likeness = _likeness(number[which], contrast, ink, box[:, which], across[which], parts.density)
    for position in np.flatnonzero(likeness >= likely):
        row_box = Box(*map(int, box[:, which[position]]))
        yield Line(row_box, upright, float(likeness[position]), int(number[which[position]]))


def _sides(box: Array, upright: bool) -> tuple[Array, Array]:
    """Across and along the direction of writing."""
    high, wide = box[2] - box[0], box[3] - box[1]
    return (wide, high) if upright else (high, wide)


def _joined(parts: _Parts, letters: Array, upright: bool) -> Array:
    """The row of each part: those with gaps of at most `_GAP` between them."""
    mask = np.zeros(parts.shape, np.uint8)
    mask.ravel()[parts.where[letters[parts.part]]] = 255
    kernel = np.ones((_GAP, 1) if upright else (1, _GAP), np.uint8)
    _, rows = cv2.connectedComponents(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel), connectivity=8, ltype=cv2.CV_32S)
    row: Array = rows.ravel()[parts.first]
    return row


COEFFICIENTS = (-28.4, 5.7, 3.4, 12.2, -1.6)
"""Intercept; log of the letters, log of their contrast, ink per pixel, log of the clutter. Fitted by logistic regression on
820 invented texts, drawn into real radiographs as `benchmarks/burned_in.py` does."""


def _likeness(number: Array, contrast: Array, ink: Array, box: Array, across: Array, density: Array) -> Array:
    """Logit of a row being text: many letters of high contrast, dense within their box, and little of the kind around it."""
    features = _features(number, contrast, ink, box, across, density)
    likeness: Array = features @ np.array(COEFFICIENTS[1:]) + COEFFICIENTS[0]
    return likeness


def _features(number: Array, contrast: Array, ink: Array, box: Array, across: Array, density: Array) -> Array:
    rows, columns = density.shape[0] - 1, density.shape[1] - 1
    top, left, bottom, right = box
    size = (bottom - top) * (right - left)
    margin = np.maximum(3, (0.6 * across).astype(int))
    start, end = (np.maximum(top - margin, 0), np.maximum(left - margin, 0)), (bottom + margin, right + margin)
    outer = (*start, np.minimum(end[0], rows), np.minimum(end[1], columns))
    inside = _count(density, top, left, bottom, right)
    ring = _count(density, *outer) - inside
    ring_size = (outer[2] - outer[0]) * (outer[3] - outer[1]) - size
    clutter = (ring / np.maximum(ring_size, 1)) / np.maximum(inside / size, 1e-3)
    return np.stack([np.log(number + 0.5), np.log(contrast), ink / size, np.log(clutter + 0.05)], axis=1)


def _count(density: Array, top: Any, left: Any, bottom: Any, right: Any) -> Array:
    """Stroke pixels in boxes, from the summed-area table."""
    total: Array = density[bottom, right] - density[top, right] - density[bottom, left] + density[top, left]
    return total
