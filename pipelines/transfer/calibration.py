"""From decision values to logits: Platt's sigmoid, or for classes that exclude each other one slope and a bias for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.transfer.solvers import Linear

Array = NDArray[np.float64]
LEAST_SLOPE = 1e-3  # the order of the images stays the classifier's, even where held-out patients contradict it


@dataclass(frozen=True)
class Calibration:
    """slope (outputs,) · value + bias (outputs,)."""

    slope: Array
    bias: Array

    @classmethod
    def lowered(cls, weights: Array | None, outputs: int) -> Calibration:
        """What takes back the log w by which class weights raise logits."""
        return cls(np.ones(outputs), np.zeros(outputs) if weights is None else -np.log(weights))

    def __call__(self, values: Array) -> Array:
        """Logits (images, outputs)."""
        result: Array = values * self.slope + self.bias
        return result

    def into(self, linear: Linear) -> Linear:
        """One linear layer that gives calibrated logits."""
        return Linear(linear.weight * self.slope[:, None], linear.bias * self.slope + self.bias)


def calibrate(values: Array, labels: Array, *, exclusive: bool) -> Calibration:
    """Fit slopes and biases to decision values of held-out images.

    Each output on its own as Platt (1999) does, with his targets (positives + 1) / (positives + 2) and 1 / (negatives + 2)
    in the place of 1 and 0; exclusive outputs together, with one slope for all, by cross-entropy with the like targets
    (images + 1) / (images + classes) of the true class and 1 / (images + classes) of each other one, by the images of the class.

    Args:
        values: (images, outputs); NaN for an image that was not held out.
        labels: (images, outputs), 0, 1 or NaN; one-hot for exclusive outputs.
        exclusive: of the outputs one is true.

    Returns:
        Slope 1 and bias 0 where no image was held out.
    """
    known = ~np.isnan(values) & ~np.isnan(labels)
    outputs = labels.shape[1]
    if not known.any():
        return Calibration(np.ones(outputs), np.zeros(outputs))
    if exclusive:
        rows = known.all(axis=1)
        return _softmax(values[rows], labels[rows])
    pairs = [_platt(values[known[:, n], n], labels[known[:, n], n]) for n in range(outputs)]
    return Calibration(np.array([slope for slope, _ in pairs]), np.array([bias for _, bias in pairs]))


def _platt(values: Array, labels: Array) -> tuple[float, float]:
    from scipy.optimize import minimize

    positives, negatives = (labels == 1).sum(), (labels == 0).sum()
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(point: Array) -> tuple[float, Array]:
        logits = point[0] * values + point[1]
        residual = 1 / (1 + np.exp(-np.clip(logits, -500, 500))) - target
        return float((np.logaddexp(0, logits) - target * logits).sum()), np.array([(residual * values).sum(), residual.sum()])

    start = np.array([1.0, np.log((positives + 1) / (negatives + 1))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(LEAST_SLOPE, None), (None, None)]).x
    return float(found[0]), float(found[1])


def _softmax(values: Array, labels: Array) -> Calibration:
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    number = (labels @ labels.sum(axis=0))[:, None]  # of images of the same class
    targets = (labels * number + 1) / (number + labels.shape[1])

    def loss(point: Array) -> tuple[float, Array]:
        shares = log_softmax(point[0] * values + point[1:], axis=1)
        residual = np.exp(shares) - targets
        # a little pull of the biases to 0 makes the answer unique, since a softmax sees differences only
        value = -(targets * shares).sum() + 1e-6 * (point[1:] ** 2).sum()
        return float(value), np.concatenate([[(residual * values).sum()], residual.sum(axis=0) + 2e-6 * point[1:]])

    start = np.concatenate([[1.0], np.log(labels.mean(axis=0).clip(min=1e-3))])
    bounds = [(LEAST_SLOPE, None)] + [(None, None)] * labels.shape[1]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return Calibration(np.full(labels.shape[1], found[0]), found[1:])
