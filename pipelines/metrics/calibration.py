"""How far a probability can be taken at its word: Brier score, expected calibration error, reliability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.discrimination import Array, known, ratio


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of the reliability plot: the lowest and highest score in it, their mean, the observed fraction and the count."""

    lowest: float
    highest: float
    predicted: float
    observed: float
    images: int


def brier(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    """Mean squared difference between probability and label, over the known labels; NaN if there are none."""
    labels, scores = known(labels, scores)
    return float(weighted_brier(labels, scores, np.ones((1, len(labels))))[0])


def expected_calibration_error(labels: NDArray[Any], scores: NDArray[Any], bins: int) -> float:
    """Mean over images of |mean probability − observed fraction| of their bin (equal counts); NaN without known labels."""
    labels, scores = known(labels, scores)
    return float(weighted_calibration_error(labels, scores, np.ones((1, len(labels))), bins)[0])


def reliability(labels: NDArray[Any], scores: NDArray[Any], bins: int) -> list[ReliabilityBin]:
    """The bins that `expected_calibration_error` compares, lowest scores first; ties can make them fewer."""
    labels, scores = known(labels, scores)
    assigned = equal_count_bins(scores, bins)
    return [
        ReliabilityBin(
            float(scores[inside].min()),
            float(scores[inside].max()),
            float(scores[inside].mean()),
            float(labels[inside].mean()),
            int(inside.sum()),
        )
        for inside in (assigned == number for number in np.unique(assigned))
    ]


def equal_count_bins(scores: Array, bins: int) -> NDArray[np.int64]:
    """The bin 0…bins−1 of each score by its rank, so that bins hold equally many images; equal scores share a bin."""
    ordered = np.sort(scores)
    first = np.searchsorted(ordered, scores, side="left")
    last = np.searchsorted(ordered, scores, side="right") - 1
    return (first + last) * bins // (2 * max(len(scores), 1))


def weighted_brier(labels: NDArray[Any], scores: NDArray[Any], weights: Array) -> Array:
    """The Brier score under each row of `weights` (resamples, images), all labels known; array (resamples,)."""
    return ratio(weights @ (scores - labels) ** 2, weights.sum(axis=1))


def weighted_calibration_error(labels: NDArray[Any], scores: NDArray[Any], weights: Array, bins: int) -> Array:
    """The expected calibration error under each row of `weights`, all labels known; array (resamples,).

    Bins are those of the images themselves, the same in every resample.
    """
    assigned = equal_count_bins(scores, bins)
    gaps = np.stack([weights @ np.where(assigned == number, scores - labels, 0.0) for number in range(bins)])
    return ratio(np.abs(gaps).sum(axis=0), weights.sum(axis=1))
