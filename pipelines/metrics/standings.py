"""Candidates by how well their answers rank the same patients: AUROC with intervals, and how far each is behind the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.evaluation import evaluate
from pipelines.metrics.intervals import Interval
from pipelines.metrics.paired import gains


@dataclass(frozen=True)
class Standing:
    """One candidate: its AUROC, mean over the outputs, and the best one's minus its own on the same patients."""

    name: str
    auroc: Interval
    behind: Interval

    @property
    def tied(self) -> bool:
        """Whether it cannot be told apart from the best: the interval of the difference holds 0."""
        return self.behind.low is None or self.behind.low <= 0


def standings(
    labels: NDArray[Any],
    scores: Mapping[str, NDArray[Any]],
    patients: NDArray[Any],
    *,
    outputs: Sequence[str],
    resamples: int,
    seed: int,
) -> tuple[Standing, ...]:
    """The candidates, best first; every one sees the same resamples of patients.

    Args:
        labels: (images, outputs), 0, 1 or NaN (unknown: the image does not count for that output).
        scores: of each candidate, (images, outputs); an image of which any is NaN counts for none.
        patients: (images,) whose image each is.
        outputs: their names.
        resamples: bootstrap resamples of patients.
        seed: of the bootstrap.
    """
    there = ~np.any([np.isnan(said).any(axis=1) for said in scores.values()], axis=0)
    known, whose = labels[there], patients[there]
    said = {name: answers[there] for name, answers in scores.items()}

    def auroc(answers: NDArray[Any]) -> Interval:
        thresholds = [0.0] * len(outputs)
        found = evaluate(
            *(known, answers, whose),
            outputs=outputs,
            thresholds=thresholds,
            bins=2,
            resamples=resamples,
            seed=seed,
            metrics=("auroc",),
        )
        return found.macro["auroc"]

    areas = {name: auroc(answers) for name, answers in said.items()}
    order = sorted(areas, key=lambda name: -(areas[name].value or 0.0))
    behind = gains(known, said[order[0]], said, whose, outputs=outputs, resamples=resamples, seed=seed)
    return tuple(Standing(name, areas[name], behind[name].macro) for name in order)
