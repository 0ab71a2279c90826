"""Images of any shape into squares, keeping their aspect."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.imaging.samples import HIGHEST, Codes, Samples


@dataclass(frozen=True)
class Box:
    """A part of an image: its edges, in pixels from the upper left corner."""

    top: float
    left: float
    bottom: float
    right: float

    @property
    def rows(self) -> float:
        return self.bottom - self.top

    @property
    def columns(self) -> float:
        return self.right - self.left


def fitted(box: Box, size: int, aspect: float = 1.0) -> tuple[int, int]:
    """Rows and columns of a part of an image when its longer side fills `size`.

    Args:
        aspect: height of a pixel divided by its width.
    """
    tall = box.rows * aspect
    scale = size / max(tall, box.columns)
    height, width = (min(size, max(1, round(side * scale))) for side in (tall, box.columns))
    return height, width


def resampled(samples: Samples, box: Box, shape: tuple[int, int]) -> Codes:
    """The codes of a part of an image at another size.

    On an axis that shrinks each pixel is the mean over the area that it covers, on one that grows it is interpolated
    linearly; beyond the edge the image goes on as it is there.

    Args:
        box: in stored pixels.
        shape: rows and columns of the result.
    """
    edges = [(edge - samples.offset) / samples.step for edge in astuple(box)]
    top, left, bottom, right = edges
    if all(edge.is_integer() and edge >= 0 for edge in edges):
        part = samples.codes[int(top) : int(bottom), int(left) : int(right)]
        if shape[0] <= part.shape[0] and shape[1] <= part.shape[1]:
            return np.asarray(cv2.resize(part, shape[::-1], interpolation=cv2.INTER_AREA), np.uint16)
    rows = _along(samples.codes, shape[0], top, bottom)
    columns = _along(np.ascontiguousarray(rows.T), shape[1], left, right)
    return rounded(np.ascontiguousarray(columns.T))


def rounded(values: NDArray[np.floating]) -> Codes:
    """The nearest codes."""
    codes: Codes = np.clip(np.rint(values), 0, HIGHEST).astype(np.uint16)
    return codes


def resize(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Scale to (height, width): by area on an axis that shrinks, linearly on one that grows."""
    rows, columns = image.shape
    shrunk = (min(height, rows), min(width, columns))
    result: NDArray[np.float32] = np.ascontiguousarray(image, np.float32)
    if shrunk != (rows, columns):
        result = cv2.resize(result, shrunk[::-1], interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)
    if shrunk != (height, width):
        result = cv2.resize(result, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
    return result


def centred(content: NDArray[Any], size: int) -> NDArray[Any]:
    """Put an image in the middle of a square of zeros."""
    height, width = content.shape
    top, left = (size - height) // 2, (size - width) // 2
    square = np.zeros((size, size), content.dtype)
    square[top : top + height, left : left + width] = content
    return square


def _along(values: NDArray[Any], count: int, start: float, stop: float) -> NDArray[np.float32]:
    """`count` values from the stretch start…stop of the first axis, where value k covers k…k + 1."""
    length = (stop - start) / count
    lower = start + length * np.arange(count)
    if length < 1:  # grows: the two values whose centres are next to the middle
        middle = lower + 0.5 * length - 0.5
        first = np.floor(middle)
        weights = [first + 1 - middle, middle - first]
    else:
        first = np.floor(lower)
        taps = int(np.ceil((lower + length - first).max() - 1e-9))
        ends = [(np.maximum(lower, first + tap), np.minimum(lower + length, first + tap + 1)) for tap in range(taps)]
        weights = [np.clip(end - begin, 0, None) for begin, end in ends]
    places = first.astype(np.intp)
    total = np.zeros((count, values.shape[1]), np.float32)
    for tap, weight in enumerate(weights):
        share = (weight / sum(weights)).astype(np.float32)[:, None]
        total += values.take(places + tap, axis=0, mode="clip") * share
    return total
