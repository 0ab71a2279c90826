"""Classifiers on cached features that a solver finds in one go: logistic regression, linear SVM and nearest neighbours.

What they need to be told (the strength of the regularisation, the number of neighbours) is chosen by cross-validation
inside the training part, whole patients at a time: the candidate with the lowest cross-entropy on held-out patients, at
the prevalence of the training part. Each ends as a plain head of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipelines.models import heads
from pipelines.transfer.calibration import Calibration, calibrate
from pipelines.transfer.folds import Fold, folds
from pipelines.transfer.solvers import SOLVERS, Linear

Array = NDArray[np.float64]
Predict = Callable[[Array], Array]

NEIGHBOURS = (1, 3, 5, 10, 20, 50)
UNTOLD = {"logistic_regression": 100.0, "linear_svm": 100.0, "knn": 5}  # where there are too few patients to choose
LEAST = 1e-6  # probability, so that one bold mistake cannot make a cross-entropy infinite


@dataclass(frozen=True)
class Examples:
    """Cached features of the training part.

    Attributes:
        features: (images, width).
        labels: (images, outputs), 0, 1 or NaN; for exclusive outputs one-hot rows or rows of NaN.
        patients: (images,), numbers.
        exclusive: of the outputs one is true.
        weights: (outputs,), of a positive, or of each class; None weighs all alike.
    """

    features: Array
    labels: Array
    patients: NDArray[np.int64]
    exclusive: bool
    weights: Array | None = None

    def some(self, rows: NDArray[np.int64]) -> Examples:
        return Examples(self.features[rows], self.labels[rows], self.patients[rows], self.exclusive, self.weights)


@dataclass(frozen=True)
class Solved:
    """A head, and how it was found.

    Attributes:
        head: takes features (images, width); its logits are raised by the class weights (`Loss.shift`) if `shifted`.
        loss: cross-entropy on held-out patients of the training part; NaN where there were too few to hold any out.
        details: for the model card.
    """

    head: nn.Module
    shifted: bool
    loss: float
    details: Mapping[str, Any]


def solve(kind: str, examples: Examples, *, dropout: float, regularisation: float | None, neighbours: int | None) -> Solved:
    """Find the head of this kind for the training part.

    Args:
        kind: logistic_regression, linear_svm or knn.
        examples: the training part.
        dropout: of the head, should it learn on.
        regularisation: strength for the linear ones; None chooses it.
        neighbours: of kNN; None chooses them.
    """
    parts = folds(examples.labels, examples.patients)
    given = neighbours if kind == "knn" else regularisation
    candidates = (given,) if given else _candidates(kind, examples) if parts else (UNTOLD[kind],)
    if kind == "knn":
        return _nearest(examples, parts, [int(candidate) for candidate in candidates], chosen=not given and bool(parts))
    return _linear(kind, examples, parts, candidates, dropout, chosen=not given and bool(parts))


def held_out(kind: str, examples: Examples) -> Array:
    """Logits (images, outputs) of every image by a probe that was fitted without its patient; NaN with too few patients.

    What the probe needs to be told is what gives the lowest cross-entropy there, so that the logits flatter it a little,
    alike for all networks that are compared by them. Those of several folds stand beside each other, and a fold with more of
    a finding left in leaves less of it out: of a few dozen images, noise comes out a little below an AUROC of 0.5 (0.46 of 24).

    Args:
        kind: logistic_regression or knn.
        examples: without class weights.
    """
    parts = folds(examples.labels, examples.patients)

    def fitting(candidate: float) -> Callable[[Examples], Predict]:
        if kind == "knn":
            return lambda part: _bank(part, int(candidate))[1]
        solver = SOLVERS[kind]
        return lambda part: solver.fit(part.features, part.labels, None, candidate, exclusive=part.exclusive).logits

    found = [_held_out(examples, parts, fitting(candidate)) for candidate in _candidates(kind, examples)]
    return found[_lowest([_cross_entropy(examples, logits) for logits in found])]


def _candidates(kind: str, examples: Examples) -> Sequence[float]:
    if kind != "knn":
        return SOLVERS[kind].strengths
    most = max(1, len(examples.features) // 2)
    return [number for number in NEIGHBOURS if number <= most]


def _nearest(examples: Examples, parts: Sequence[Fold], candidates: Sequence[int], *, chosen: bool) -> Solved:
    def judged(number: int) -> float:
        return _cross_entropy(examples, _held_out(examples, parts, lambda part: _bank(part, number)[1]))

    losses = [judged(number) for number in candidates]
    best = _lowest(losses)
    head, _ = _bank(examples, candidates[best])
    details = {"neighbours": candidates[best], "images_in_bank": len(examples.features), **_how(losses[best], parts, chosen)}
    return Solved(head, False, losses[best], details)


def _bank(examples: Examples, neighbours: int) -> tuple[heads.Neighbours, Predict]:
    features, labels = (torch.from_numpy(array.astype(np.float32)) for array in (examples.features, examples.labels))
    (images, width), outputs = features.shape, labels.shape[1]
    head = heads.Neighbours(images, width, outputs, neighbours=neighbours, exclusive=examples.exclusive)
    head.remember(features, labels)

    def predict(features: Array) -> Array:
        with torch.no_grad():
            logits: Array = head(torch.from_numpy(features.astype(np.float32))).double().numpy()
        return logits

    return head, predict


def _linear(
    kind: str, examples: Examples, parts: Sequence[Fold], candidates: Sequence[float], dropout: float, *, chosen: bool
) -> Solved:
    solver = SOLVERS[kind]

    def fitted(part: Examples, strength: float) -> Linear:
        return solver.fit(part.features, part.labels, part.weights, strength, exclusive=part.exclusive)

    def judged(strength: float) -> tuple[float, Calibration]:
        """Loss on held-out patients, and what turns the decision values into logits at the prevalence there."""
        outside = _held_out(examples, parts, lambda part: fitted(part, strength).logits)
        if solver.calibrated:
            calibration = calibrate(outside, examples.labels, exclusive=examples.exclusive)
        else:
            calibration = Calibration.lowered(examples.weights, examples.labels.shape[1])
        return _cross_entropy(examples, calibration(outside)), calibration

    found = [judged(strength) for strength in candidates]
    best = _lowest([loss for loss, _ in found])
    loss, calibration = found[best]
    linear = fitted(examples, candidates[best])
    if solver.calibrated:
        # so that every head stands where a loss with class weights would have put it
        linear = calibration.into(linear).raised(examples.weights)
    details = {"regularisation": candidates[best], **_how(loss, parts, chosen)}
    return Solved(_head(linear, dropout), True, loss, details)


def _head(linear: Linear, dropout: float) -> nn.Module:
    outputs, width = linear.weight.shape
    head = heads.linear(width, outputs, dropout)
    last = heads.last_layer(head)
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(linear.weight))
        last.bias.copy_(torch.from_numpy(linear.bias))
    return head


def _held_out(examples: Examples, parts: Sequence[Fold], fit: Callable[[Examples], Predict]) -> Array:
    """Logits (images, outputs) of every image by what was fitted without its patient; NaN where there is none."""
    outside = np.full(examples.labels.shape, np.nan)
    for fold in parts:
        outside[fold.held_out] = fit(examples.some(fold.kept))(examples.features[fold.held_out])
    return outside


def _cross_entropy(examples: Examples, logits: Array) -> float:
    """Mean over the known labels of images that were held out; NaN if none was."""
    known = ~np.isnan(examples.labels) & ~np.isnan(logits)
    if not known.any():
        return float("nan")
    labels = np.where(known, examples.labels, 0.0)
    if examples.exclusive:
        shares = torch.from_numpy(np.where(known, logits, 0.0)).softmax(dim=1).numpy()
        return float(-np.log(np.clip(shares, LEAST, 1))[labels == 1].mean())
    shares = np.clip(torch.from_numpy(logits[known]).sigmoid().numpy(), LEAST, 1 - LEAST)
    truth = labels[known]
    return float(-(truth * np.log(shares) + (1 - truth) * np.log1p(-shares)).mean())


def _lowest(losses: Sequence[float]) -> int:
    """The first of the lowest; 0 where nothing could be judged."""
    return int(np.nanargmin(losses)) if not np.isnan(losses).all() else 0


def _how(loss: float, parts: Sequence[Fold], chosen: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"chosen_by": f"cross-validation over patients, {len(parts)} folds" if chosen else "setting"}
    if not chosen and not parts:
        found["chosen_by"] = "default, since a class has fewer than two patients"
    return found if np.isnan(loss) else {**found, "cross_entropy_on_held_out_patients": round(loss, 6)}
