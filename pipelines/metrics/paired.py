"""Two sets of scores for the same images: by how much the AUROC of one exceeds that of the other, with an interval.

The same patients are drawn for both, so that what is hard about them counts for neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.discrimination import Array, weighted_auroc
from pipelines.metrics.intervals import Interval, bootstrap, enough, interval


@dataclass(frozen=True)
class Gain:
    """AUROC minus that of a rival, of each output and as the mean over the outputs for which both are defined."""

    macro: Interval
    outputs: dict[str, Interval]


def gains(
    labels: NDArray[Any],
    scores: NDArray[Any],
    rivals: Mapping[str, NDArray[Any]],
    patients: NDArray[Any],
    *,
    outputs: Sequence[str],
    resamples: int,
    seed: int,
) -> dict[str, Gain]:
    """The gain over each rival; every one sees the same resamples. Too few patients of a class (`intervals.enough`): no ends.

    Args:
        labels: (images, outputs), 0, 1 or NaN (unknown: the image does not count for that output).
        scores: (images, outputs).
        rivals: their scores, (images, outputs) each; an output with a NaN for an image whose label is known is undefined.
        patients: (images,) whose image each is.
        outputs: their names.
        resamples: bootstrap resamples of patients.
        seed: of the bootstrap.
    """
    known = ~np.isnan(labels)
    everyone = [scores, *rivals.values()]

    def statistic(weights: Array) -> Array:
        columns = [
            _auroc(labels[there, k], said[there, k], weights[:, there]) for said in everyone for k, there in enumerate(known.T)
        ]
        return np.stack(columns, axis=1)

    values, draws = bootstrap(statistic, patients, resamples, seed)
    value, drawn = values.reshape(len(everyone), -1), draws.reshape(resamples, len(everyone), -1)
    sure = np.array([enough(column, patients) for column in labels.T])
    return {
        name: _gain(value[0] - value[number], drawn[:, 0] - drawn[:, number], sure, outputs)
        for number, name in enumerate(rivals, 1)
    }


def _auroc(labels: NDArray[Any], scores: NDArray[Any], weights: Array) -> Array:
    return np.full(len(weights), np.nan) if np.isnan(scores).any() else weighted_auroc(labels, scores, weights)


def _gain(values: Array, draws: Array, sure: NDArray[np.bool_], outputs: Sequence[str]) -> Gain:
    defined = ~np.isnan(values)
    mean = float(values[defined].mean()) if defined.any() else float("nan")
    return Gain(
        macro=interval(mean, draws[:, defined].mean(axis=1) if defined.any() else draws[:, 0]).where(bool(sure[defined].all())),
        outputs={name: interval(float(values[k]), draws[:, k]).where(bool(sure[k])) for k, name in enumerate(outputs)},
    )
