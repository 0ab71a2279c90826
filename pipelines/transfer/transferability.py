"""Scores that say, from features alone and without training, how well a pretrained network suits a task.

Each score takes features (images, width) of one network and classes (images,), and is higher for a network that should
transfer better. They are compared between networks on the same images; alone their values mean little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Features = NDArray[np.floating]
Classes = NDArray[np.integer]

KEPT_VARIANCE = 0.8  # by the principal components that NLEEP sees, as in its paper
CLUSTERS_PER_CLASS = 5  # of NLEEP, as in its paper


@dataclass(frozen=True)
class Score:
    """One transferability score."""

    compute: Callable[[Features, Classes], float]
    describes: str
    source: str


def logme(features: Features, classes: Classes) -> float:
    """Log evidence per image of the best Bayesian linear model from features to each class, mean over the classes.

    With y one class against the others (0 or 1), the evidence is log N(y; 0, FFᵀ / α + I / β), and α and β are those that
    maximise it, found by MacKay's fixed point (You et al., ICML 2021).
    """
    matrix = np.asarray(features, np.float64)
    left, singular, _ = np.linalg.svd(matrix, full_matrices=False)
    members = [(classes == value).astype(np.float64) for value in np.unique(classes)]
    return float(np.mean([_evidence(left, singular**2, target, matrix.shape[1]) for target in members]))


def _evidence(left: NDArray[np.float64], eigenvalues: NDArray[np.float64], target: NDArray[np.float64], width: int) -> float:
    """The maximal log evidence per image; `eigenvalues` are those of FᵀF that `left` (images, rank) goes with."""
    images = len(target)
    projected = (left.T @ target) ** 2
    outside = max(float(target @ target - projected.sum()), 0.0)
    alpha = beta = 1.0
    for _ in range(100):
        ratio = alpha / beta
        effective = float((eigenvalues / (eigenvalues + ratio)).sum())
        weights = float((eigenvalues * projected / (eigenvalues + ratio) ** 2).sum())
        residual = float((projected * (ratio / (eigenvalues + ratio)) ** 2).sum()) + outside
        alpha, beta = effective / max(weights, 1e-12), (images - effective) / max(residual, 1e-12)
        if abs(alpha / beta - ratio) <= 1e-6 * ratio:
            break
    ratio = alpha / beta
    weights = float((eigenvalues * projected / (eigenvalues + ratio) ** 2).sum())
    residual = float((projected * (ratio / (eigenvalues + ratio)) ** 2).sum()) + outside
    determinant = float(np.log(alpha + beta * eigenvalues).sum()) + (width - len(eigenvalues)) * np.log(alpha)
    evidence = width * np.log(alpha) + images * np.log(beta / (2 * np.pi)) - determinant - beta * residual - alpha * weights
    return float(evidence / (2 * images))


def h_score(features: Features, classes: Classes) -> float:
    """How much of the features' spread is between classes: tr(Σ⁻¹ Σ_between), with a shrunk covariance.

    Ledoit and Wolf's shrinkage α makes Σ invertible where images are fewer than features, and scales the numerator by
    1 − α alike (Ibrahim et al., ECML PKDD 2022, equation 9).
    """
    from sklearn.covariance import ledoit_wolf

    matrix = np.asarray(features, np.float64)
    matrix = matrix - matrix.mean(axis=0)
    covariance, shrinkage = ledoit_wolf(matrix, assume_centered=True)
    between = np.empty_like(matrix)
    for value in np.unique(classes):
        between[classes == value] = matrix[classes == value].mean(axis=0)
    spread = np.linalg.solve(covariance, between.T @ between / len(matrix))
    return float((1 - shrinkage) * np.trace(spread))


def leep(source: NDArray[np.floating], classes: Classes) -> float:
    """Mean log likelihood of the classes when they are told from the source classifier's answers alone.

    Args:
        source: (images, source classes), the probabilities that the source's own head gives each image.
        classes: (images,).

    With the joint P(y, z) over images, an image's likelihood is Σ_z P(y | z) source_z (Nguyen et al., ICML 2020).
    """
    given = np.asarray(source, np.float64)
    values, index = np.unique(classes, return_inverse=True)
    joint = np.stack([given[index == number].sum(axis=0) for number in range(len(values))])
    conditional = joint / np.maximum(joint.sum(axis=0), np.finfo(np.float64).tiny)
    likelihood = (conditional[index] * given).sum(axis=1)
    return float(np.log(np.maximum(likelihood, np.finfo(np.float64).tiny)).mean())


def nleep(features: Features, classes: Classes) -> float:
    """LEEP with the clusters of a Gaussian mixture in place of a source classifier's classes (Li et al., CVPR 2021).

    The mixture has five clusters a class with diagonal covariances, on the principal components that hold 80% of the
    variance; as few components and clusters as the images allow.
    """
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    matrix = np.asarray(features, np.float64)
    reduced = PCA(KEPT_VARIANCE, svd_solver="full").fit_transform(matrix)
    clusters = min(CLUSTERS_PER_CLASS * len(np.unique(classes)), len(matrix) // 2)
    scale = max(float(reduced.var(axis=0).mean()), np.finfo(np.float64).tiny)
    mixture = GaussianMixture(clusters, covariance_type="diag", reg_covar=1e-3, random_state=0)
    return leep(mixture.fit(reduced / np.sqrt(scale)).predict_proba(reduced / np.sqrt(scale)), classes)


def source_probabilities(features: Features, weight: NDArray[np.floating], bias: NDArray[np.floating]) -> NDArray[np.float64]:
    """What the source's linear head (classes, width) makes of features (images, width): (images, classes), each row sums to 1."""
    logits = np.asarray(features, np.float64) @ np.asarray(weight, np.float64).T + bias
    return np.asarray(np.exp(logits - logsumexp(logits, axis=1, keepdims=True)))


SCORES: dict[str, Score] = {
    "logme": Score(logme, "log evidence of a Bayesian linear model", "You et al., ICML 2021"),
    "h_score": Score(h_score, "spread between classes over spread, covariance shrunk", "Ibrahim et al., ECML PKDD 2022"),
    "nleep": Score(nleep, "classes told from clusters of the features", "Li et al., CVPR 2021"),
}
