"""Fill boxes of an image with what surrounds them, so that nothing of what was there is left."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from pipelines.dicom.text_lines import Box

_STRIP = 4  # stored pixels of the surroundings that fill a box

Pixels = NDArray[Any]


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
