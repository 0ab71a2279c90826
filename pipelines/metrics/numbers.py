"""How near predicted numbers come to the true ones, and how well they are in order.

Functions that take `weights` (resamples, images) give one value per resample; the bootstrap rests on them. What is
undefined, because all values are alike, is NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.discrimination import Array, ratio


def mean_absolute_error(truth: Array, said: Array, weights: Array) -> Array:
    """In the unit of the values."""
    return ratio(weights @ np.abs(said - truth), weights.sum(axis=1))


def root_mean_squared_error(truth: Array, said: Array, weights: Array) -> Array:
    """In the unit of the values."""
    return np.sqrt(ratio(weights @ (said - truth) ** 2, weights.sum(axis=1)))


def explained(truth: Array, said: Array, weights: Array) -> Array:
    """R²: 1 − the squared errors by those of the mean value; below 0 where the mean would do better."""
    mean = ratio(weights @ truth, weights.sum(axis=1))[:, None]
    deviations = (weights * (truth - mean) ** 2).sum(axis=1)
    rounding = 1e-12 * (weights @ truth**2)
    return 1 - ratio(weights @ (said - truth) ** 2, np.where(deviations > rounding, deviations, 0.0))


def spearman(truth: Array, said: Array, weights: Array) -> Array:
    """Spearman's rank correlation, equal values sharing the mean of their ranks; a weight counts an image so many times."""
    one, other = _ranks(truth, weights), _ranks(said, weights)
    total = weights.sum(axis=1, keepdims=True)
    one, other = (ranks - (weights * ranks).sum(axis=1, keepdims=True) / np.maximum(total, 1) for ranks in (one, other))
    together, first, second = ((weights * product).sum(axis=1) for product in (one * other, one**2, other**2))
    return ratio(together, np.sqrt(first * second))


def concordance(truth: NDArray[Any], said: NDArray[Any]) -> float:
    """Of two images whose true values differ, the chance that the higher one is said to be higher, ties counting half.

    NaN (unknown) values are left out; NaN if no two differ. With two values it is the AUROC.
    """
    from scipy.stats import kendalltau

    known = ~np.isnan(truth)
    truth, said = np.asarray(truth, np.float64)[known], np.asarray(said, np.float64)[known]
    pairs = len(truth) * (len(truth) - 1) / 2
    differ, told_apart = pairs - _tied(truth), pairs - _tied(said)
    if not differ:
        return float("nan")
    if not told_apart:
        return 0.5
    # τ-b is (concordant − discordant) / √(differ · told apart)
    return float(0.5 + kendalltau(truth, said, variant="b").statistic * np.sqrt(told_apart / differ) / 2)


def _tied(values: Array) -> float:
    """Pairs of equal values."""
    counts = np.unique(values, return_counts=True)[1].astype(np.float64)
    return float((counts * (counts - 1) / 2).sum())


def _ranks(values: Array, weights: Array) -> Array:
    """The rank of each image (resamples, images) among so many copies of the images."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    group = np.cumsum(np.concatenate([[True], ordered[1:] != ordered[:-1]])) - 1
    copies = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = np.cumsum(copies, axis=1) - copies + (copies + 1) / 2
    found = np.empty(weights.shape)
    found[:, order] = ranks[:, group]
    return found
