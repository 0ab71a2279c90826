"""Linear classifiers by scikit-learn, with the standardisation of the features folded into one linear layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ITERATIONS = 5000
LEAST_SCALE = 1e-6  # of a feature that is the same for all images


@dataclass(frozen=True)
class Linear:
    """Logits, or decision values, as features (images, width) · weight (outputs, width)ᵀ + bias (outputs,)."""

    weight: Array
    bias: Array

    def logits(self, features: Array) -> Array:
        """(images, outputs)."""
        result: Array = features @ self.weight.T + self.bias
        return result

    def raised(self, weights: Array | None) -> Linear:
        """Logits as a loss with these weights of positives or classes would make them: log w higher."""
        return self if weights is None else Linear(self.weight, self.bias + np.log(weights))


@dataclass(frozen=True)
class Solver:
    """How one output, or the classes of an exclusive one, are fitted.

    Attributes:
        one: from features, labels of 0 and 1, weights of the images and C to coefficients (width,) and an intercept.
        several: likewise from class numbers to coefficients (classes, width) and intercepts (classes,).
        calibrated: decision values are no logits until they are calibrated on held-out patients.
        strengths: of the regularisation, 1 / C for standardised features, to choose from.
    """

    one: Callable[[Array, Array, Array, float], tuple[Array, float]]
    several: Callable[[Array, Array, Array, float], tuple[Array, Array]]
    calibrated: bool
    strengths: tuple[float, ...]

    def fit(self, features: Array, labels: Array, weights: Array | None, strength: float, *, exclusive: bool) -> Linear:
        """Minimise Σ weight · loss + strength / 2 · ‖w‖² over standardised features; the intercept is hardly penalised.

        Args:
            features: (images, width).
            labels: (images, outputs), 0, 1 or NaN, which leaves the image out for that output.
            weights: (outputs,), of a positive, or of each class; None weighs all alike.
            strength: 1 / C.
            exclusive: of the outputs one is true.
        """
        if not exclusive:
            positive = np.ones(labels.shape[1]) if weights is None else weights
            rows = [self._output(features, own, weight, strength) for own, weight in zip(labels.T, positive, strict=True)]
            return Linear(np.stack([row for row, _ in rows]), np.array([bias for _, bias in rows]))
        known = ~np.isnan(labels).any(axis=1)
        features, classes = features[known], labels[known].argmax(axis=1)
        mean, scale = _standard(features)
        importance = np.ones(len(features)) if weights is None else weights[classes]
        if labels.shape[1] == 2:
            row, bias = self.one((features - mean) / scale, classes.astype(float), importance, 1 / strength)
            coefficients, intercepts = np.stack([-row / 2, row / 2]), np.array([-bias / 2, bias / 2])
        else:
            coefficients, intercepts = self.several((features - mean) / scale, classes.astype(float), importance, 1 / strength)
        return _folded(coefficients, intercepts, mean, scale)

    def _output(self, features: Array, labels: Array, weight: float, strength: float) -> tuple[Array, float]:
        known = ~np.isnan(labels)
        features, labels = features[known], labels[known]
        mean, scale = _standard(features)
        row, bias = self.one((features - mean) / scale, labels, np.where(labels == 1, weight, 1.0), 1 / strength)
        folded = _folded(row[None], np.array([bias]), mean, scale)
        return folded.weight[0], float(folded.bias[0])


def _standard(features: Array) -> tuple[Array, Array]:
    return features.mean(axis=0), np.maximum(features.std(axis=0), LEAST_SCALE)


def _folded(coefficients: Array, intercepts: Array, mean: Array, scale: Array) -> Linear:
    """The same answers from features that are not standardised."""
    weight = coefficients / scale
    return Linear(weight, intercepts - weight @ mean)


def _fitted(model: Any, features: Array, labels: Array, importance: Array) -> Any:
    return model.fit(features, labels, sample_weight=importance)


def _logistic(features: Array, labels: Array, importance: Array, c: float) -> tuple[Array, Array]:
    from sklearn.linear_model import LogisticRegression

    model = _fitted(LogisticRegression(C=c, max_iter=ITERATIONS, tol=1e-6), features, labels, importance)
    return model.coef_, model.intercept_


def _svm(features: Array, labels: Array, importance: Array, c: float) -> tuple[Array, Array]:
    from sklearn.svm import LinearSVC

    model = LinearSVC(C=c, max_iter=ITERATIONS, dual="auto", random_state=0, intercept_scaling=10.0)
    fitted = _fitted(model, features, labels, importance)
    return fitted.coef_, fitted.intercept_


def _first(
    several: Callable[[Array, Array, Array, float], tuple[Array, Array]],
) -> Callable[[Array, Array, Array, float], tuple[Array, float]]:
    def one(features: Array, labels: Array, importance: Array, c: float) -> tuple[Array, float]:
        rows, biases = several(features, labels, importance, c)
        return rows[0], float(biases[0])

    return one


SOLVERS = {
    "logistic_regression": Solver(_first(_logistic), _logistic, False, (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5)),
    "linear_svm": Solver(_first(_svm), _svm, True, (1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6)),
}
