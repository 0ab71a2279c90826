"""What a model could go by instead of the findings: the table of shortcuts, each with what it sees and how that becomes numbers.

A shortcut is *blind* if findings are out of its sight: it sees the header, the picture's shape, or only the rim of the
picture. Whatever a blind one knows of the label came with the way in which images were acquired and chosen, so knowing much
is an alarm. The others are *coarse*: they see the whole picture, too blurred or too jumbled to recognise a finding, which may
nevertheless change them (an opacity brightens a lung). They cannot tell confounding from disease, so they raise no alarm; but
a model that is to be worth its cost has to beat them as well. The rim is blind as far as images are not cut so tightly that
findings reach it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.imaging.resample import Box, fitted, resize
from pipelines.imaging.store import ArrayStore

Array = NDArray[np.float64]
Pictures = NDArray[np.uint8]

SIDE = 64
"""Rows and columns to which what a picture shows is averaged, whatever its shape, before a shortcut sees it."""

RIM = SIDE // 16
CORNER = SIDE // 8
CELLS = 8
"""Cells along a side of the rim, and along a side of the thumbnail."""

LEVELS = 32
RARE = 5
"""Images that share a value of a field; below, the value counts as rare, so that it does not name a patient."""

_CHUNK = 256


@dataclass(frozen=True)
class Shortcut:
    """One way of knowing the label without reading the image.

    Attributes:
        title: for people.
        sees: what it looks at, in words.
        blind: whether findings are out of its sight.
        features: from index rows and their pictures (images, `SIDE`, `SIDE`) to numbers (images, features), without NaN.
    """

    title: str
    sees: str
    blind: bool
    features: Callable[[pd.DataFrame, Pictures], Array]


def pictures(store: ArrayStore, rows: pd.DataFrame) -> Pictures:
    """What each picture shows, without the padding that makes it a square, averaged to `SIDE` × `SIDE` grey levels 0…255."""
    small = np.empty((len(rows), SIDE, SIDE), np.uint8)
    shapes = rows[["rows", "columns", "pixel_aspect", "crop"]].itertuples(index=False)
    places = [_content(shape, store.size) for shape in shapes]
    shards, within = rows["shard"].to_numpy(np.int64), rows["row"].to_numpy(np.int64)
    scale = 255 / np.iinfo(store.dtype).max
    for start in range(0, len(rows), _CHUNK):
        taken = store.take(shards[start : start + _CHUNK], within[start : start + _CHUNK])
        for number, image in enumerate(taken, start):
            top, left, bottom, right = places[number]
            small[number] = np.rint(resize(image[top:bottom, left:right].astype(np.float32), SIDE, SIDE) * scale)
    return small


def _content(row: Any, size: int) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of what `imaging.resample.centred` put into the square; all of it if the shape is unknown."""
    if pd.isna(row.rows) or pd.isna(row.columns):
        return 0, 0, size, size
    whole = Box(0, 0, row.rows, row.columns)
    box = Box(*map(float, row.crop.split())) if isinstance(row.crop, str) else whole
    height, width = fitted(box, size, 1.0 if pd.isna(row.pixel_aspect) else row.pixel_aspect)
    top, left = (size - height) // 2, (size - width) // 2
    return top, left, top + height, left + width


def _rim(_: pd.DataFrame, images: Pictures) -> Array:
    """Mean and deviation of the cells of the rim, and of the corners, which also give their brightest."""
    return np.concatenate([_rim_of_some(images[start : start + _CHUNK]) for start in range(0, max(len(images), 1), _CHUNK)])


def _rim_of_some(images: Pictures) -> Array:
    grey = images / 255.0
    turned = [np.rot90(grey, quarter, axes=(1, 2)) for quarter in range(4)]
    sides = [side[:, :RIM].reshape(len(grey), RIM, CELLS, SIDE // CELLS) for side in turned]
    corners = [side[:, :CORNER, :CORNER].reshape(len(grey), -1) for side in turned]
    return np.concatenate(
        [
            *(measure(side, axis=(1, 3)) for side in sides for measure in (np.mean, np.std)),
            *(measure(corner, axis=1)[:, None] for corner in corners for measure in (np.mean, np.std, np.max)),
        ],
        axis=1,
    )


def _shape(rows: pd.DataFrame, _: Pictures) -> Array:
    """Size, aspect and pixel spacing, as logarithms, and how much a collimator's border took."""
    height, width, spacing, aspect = (_logarithm(rows[name]) for name in ("rows", "columns", "spacing_mm", "pixel_aspect"))
    kept = np.array([_kept(crop, area) for crop, area in zip(rows["crop"], rows["rows"] * rows["columns"], strict=True)])
    sides = (height, width, height + aspect - width, height + width)
    return np.stack([*sides, *(side**2 for side in sides), spacing, rows["spacing_mm"].isna().to_numpy(), kept], axis=1)


def _logarithm(column: pd.Series[Any]) -> Array:
    """The natural logarithm, the median of those that are known where it is not; 0 where none is."""
    values = np.log(pd.to_numeric(column).to_numpy(np.float64, na_value=np.nan))
    known = values[np.isfinite(values)]
    return np.where(np.isfinite(values), values, np.median(known) if len(known) else 0.0)


def _kept(crop: Any, area: float) -> float:
    if not isinstance(crop, str):
        return 1.0
    top, left, bottom, right = map(float, crop.split())
    return (bottom - top) * (right - left) / area


def _fields(*names: str) -> Callable[[pd.DataFrame, Pictures], Array]:
    """One column for each value of each field that `RARE` images or more share, one for the rarer, one for what is missing."""

    def features(rows: pd.DataFrame, _: Pictures) -> Array:
        columns = [np.ones(len(rows))]
        for name in names:
            values = rows[name].astype("str").where(rows[name].notna(), "")
            counts = values.value_counts()
            common = values.where(values.map(counts) >= RARE, "rare")
            columns += [(common == value).to_numpy(np.float64) for value in sorted(common.unique())]
        return np.stack(columns, axis=1)

    return features


def _person(rows: pd.DataFrame, images: Pictures) -> Array:
    ages = pd.to_numeric(rows["age_years"]).to_numpy(np.float64, na_value=np.nan)
    unknown = np.isnan(ages)
    years = np.where(unknown, np.median(ages[~unknown]) if not unknown.all() else 0.0, ages)
    return np.concatenate([_fields("sex")(rows, images), np.stack([years, years**2, np.sqrt(years), unknown], axis=1)], axis=1)


def _histogram(_: pd.DataFrame, images: Pictures) -> Array:
    counts = [np.bincount(image.reshape(-1) // (256 // LEVELS), minlength=LEVELS) for image in images]
    return np.sqrt(np.array(counts).reshape(-1, LEVELS) / SIDE**2)


def _thumbnail(_: pd.DataFrame, images: Pictures) -> Array:
    cell = SIDE // CELLS
    means: Array = images.reshape(-1, CELLS, cell, CELLS, cell).mean(axis=(2, 4)).reshape(-1, CELLS**2) / 255.0
    return means


def _together(*names: str) -> Callable[[pd.DataFrame, Pictures], Array]:
    def features(rows: pd.DataFrame, images: Pictures) -> Array:
        return np.concatenate([SHORTCUTS[name].features(rows, images) for name in names], axis=1)

    return features


_BLIND = ("border", "shape", "view", "equipment", "person")

SHORTCUTS: dict[str, Shortcut] = {
    "border": Shortcut("Border", "the outermost 1/16 of the picture on each side, and its corners (1/8)", True, _rim),
    "shape": Shortcut("Shape", "rows, columns, aspect, pixel spacing and collimation", True, _shape),
    "view": Shortcut("View", "view, body part and laterality", True, _fields("view", "body_part", "laterality")),
    "equipment": Shortcut(
        "Equipment",
        "site, vendor, modality, and how the file is encoded",
        True,
        _fields("site", "manufacturer", "modality", "photometric", "transfer_syntax", "bits_stored", "window"),
    ),
    "person": Shortcut("Person", "age and sex", True, _person),
    "surroundings": Shortcut("Surroundings", "all that cannot see findings, together", True, _together(*_BLIND)),
    "histogram": Shortcut("Histogram", f"how many pixels have which of {LEVELS} grey levels, wherever", False, _histogram),
    "thumbnail": Shortcut("Thumbnail", f"the picture blurred to {CELLS} × {CELLS} cells", False, _thumbnail),
    "everything": Shortcut("Everything", "all shortcuts together", False, _together(*_BLIND, "histogram", "thumbnail")),
}
