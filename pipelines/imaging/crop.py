"""The field that a rectangular collimator left open, from the picture and from the header."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines.imaging import header
from pipelines.imaging.resample import Box

Image = NDArray[np.float32]

PREVIEW = 256
"""Longer side of the image in which borders are looked for."""

_ALIKE = 0.9  # of a line's pixels, the rest may be a marker
_FLAT = 0.04  # grey levels 0…1 within which pixels of a border differ
_UNEXPOSED = 0.85  # a border that got no X-rays is shown near white
_CONSTANT = 1e-3  # a shutter paints its border in one grey level; air, which is not a border, is noisy
_DEEPEST = 0.45  # of the side, from each edge
_LEAST = 0.25  # of the area that is left
_QUIET = 0.5  # contrast outside the header's edge, as a part of that inside
_EDGES = ("Upper", "Left", "Lower", "Right")


def open_field(image: Image, dataset: Dataset, rows: int, columns: int) -> Box:
    """What the collimator left open, in stored pixels; the whole image where there is no border or too little would be left.

    A border is a run of lines, from an edge inwards, that are flat and either white, as unexposed detector is shown, or of
    exactly one grey level, as a shutter paints them. The header's Collimator edges (PS3.3 C.8.7.3.1.1) are heeded
    where the picture outside them is quiet: they are often those of another image.

    Args:
        image: the whole image as it is shown, 0…1, of any size.
        rows: of the stored image.
        columns: of the stored image.
    """
    found = _borders(image)
    with header.quiet():
        declared = _declared(dataset, rows, columns)
    height, width = image.shape
    top, left, bottom, right = found
    if declared is not None:
        edges = [round(edge * side) for edge, side in zip(declared, (height, width, height, width), strict=True)]
        inside = image[edges[0] : edges[2], edges[1] : edges[3]]
        top = max(top, edges[0]) if _quiet(image[: edges[0]], inside) else top
        left = max(left, edges[1]) if _quiet(image[:, : edges[1]], inside) else left
        bottom = min(bottom, edges[2]) if _quiet(image[edges[2] :], inside) else bottom
        right = min(right, edges[3]) if _quiet(image[:, edges[3] :], inside) else right
    if bottom <= top or right <= left or (bottom - top) * (right - left) < _LEAST * height * width:
        return Box(0, 0, rows, columns)
    down, across = rows / height, columns / width
    return Box(top * down, left * across, bottom * down, right * across)


def _borders(image: Image) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of what is within the borders, in pixels of `image`."""
    height, width = image.shape
    top, bottom = _depth(image), height - _depth(image[::-1])
    between = image[top:bottom].T
    return top, _depth(between), bottom, width - _depth(between[::-1])


def _depth(image: Image) -> int:
    """How many lines from the top belong to a border; none where it does not end."""
    deepest = int(_DEEPEST * len(image))
    for depth, line in enumerate(image[: deepest + 1]):
        level = np.median(line)
        away = np.quantile(np.abs(line - level), _ALIKE)
        if not (away <= _CONSTANT or (away <= _FLAT and level >= _UNEXPOSED)):
            return depth
    return 0


def _declared(dataset: Dataset, rows: int, columns: int) -> tuple[float, float, float, float] | None:
    """The header's edges as parts of the image's sides, or None where it has none that can be of this image."""
    if "RECTANGULAR" not in header.texts(dataset, "CollimatorShape"):
        return None
    axes = ("Horizontal", "Vertical", "Horizontal", "Vertical")
    edges = [header.number(dataset, f"Collimator{name}{axis}Edge") for name, axis in zip(_EDGES, axes, strict=True)]
    top, left, bottom, right = edges
    if top is None or left is None or bottom is None or right is None:
        return None
    # Edges count pixels from 1, and may lie outside the image.
    found = (max(top - 1, 0) / rows, max(left - 1, 0) / columns, min(bottom / rows, 1.0), min(right / columns, 1.0))
    return found if found[0] < found[2] and found[1] < found[3] else None


def _quiet(strip: Image, inside: Image) -> bool:
    return strip.size > 0 and inside.size > 0 and float(strip.std()) < _QUIET * float(inside.std())
