"""The test part taken apart by sex, age, view and site: a mean can hide the patients whom a model fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.metrics.evaluation import Evaluation, evaluate
from pipelines.metrics.intervals import FEWEST, Interval

UNKNOWN = "not recorded"

AGE_GROUPS = (  # up to but not including, in years
    (2.0, "under 2"),
    (12.0, "2 to 11"),
    (18.0, "12 to 17"),
    (45.0, "18 to 44"),
    (65.0, "45 to 64"),
    (float("inf"), "65 or more"),
)


@dataclass(frozen=True)
class Subgroup:
    """One group of the test images for one output; a metric is None below `FEWEST` patients, or images of a class."""

    attribute: str
    group: str
    images: int
    patients: int
    positives: int
    negatives: int
    auroc: Interval | None
    sensitivity: Interval | None
    specificity: Interval | None


def attributes(index: pd.DataFrame) -> dict[str, list[str]]:
    """The group of each image by attribute (Sex, Age, View, Site), as a reader should see it.

    Sites are numbered in the order of their pseudonyms.
    """
    sites = sorted(index["site"].dropna().unique())
    numbers = {site: f"site {number}" for number, site in enumerate(sites, start=1)}
    sexes = {"F": "female", "M": "male", "O": "other"}
    return {
        "Sex": [sexes.get(value, UNKNOWN) for value in index["sex"]],
        "Age": [age_group(value) for value in index["age_years"]],
        "View": [value if isinstance(value, str) else UNKNOWN for value in index["view"]],
        "Site": [numbers.get(value, UNKNOWN) for value in index["site"]],
    }


def age_group(years: float | None) -> str:
    """The name of the age group, or that the age is not recorded (None or NaN)."""
    if years is None or np.isnan(years):
        return UNKNOWN
    return next(name for limit, name in AGE_GROUPS if years < limit)


def ordered(groups: Sequence[str]) -> list[str]:
    """The distinct groups in reading order: ages by age, the rest by name, what is not recorded last."""
    ages = [name for _, name in AGE_GROUPS]
    return sorted(set(groups), key=lambda name: (name == UNKNOWN, ages.index(name) if name in ages else 0, name))


def subgroups(
    labels: NDArray[Any],
    scores: NDArray[Any],
    patients: NDArray[Any],
    groups: dict[str, list[str]],
    *,
    threshold: float,
    resamples: int,
    seed: int,
) -> list[Subgroup]:
    """AUROC, sensitivity and specificity of one output in every group, with patient-level intervals.

    Args:
        labels: (images,), 0, 1 or NaN (unknown, left out).
        scores: (images,), probabilities.
        patients: (images,) whose image each is.
        groups: for each attribute, the group of each image.
        threshold: the probability from which an image is called positive.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
    """
    there = ~np.isnan(labels)
    rows = []
    for attribute, names in groups.items():
        for name in ordered(names):
            inside = there & (np.array(names) == name)
            if inside.any():
                found = evaluate(
                    labels[inside, None],
                    scores[inside, None],
                    patients[inside],
                    outputs=[name],
                    thresholds=[threshold],
                    bins=1,
                    resamples=resamples,
                    seed=seed,
                    metrics=("auroc", "sensitivity", "specificity"),
                )
                rows.append(_subgroup(attribute, found))
    return rows


def _subgroup(attribute: str, found: Evaluation) -> Subgroup:
    output = found.outputs[0]
    enough, without = (found.patients >= FEWEST and count >= FEWEST for count in (output.positives, output.negatives))
    return Subgroup(
        attribute,
        output.name,
        found.images,
        found.patients,
        output.positives,
        output.negatives,
        output.metrics["auroc"] if enough and without else None,
        output.metrics["sensitivity"] if enough else None,
        output.metrics["specificity"] if without else None,
    )
