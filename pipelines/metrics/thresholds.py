"""The operating point: where a probability starts to count as a finding, and what follows from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import TrainingError
from pipelines.metrics.discrimination import Array, known

RULES = ("youden", "sensitivity", "specificity")


def choose(labels: NDArray[Any], scores: NDArray[Any], rule: str, value: float) -> float:
    """The threshold that a rule picks; scores at or above it count as positive.

    Candidates lie midway between neighbouring distinct scores, so that rounding cannot move an image across; below them lies
    the lowest score (everything is positive), above them a number just over the highest (nothing is).

    Args:
        labels: (images,), 0, 1 or NaN (unknown, left out).
        scores: (images,).
        rule: `youden` for the largest sensitivity + specificity − 1 (of equals, the most sensitive); `sensitivity` for the
            most specific threshold whose sensitivity is at least `value`; `specificity` for the most sensitive one whose
            specificity is at least `value`.
        value: 0…1; not used by `youden`.

    Raises:
        TrainingError: one class is missing, so there is nothing to choose on.
    """
    labels, scores = known(labels, scores)
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    if not positives or not negatives:
        raise TrainingError(
            f"choosing the operating point: expected validation images with and without the finding, got {positives} with and "
            f"{negatives} without; change split.seed or split.validation"
        )
    candidates = _candidates(scores)
    sensitivity = 1 - np.searchsorted(np.sort(scores[labels == 1]), candidates, side="left") / positives
    specificity = np.searchsorted(np.sort(scores[labels == 0]), candidates, side="left") / negatives
    if rule == "youden":
        gain = np.round(sensitivity + specificity, 12)
        return float(candidates[np.argmax(gain)])
    if rule == "sensitivity":
        return float(candidates[np.flatnonzero(sensitivity >= value - 1e-12)[-1]])
    if rule == "specificity":
        return float(candidates[np.flatnonzero(specificity >= value - 1e-12)[0]])
    raise ValueError(f"rule: expected one of {', '.join(RULES)}, got {rule!r}")


def spelled(probability: float) -> str:
    """A probability with three decimals, or as many as show two digits of its distance from 0 or 1: 0.00031, 0.99982.

    A threshold can lie as low as a rare finding's probabilities do, and must not read as 0.
    """
    if 0 < probability < 1e-6:
        return f"{probability:.1e}"
    nearest = min(probability, 1 - probability)
    decimals = max(3, 1 - math.floor(math.log10(nearest))) if nearest > 0 else 3
    return f"{probability:.{decimals}f}"


def _candidates(scores: Array) -> Array:
    """Every threshold that splits the scores differently, ascending; each splits alike in single and in double precision."""
    distinct = np.unique(scores)
    lower, upper = distinct[:-1], distinct[1:]
    middle = np.float32(lower + (upper - lower) / 2).astype(np.float64)
    inside = (middle > lower) & (middle <= upper)
    above = float(np.nextafter(np.float32(distinct[-1]), np.float32(np.inf)))
    return np.concatenate([distinct[:1], np.where(inside, middle, upper), [above]])
