"""How well scores separate images with a finding from images without: ROC and precision–recall.

Labels are 0, 1 or NaN (unknown: the image does not count for that output). What is undefined, because one class is missing,
is NaN. Functions that take `weights` (resamples, images) give one value per resample; the bootstrap rests on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A curve over every threshold, from the highest to the lowest; a score counts as positive from the threshold up.

    The first point of a ROC curve calls nothing positive and has no threshold (NaN).
    """

    x: Array
    y: Array
    thresholds: Array


def auroc(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half; NaN if undefined."""
    labels, scores = known(labels, scores)
    return float(weighted_auroc(labels, scores, np.ones((1, len(labels))))[0])


def auprc(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    """Area under the precision–recall curve as average precision (no interpolation between thresholds); NaN if undefined."""
    labels, scores = known(labels, scores)
    return float(weighted_auprc(labels, scores, np.ones((1, len(labels))))[0])


def macro_auroc(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    """Mean over the outputs of the AUROC, leaving out those where it is undefined; NaN if it is undefined for all.

    Args:
        labels: (images, outputs), 0, 1 or NaN.
        scores: (images, outputs).
    """
    areas = [auroc(labels[:, output], scores[:, output]) for output in range(labels.shape[1])]
    defined = [area for area in areas if not np.isnan(area)]
    return float(np.mean(defined)) if defined else float("nan")


def weighted_auroc(labels: NDArray[Any], scores: NDArray[Any], weights: Array) -> Array:
    """The AUROC under each row of `weights` (resamples, images), all labels known; array (resamples,)."""
    positive, negative = _by_threshold(labels, scores, weights)
    below = np.cumsum(negative[:, ::-1], axis=1)[:, ::-1] - negative / 2
    return ratio((positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))


def weighted_auprc(labels: NDArray[Any], scores: NDArray[Any], weights: Array) -> Array:
    """The average precision under each row of `weights` (resamples, images), all labels known; array (resamples,).

    NaN where one class is missing: without negatives the precision is 1 whatever the scores.
    """
    positive, negative = _by_threshold(labels, scores, weights)
    found = np.cumsum(positive, axis=1)
    called = found + np.cumsum(negative, axis=1)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    area = ratio((positive * precision).sum(axis=1), positive.sum(axis=1))
    return np.where(negative.sum(axis=1) > 0, area, np.nan)


def roc_curve(labels: NDArray[Any], scores: NDArray[Any]) -> Curve:
    """False positive rate (x) against true positive rate (y), with only the points where the curve turns."""
    labels, scores = known(labels, scores)
    positive, negative = _by_threshold(labels, scores, np.ones((1, len(labels))))
    x = np.concatenate([[0.0], np.cumsum(negative[0])])
    y = np.concatenate([[0.0], np.cumsum(positive[0])])
    thresholds = np.concatenate([[np.nan], np.unique(scores)[::-1]])
    turns = np.ones(len(x), dtype=bool)
    turns[1:-1] = np.diff(x)[:-1] * np.diff(y)[1:] != np.diff(x)[1:] * np.diff(y)[:-1]
    return Curve(ratio(x, x[-1:])[turns], ratio(y, y[-1:])[turns], thresholds[turns])


def precision_recall_curve(labels: NDArray[Any], scores: NDArray[Any]) -> Curve:
    """Recall (x) against precision (y), one point for each distinct score."""
    labels, scores = known(labels, scores)
    positive, negative = _by_threshold(labels, scores, np.ones((1, len(labels))))
    found = np.cumsum(positive[0])
    return Curve(ratio(found, found[-1:]), ratio(found, found + np.cumsum(negative[0])), np.unique(scores)[::-1])


def known(labels: NDArray[Any], scores: NDArray[Any]) -> tuple[Array, Array]:
    """The labels that are known, with their scores."""
    labels = np.asarray(labels, dtype=np.float64)
    there = ~np.isnan(labels)
    return labels[there], np.asarray(scores, dtype=np.float64)[there]


def _by_threshold(labels: NDArray[Any], scores: NDArray[Any], weights: Array) -> tuple[Array, Array]:
    """Weight of positives and of negatives at each distinct score, highest first; two arrays (resamples, scores)."""
    if not len(scores):
        return np.zeros((len(weights), 0)), np.zeros((len(weights), 0))
    order = np.argsort(-np.asarray(scores), kind="stable")
    ordered = np.asarray(scores)[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    weight = weights[:, order]
    positive = np.add.reduceat(weight * (labels[order] == 1), starts, axis=1)
    return positive, np.add.reduceat(weight, starts, axis=1) - positive


def ratio(numerator: Array, denominator: Array) -> Array:
    """Numerator by denominator, NaN where the denominator is not positive."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    result: Array = np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
    return result
