"""The leakage certificate: an independent look at a split, whoever made it.

It trusts nothing that the split says about an image but its part: patient, study and pixels are taken from the index, the
labels from the label table.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipelines.errors import LeakageError
from pipelines.quality.tables import usable
from pipelines.records import PARTS, SPLIT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.records import Task

KEYS = {"patient": "patient", "study": "study", "pixel_hash": "identical image"}
"""The columns of which no value may span two parts, with what to call one in a message."""

NEAR = 2
"""Bits by which the perceptual hashes of near-duplicates differ at most."""

NAMED = 3
"""Pseudonyms named in an error message."""

EXAMPLES = 20
"""Pairs of near-duplicates listed in the certificate."""

CHUNK = 128
"""Rows of the distance matrix held at a time."""


@dataclass(frozen=True)
class Certificate:
    """What was checked about a split that leaks nothing.

    Attributes:
        clean: always True: a split that leaks gets no certificate.
        split_sha256: `split_sha256` of the split.
        checks: what was counted: values of each key that span parts and classes missing from a part (all 0), images of the
            split, usable images that it leaves out, and pairs of near-duplicates across parts (a warning).
        near_duplicates: the first pairs of near-duplicates across parts, by the images' pseudonyms.
        parts: for each part its images, patients and studies, and for each output its images with and without it.
    """

    clean: bool
    split_sha256: str
    checks: dict[str, int]
    near_duplicates: tuple[tuple[str, str], ...]
    parts: dict[str, dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def split_sha256(split: pd.DataFrame) -> str:
    """The SHA-256 of what a split says, whatever the order of its rows or the version of its file format."""
    table = split[[*SPLIT]].sort_values("image")
    lines = ("\t".join("" if pd.isna(value) else str(value) for value in row) + "\n" for row in table.itertuples(index=False))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def certify(split: pd.DataFrame, index: pd.DataFrame, labels: pd.DataFrame, task: Task) -> Certificate:
    """Certify that a split leaks nothing and that each part has each class.

    Args:
        split: the table of `records.SPLIT`.
        index: the index of images, `records.INDEX`.
        labels: the table of labels.
        task: what is learnt.

    Raises:
        LeakageError: an image is listed twice, is not usable, or has another patient, study or pixels in the index; a patient,
            a study or an identical image spans two parts; a part is unknown or empty, or lacks a class.
    """
    images, matrix = usable(index, labels, task)
    _require_table(split)
    _require_known(split, images)
    place = pd.Index(images["image"]).get_indexer(pd.Index(split["image"]))
    seen, matrix = images.iloc[place].reset_index(drop=True), matrix[place]
    part = split["part"].to_numpy(dtype=object)
    _require_agreement(split, seen)
    for column, words in KEYS.items():
        _require_one_part(seen, part, column, words)
    classes = {name: _classes(matrix[part == name], task) for name in PARTS}
    _require_classes(classes, task)
    near, pairs = near_duplicates(seen, part)
    return Certificate(
        clean=True,
        split_sha256=split_sha256(split),
        checks={
            "patients_across_parts": 0,
            "studies_across_parts": 0,
            "identical_images_across_parts": 0,
            "classes_missing": 0,
            "images": len(split),
            "usable_images_left_out": len(images) - len(split),
            "near_duplicate_pairs_across_parts": near,
        },
        near_duplicates=pairs,
        parts={name: _part(seen[part == name]) | {"classes": classes[name]} for name in PARTS},
    )


def near_duplicates(images: pd.DataFrame, part: NDArray[np.object_]) -> tuple[int, tuple[tuple[str, str], ...]]:
    """Count the pairs of images in different parts whose perceptual hashes differ in at most `NEAR` bits.

    Every pair is compared, a chunk of rows at a time; images without a hash are passed over.

    Returns:
        The number of pairs, and the first `EXAMPLES` of them by the images' pseudonyms.
    """
    known = images["perceptual_hash"].notna().to_numpy()
    names = images["image"].to_numpy(dtype=object)[known]
    numbers = np.unique(part[known].astype(str), return_inverse=True)[1]
    hashes = np.array([int(text, 16) for text in images["perceptual_hash"][known]], dtype=np.uint64)
    total, pairs = 0, list[tuple[str, str]]()
    for start in range(0, len(hashes), CHUNK):
        rows = slice(start, start + CHUNK)
        near = np.bitwise_count(hashes[rows, None] ^ hashes[None, start:]) <= NEAR
        near = np.triu(near & (numbers[rows, None] != numbers[None, start:]))
        if found := int(near.sum()):
            total += found
            places = np.argwhere(near)[: EXAMPLES - len(pairs)] + start
            pairs += [(str(names[row]), str(names[column])) for row, column in places]
    return total, tuple(pairs)


def _require_table(split: pd.DataFrame) -> None:
    if missing := [name for name in SPLIT if name not in split]:
        raise LeakageError(f"split: expected the columns {', '.join(SPLIT)}, missing: {', '.join(missing)}")
    if twice := split["image"][split["image"].duplicated()].unique().tolist():
        raise LeakageError(f"split: {len(twice)} images are listed more than once: {_named(twice)}")
    if unknown := sorted({str(name) for name in split["part"]} - set(PARTS)):
        raise LeakageError(f"split: expected the parts {', '.join(PARTS)}, got {', '.join(unknown)}")
    if empty := [name for name in PARTS if not (split["part"] == name).any()]:
        raise LeakageError(f"split: no image in {', '.join(empty)}")


def _require_known(split: pd.DataFrame, images: pd.DataFrame) -> None:
    strange = split["image"][~split["image"].isin(images["image"])].tolist()
    if strange:
        raise LeakageError(f"split: {len(strange)} images are not among the prepared and labelled ones: {_named(strange)}")


def _require_agreement(split: pd.DataFrame, seen: pd.DataFrame) -> None:
    """What the split says about an image is what the index says."""
    for column, words in KEYS.items():
        differs = seen[column].to_numpy(dtype=object) != split[column].to_numpy(dtype=object)
        if differs.any():
            names = split["image"][differs].tolist()
            raise LeakageError(f"split: {len(names)} images have another {words} than in the index: {_named(names)}")


def _require_one_part(seen: pd.DataFrame, part: NDArray[np.object_], column: str, words: str) -> None:
    found = pd.Series(part, index=seen.index).groupby(seen[column])
    values = [str(value) for value, parts in found.nunique().items() if parts > 1]
    if not values:
        return
    named = values[:NAMED]
    if column == "pixel_hash":
        named = [" = ".join(seen["image"][seen[column] == value][:NAMED]) for value in named]
    where = " and ".join(sorted(set(found.get_group(values[0]))))
    raise LeakageError(
        f"split: {len(values)} × {words} in more than one part (the first in {where}): {_named(named, len(values))}"
    )


def _classes(matrix: NDArray[np.float32], task: Task) -> dict[str, dict[str, int]]:
    return {
        output: {"positive": int((column == 1).sum()), "negative": int((column == 0).sum())}
        for output, column in zip(task.outputs, matrix.T, strict=True)
    }


def _require_classes(classes: dict[str, dict[str, dict[str, int]]], task: Task) -> None:
    sides = ("positive",) if task.kind == "multiclass" else ("positive", "negative")
    missing = [
        f"{part} has no {side} image of {output}"
        for part, outputs in classes.items()
        for output, counts in outputs.items()
        for side in sides
        if not counts[side]
    ]
    if missing:
        raise LeakageError(f"split: a class is missing from a part: {'; '.join(missing)}")


def _part(images: pd.DataFrame) -> dict[str, Any]:
    return {"images": len(images), "patients": images["patient"].nunique(), "studies": images["study"].nunique()}


def _named(names: list[str], total: int | None = None) -> str:
    more = (total or len(names)) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
