"""The mistakes that a reader should see: the false positives and false negatives of which the model was surest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Mistake:
    """One image (by its row) that one output (by its position) gets wrong, and the probability that it gave."""

    row: int
    output: int
    probability: float


def worst(
    labels: NDArray[Any], scores: NDArray[Any], thresholds: Sequence[float], count: int
) -> tuple[list[Mistake], list[Mistake]]:
    """At most `count` false positives and as many false negatives over all outputs, farthest from the threshold first.

    Args:
        labels: (images, outputs), 0, 1 or NaN (unknown: never a mistake).
        scores: (images, outputs), probabilities.
        thresholds: for each output, the probability from which an image is called positive.
        count: how many of each.
    """
    beyond = np.asarray(scores, dtype=np.float64) - np.asarray(thresholds)
    false_positive = (labels == 0) & (beyond >= 0)
    false_negative = (labels == 1) & (beyond < 0)
    return _farthest(false_positive, beyond, scores, count), _farthest(false_negative, -beyond, scores, count)


def _farthest(mistaken: NDArray[np.bool_], distance: NDArray[Any], scores: NDArray[Any], count: int) -> list[Mistake]:
    rows, outputs = np.nonzero(mistaken)
    order = np.argsort(-distance[rows, outputs], kind="stable")[:count]
    places = zip(rows[order].tolist(), outputs[order].tolist(), strict=True)
    return [Mistake(row, output, float(scores[row, output])) for row, output in places]
