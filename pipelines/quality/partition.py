"""Patients into train, validation and test: grouped, stratified, seeded, and steady when patients are added.

A group is what must stay together: the images that are connected through a patient, a study or identical pixels, mostly the
images of one patient. Groups of one stratum (the same labels, the same site …) are put in an order that only the seed and
their own pseudonyms decide; the first ones are the test part, the next ones the validation part, the others the training
part. How many a stratum gives is apportioned by largest remainders, so that the parts have the sizes asked for.

What holds when data are added: the order never changes, so a group changes its part only where a boundary of its stratum
moves. One more patient moves the boundaries of a few strata, each by one group (in 150 trials with 100 patients, never more
than six of them moved). Where a part would lack a class, a group is moved to it; then, or where a new image connects two groups
or changes the labels of one, more can move.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipelines.errors import ConfigurationError, LeakageError
from pipelines.quality.tables import signatures
from pipelines.records import PARTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.config import SplitSection
    from pipelines.records import Task

STRATA = ("site", "modality", "body_part", "view", "laterality", "manufacturer", "sex", "photometric", "transfer_syntax")
"""Columns of the index that can be balanced: those with few values."""

TRAIN, VALIDATION, TEST = range(3)


def partition(images: pd.DataFrame, matrix: NDArray[np.float32], task: Task, section: SplitSection) -> NDArray[np.object_]:
    """Name the part of every image.

    Args:
        images: index rows of the images to learn from.
        matrix: their labels (images, outputs), 0, 1 or NaN.
        task: what is learnt.
        section: seed, fractions and columns to balance.

    Returns:
        Array (images,) of part names.

    Raises:
        ConfigurationError: a column of `split.stratify_by` cannot be balanced.
        LeakageError: there are too few patients to give every part every class.
    """
    _require_strata(section.stratify_by)
    group = groups(images)
    names, present = presence(matrix, task)
    present = _by_group(present, group)
    _require_enough(names, present)
    order = _order(images["patient"], group, section.seed)
    parts = _assigned(_strata(images, matrix, group, section.stratify_by), order, section)
    parts = _complete(parts, present, order, names)
    return np.array(PARTS, dtype=object)[parts[group]]


def groups(images: pd.DataFrame) -> NDArray[np.int64]:
    """Number the groups that a patient, a study or identical pixels connect; array (images,) of 0, 1, …"""
    rows, nodes, size = [], [], len(images)
    for column in ("patient", "study", "pixel_hash"):
        codes, values = pd.factorize(images[column])
        known = codes >= 0
        rows.append(np.flatnonzero(known))
        nodes.append(codes[known] + size)
        size += len(values)
    row, node = np.concatenate(rows), np.concatenate(nodes)
    graph = coo_array((np.ones(len(row), dtype=np.int8), (row, node)), shape=(size, size))
    component = connected_components(graph, directed=False)[1][: len(images)]
    numbers: NDArray[np.int64] = np.unique(component, return_inverse=True)[1].astype(np.int64)
    return numbers


def presence(matrix: NDArray[np.float32], task: Task) -> tuple[list[str], NDArray[np.bool_]]:
    """The classes that every part needs, and which images have them.

    Returns:
        The names, and an array (images, classes): with and without each output, or each class of a multiclass target.
    """
    if task.kind == "multiclass":
        return [f"{task.targets[0]} {name}" for name in task.classes], matrix == 1
    names = [f"{side} {output}" for output in task.outputs for side in ("with", "without")]
    return names, np.stack([matrix == 1, matrix == 0], axis=2).reshape(len(matrix), len(names))


def apportion(quotas: Sequence[float], total: int, caps: Sequence[int]) -> NDArray[np.int64]:
    """Whole numbers near the quotas that add up to `total` (or to all that the caps allow), by largest remainders.

    Among equal remainders the earlier entry is served first.
    """
    wanted, limits = np.asarray(quotas, dtype=float), np.asarray(caps)
    given: NDArray[np.int64] = np.minimum(np.floor(wanted + 1e-9).astype(np.int64), limits)
    while given.sum() < total and (given < limits).any():
        remainders = np.where(given < limits, wanted - given, -np.inf)
        given[np.argmax(remainders)] += 1
    return given


def _require_strata(columns: Sequence[str]) -> None:
    if unknown := [name for name in columns if name not in STRATA]:
        raise ConfigurationError(f"params.yaml split.stratify_by: expected any of {', '.join(STRATA)}, got {', '.join(unknown)}")


def _by_group(present: NDArray[np.bool_], group: NDArray[np.int64]) -> NDArray[np.bool_]:
    together = np.zeros((group.max(initial=-1) + 1, present.shape[1]), dtype=bool)
    np.logical_or.at(together, group, present)
    return together


def _require_enough(names: Sequence[str], present: NDArray[np.bool_]) -> None:
    """Every class needs a group for each part."""
    lacking = [
        f"{name}: {have} patients, {len(PARTS) - have} missing"
        for name, have in zip(names, present.sum(axis=0).tolist(), strict=True)
        if have < len(PARTS)
    ]
    if lacking:
        raise LeakageError(
            f"split: each of {', '.join(PARTS)} needs a patient of each class, so {len(PARTS)} of each; {'; '.join(lacking)} "
            "(patients who share a study or an identical image count as one); ingest more patients or drop the target"
        )


def _order(patients: pd.Series, group: NDArray[np.int64], seed: int) -> list[bytes]:
    """A key for each group that decides its place: a hash of the seed and of its first patient's pseudonym."""
    first = patients.groupby(group).min()
    return [hashlib.sha256(f"{seed}\0{patient}".encode()).digest() for patient in first]


def _strata(
    images: pd.DataFrame, matrix: NDArray[np.float32], group: NDArray[np.int64], columns: Sequence[str]
) -> list[tuple[str, ...]]:
    """For each group its labels (1 where any of its images has the finding) and its values of `columns`."""
    frame = pd.DataFrame(matrix).groupby(group).max().to_numpy(dtype=np.float32)
    values = [
        images[name].fillna("").astype(str).groupby(group).agg(lambda column: "|".join(sorted(set(column)))) for name in columns
    ]
    return list(zip(signatures(frame), *values, strict=True))


def _assigned(strata: Sequence[tuple[str, ...]], order: Sequence[bytes], section: SplitSection) -> NDArray[np.int64]:
    """The part number of each group, from the quotas of its stratum."""
    members: dict[tuple[str, ...], list[int]] = {}
    for number in sorted(range(len(order)), key=order.__getitem__):
        members.setdefault(strata[number], []).append(number)
    blocks = [members[stratum] for stratum in sorted(members, key=lambda name: hashlib.sha256(repr(name).encode()).digest())]
    sizes = [len(block) for block in blocks]
    test = _share(sizes, sizes, section.test)
    validation = _share(sizes, [size - given for size, given in zip(sizes, test, strict=True)], section.validation)
    parts = np.full(len(order), TRAIN)
    for block, tested, validated in zip(blocks, test, validation, strict=True):
        parts[block[:tested]] = TEST
        parts[block[tested : tested + validated]] = VALIDATION
    return parts


def _share(sizes: Sequence[int], caps: Sequence[int], fraction: float) -> NDArray[np.int64]:
    quotas = [size * fraction for size in sizes]
    return apportion(quotas, max(1, round(sum(quotas))), caps)


def _complete(
    parts: NDArray[np.int64], present: NDArray[np.bool_], order: Sequence[bytes], names: Sequence[str]
) -> NDArray[np.int64]:
    """Move single groups, the fewest that it finds, until every part has every class.

    A group moves only if the part that it leaves keeps every class, so each move fills a gap and opens none.
    """
    parts = parts.copy()
    while gaps := _gaps(parts, present):
        for part, name in gaps:
            if (donor := _donor(parts, present, order, name)) is not None:
                parts[donor] = part
                break
        else:
            lacking = "; ".join(f"{PARTS[part]} lacks {names[name]}" for part, name in gaps)
            raise LeakageError(
                f"split: found no way to give every part every class without taking a patient's only one: {lacking}; "
                "ingest more patients of these classes or drop the target"
            )
    return parts


def _gaps(parts: NDArray[np.int64], present: NDArray[np.bool_]) -> list[tuple[int, int]]:
    return [
        (part, int(name)) for part in (TEST, VALIDATION, TRAIN) for name in np.flatnonzero(~present[parts == part].any(axis=0))
    ]


def _donor(parts: NDArray[np.int64], present: NDArray[np.bool_], order: Sequence[bytes], name: int) -> int | None:
    """The group with class `name` that can best be spared, from the part that has most of them."""
    have = np.stack([present[parts == part].sum(axis=0) for part in range(len(PARTS))])
    candidates = [int(number) for number in np.flatnonzero(present[:, name]) if (have[parts[number]][present[number]] > 1).all()]
    return min(candidates, key=lambda number: (-have[parts[number], name], order[number]), default=None)
