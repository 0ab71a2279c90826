"""Who is in the data: how many images came how far, and how the parts of the split compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipelines.metrics.subgroups import attributes, ordered
from pipelines.records import PARTS, label_column


@dataclass(frozen=True)
class Count:
    """Images, and the patients whom they show."""

    images: int
    patients: int


@dataclass(frozen=True)
class Part:
    """One part of the split; `positives` holds, for each output, images with it and images whose label is known."""

    name: str
    size: Count
    positives: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Flow:
    """How the images went from the source to the parts.

    Attributes:
        found: files looked at, or None where ingest left no count.
        set_aside: files that ingest set aside, by reason.
        ingested: the de-identified radiographs.
        left_out: radiographs that could not be prepared, by reason.
        unlabelled: prepared radiographs that are in no part, since they have no label.
        used: the rest.
        parts: train, validation and test.
    """

    found: int | None
    set_aside: dict[str, int]
    ingested: Count
    left_out: dict[str, int]
    unlabelled: int
    used: Count
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Composition:
    """One group of one attribute: images in each part of the split, and their fraction of the part."""

    attribute: str
    group: str
    images: dict[str, int]
    fractions: dict[str, float]


def flow(cohort: pd.DataFrame, outputs: Sequence[str], ingest: Mapping[str, Any] | None) -> Flow:
    """Count the images at every step.

    Args:
        cohort: the index of prepared images, with `part` (None for an image in no part) and `y_NAME` for each output.
        outputs: the names of the outputs.
        ingest: what data/flow.json says, or None.
    """
    left_out = cohort["left_out"].notna()
    used = cohort[cohort["part"].notna()]
    return Flow(
        found=None if ingest is None else ingest["found"],
        set_aside={} if ingest is None else _set_aside(ingest),
        ingested=_count(cohort),
        left_out=_by_reason(cohort.loc[left_out, "left_out"]),
        unlabelled=int((~left_out & cohort["part"].isna()).sum()),
        used=_count(used),
        parts=tuple(_part(name, used[used["part"] == name], outputs) for name in PARTS),
    )


def composition(cohort: pd.DataFrame) -> list[Composition]:
    """How sex, age, view and site are spread over the parts of the split."""
    used = cohort[cohort["part"].notna()]
    sizes = {part: int((used["part"] == part).sum()) for part in PARTS}
    rows = []
    for attribute, groups in attributes(used).items():
        for group in ordered(groups):
            inside = used[np.array(groups) == group]
            images = {part: int((inside["part"] == part).sum()) for part in PARTS}
            fractions = {part: images[part] / sizes[part] if sizes[part] else 0.0 for part in PARTS}
            rows.append(Composition(attribute, group, images, fractions))
    return rows


def _set_aside(ingest: Mapping[str, Any]) -> dict[str, int]:
    return {"not_dicom": ingest["not_dicom"], **ingest["quarantined"]}


def _by_reason(reasons: pd.Series[Any]) -> dict[str, int]:
    return {str(reason): int(count) for reason, count in reasons.value_counts().sort_index().items()}


def _count(rows: pd.DataFrame) -> Count:
    return Count(len(rows), int(rows["patient"].nunique()))


def _part(name: str, rows: pd.DataFrame, outputs: Sequence[str]) -> Part:
    labels = {output: rows[label_column(output)] for output in outputs}
    return Part(name, _count(rows), {output: (int((y == 1).sum()), int(y.notna().sum())) for output, y in labels.items()})
