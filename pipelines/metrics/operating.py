"""What a threshold gets right and wrong: sensitivity, specificity and predictive values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.discrimination import Array, ratio


def sensitivity(labels: NDArray[Any], called: NDArray[Any], weights: Array) -> Array:
    """Fraction of images with the finding that are called positive, under each row of `weights` (resamples, images)."""
    return _fraction(labels == 1, called, weights)


def specificity(labels: NDArray[Any], called: NDArray[Any], weights: Array) -> Array:
    """Fraction of images without the finding that are called negative, under each row of `weights`."""
    return _fraction(labels == 0, ~called, weights)


def positive_predictive_value(labels: NDArray[Any], called: NDArray[Any], weights: Array) -> Array:
    """Fraction of images called positive that have the finding, under each row of `weights`; NaN where none is called."""
    return _fraction(called, labels == 1, weights)


def negative_predictive_value(labels: NDArray[Any], called: NDArray[Any], weights: Array) -> Array:
    """Fraction of images called negative that lack the finding, under each row of `weights`; NaN where none is called."""
    return _fraction(~called, labels == 0, weights)


def _fraction(among: NDArray[Any], those: NDArray[Any], weights: Array) -> Array:
    return ratio(weights @ (among & those).astype(np.float64), weights @ among.astype(np.float64))
