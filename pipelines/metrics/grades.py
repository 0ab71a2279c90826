"""How near predicted classes come to the true ones; of classes in order, how far off they are.

Classes are places among the classes, from 0. Functions that take `weights` (resamples, images) give one value per
resample; the bootstrap rests on them. What is undefined is NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.discrimination import Array, ratio, weighted_auroc


def accuracy(truth: Array, said: Array, weights: Array) -> Array:
    """Fraction of images whose class is the true one."""
    return ratio(weights @ (truth == said), weights.sum(axis=1))


def mean_distance(truth: Array, said: Array, weights: Array) -> Array:
    """Mean absolute error in classes: 1 is one class off."""
    return ratio(weights @ np.abs(truth - said), weights.sum(axis=1))


def quadratic_kappa(truth: Array, said: Array, weights: Array, classes: int) -> Array:
    """Cohen's kappa with quadratic weights (Cohen, Psychological Bulletin 70, 1968): 1 − squared distances by those of chance.

    Chance pairs the true with the said classes as often as each comes; NaN where it would never be wrong.
    """
    places = np.arange(classes)
    hot, told = truth[:, None] == places, said[:, None] == places
    total = weights.sum(axis=1)
    rows, columns = weights @ hot, weights @ told
    distances = (places[:, None] - places[None, :]) ** 2
    by_chance = ratio(np.einsum("ri,ij,rj->r", rows, distances.astype(np.float64), columns), total)
    return 1 - ratio(weights @ (truth - said) ** 2, by_chance)


def step_auroc(truth: Array, above: Array, weights: Array) -> Array:
    """Mean AUROC of the steps between classes that the images have on both sides.

    Args:
        truth: (images,), places.
        above: (images, classes − 1), the chance to be above each class but the last.
        weights: (resamples, images).
    """
    steps = [k for k in range(above.shape[1]) if len(np.unique(truth > k)) == 2]
    if not steps:
        return np.full(len(weights), np.nan)
    areas = [weighted_auroc((truth > k).astype(np.float64), above[:, k], weights) for k in steps]
    mean: Array = np.mean(areas, axis=0)
    return mean


def confusion(truth: NDArray[Any], said: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """How many images of each true class (rows) were said to be of each (columns)."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (truth.astype(np.int64), said.astype(np.int64)), 1)
    return table
