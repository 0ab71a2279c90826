"""How much each shortcut knows of the label: a regularised logistic regression on its features, judged on patients it never saw.

There are two figures for each. *On the test part* it learned from the training part alone, as the model does, so that both
can be compared on the same images. *Over all patients* it is cross-fitted: each patient, of whatever part, is judged by a
regression that learned from others. That takes several times as many images to say whether the data carry a shortcut, which
is no matter of the model, and it is what raises the alarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from pipelines.config import AuditShortcutsSection
from pipelines.metrics.evaluation import Evaluation, evaluate
from pipelines.metrics.intervals import FEWEST, LEVEL, Interval, enough
from pipelines.quality.shortcuts import SHORTCUTS, Array, Pictures, Shortcut

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""How far a regression may trust its features (scikit-learn's C, on standardised features), the least first."""

FOLDS = FEWEST  # as many patients of each class as an interval asks for suffice for one in each fold
"""Also the fewest patients with, and without, a finding that a regression is fitted to."""

NEWTON_STEPS = 50
CLOSE = 1e-6

MOST = 20_000
"""Images that a regression learns from; of more, a random part, since a few hundred coefficients need no more."""


@dataclass(frozen=True)
class Knowledge:
    """What one shortcut knows of one output, as AUROC; None where it is undefined.

    Attributes:
        everyone: over the patients of all parts, cross-fitted.
        at_least: the lower end of that interval, widened to hold for all looks of the audit at once (Bonferroni).
        alarm: whether the shortcut is blind, and `at_least` lies above the threshold.
        test: on the test part, after learning from the training part.
    """

    everyone: Interval
    at_least: float | None
    alarm: bool
    test: Interval


@dataclass(frozen=True)
class Finding:
    """What one shortcut knows: of each output, and (`everyone`, `test`, as in `Knowledge`) on average over the outputs."""

    name: str
    shortcut: Shortcut
    everyone: Interval
    test: Interval
    outputs: dict[str, Knowledge]

    @property
    def alarms(self) -> tuple[str, ...]:
        """The outputs of which it knows too much."""
        return tuple(name for name, knowledge in self.outputs.items() if knowledge.alarm)

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.shortcut.title,
            "sees": self.shortcut.sees,
            "blind": self.shortcut.blind,
            "macro": {"everyone": self.everyone.to_dict(), "test": self.test.to_dict(), "alarm": bool(self.alarms)},
            "outputs": {
                name: {
                    "everyone": {**known.everyone.to_dict(), "at_least": known.at_least},
                    "test": known.test.to_dict(),
                    "alarm": known.alarm,
                }
                for name, known in self.outputs.items()
            },
        }


@dataclass(frozen=True)
class Audit:
    """What every shortcut knows.

    Attributes:
        images: labelled images, in all parts.
        patients: whom they show.
        looks: blind shortcuts times outputs: how often chance could have raised the alarm.
        alarm_above: the AUROC from which a blind shortcut knows too much.
        findings: in the order of the table.
    """

    images: int
    patients: int
    looks: int
    alarm_above: float
    findings: tuple[Finding, ...]

    @property
    def alarms(self) -> dict[str, tuple[str, ...]]:
        """The shortcuts that know too much, and of which outputs."""
        return {finding.name: finding.alarms for finding in self.findings if finding.alarms}

    def to_dict(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "patients": self.patients,
            "looks": self.looks,
            "alarm_above": self.alarm_above,
            "alarm": bool(self.alarms),
            "shortcuts": {finding.name: finding.to_dict() for finding in self.findings},
        }


def audit(
    rows: pd.DataFrame, images: Pictures, labels: NDArray[Any], outputs: Sequence[str], settings: AuditShortcutsSection
) -> tuple[Audit, dict[str, Array]]:
    """Ask every shortcut of the table for every output.

    Args:
        rows: of the index, with `part`.
        images: their pictures, as `shortcuts.pictures` gives them.
        labels: (images, outputs), 0, 1 or NaN (unknown: the image does not count for that output).
        outputs: their names.
        settings: the threshold of the alarm, and the bootstrap.

    Returns:
        The audit; and for each shortcut what it says of the images of the test part, as log odds beyond what is common,
        (test images, outputs), NaN for an output with too few patients to learn from.
    """
    labels = np.asarray(labels, np.float64)
    patients = pd.factorize(rows["patient"])[0]
    train, test = ((rows["part"] == part).to_numpy() for part in ("train", "test"))
    looks = len(outputs) * sum(shortcut.blind for shortcut in SHORTCUTS.values())
    findings, said = [], {}
    for name, shortcut in SHORTCUTS.items():
        features = shortcut.features(rows, images)
        answers = [_asked(features, column, patients, train, settings.seed) for column in labels.T]
        everyone, tested = (np.stack(columns, axis=1) for columns in zip(*answers, strict=True))
        said[name] = tested[test]
        whole = _judged(labels, everyone, patients, outputs, settings)
        part = _judged(labels[test], tested[test], patients[test], outputs, settings)
        findings.append(_finding(name, whole, part, looks, settings.alarm_above))
    return Audit(len(rows), len(np.unique(patients)), looks, settings.alarm_above, tuple(findings)), said


def _asked(features: Array, labels: Array, patients: NDArray[Any], train: NDArray[np.bool_], seed: int) -> tuple[Array, Array]:
    """What a shortcut says of every image: cross-fitted over all patients, and after learning from the training part.

    How far to trust the features is chosen by cross-fitting within the training part, for the lowest log loss.
    """
    known = ~np.isnan(labels)
    learned = np.flatnonzero(train & known)
    nothing = np.full(len(labels), np.nan)
    if not enough(labels[learned], patients[learned]):
        return nothing, nothing
    trials = [_cross_fitted(features[learned], labels[learned], patients[learned], strength, seed) for strength in STRENGTHS]
    strength = STRENGTHS[int(np.argmin([_log_loss(labels[learned], *trial) for trial in trials]))]
    everyone = nothing.copy()
    everyone[known], _ = _cross_fitted(features[known], labels[known], patients[known], strength, seed)
    return everyone, _fitted(features[learned], labels[learned], features, strength)[0]


def _cross_fitted(features: Array, labels: Array, patients: NDArray[Any], strength: float, seed: int) -> tuple[Array, Array]:
    """What `_fitted` says of each image, learning from the patients of the other folds."""
    said, common = np.empty(len(labels)), np.empty(len(labels))
    folds = _folds(labels, patients, seed)
    for fold in range(FOLDS):
        inside = folds == fold
        said[inside], common[inside] = _fitted(features[~inside], labels[~inside], features[inside], strength)
    return said, common


def _folds(labels: Array, patients: NDArray[Any], seed: int) -> NDArray[np.int64]:
    """The fold of each image: patients dealt out at random, those with the finding and those without it in equal shares."""
    _, number = np.unique(patients, return_inverse=True)
    positive = np.bincount(number, weights=labels) > 0
    shuffled = np.random.default_rng(seed).permutation(len(positive))
    dealt = np.empty(len(positive), np.int64)
    dealt[shuffled[np.argsort(positive[shuffled], kind="stable")]] = np.arange(len(positive)) % FOLDS
    folds: NDArray[np.int64] = dealt[number]
    return folds


def _fitted(features: Array, labels: Array, wanted: Array, strength: float) -> tuple[Array, float]:
    """The log odds that a logistic regression on standardised features gives to the wanted rows, less those of the mean row.

    Those of the mean row are returned beside them: they say how common the finding is where the regression learned, so that
    with them the answers of several folds could not be put in one order. (Folds with more of it in leave less of it out.)
    """
    if len(features) > MOST:
        drawn = np.random.default_rng(len(features)).permutation(len(features))[:MOST]
        features, labels = features[drawn], labels[drawn]
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    varies = deviation > 1e-9
    mean, deviation = mean[varies], deviation[varies]
    coefficients = _regression((features[:, varies] - mean) / deviation, labels, strength)
    return (wanted[:, varies] - mean) / deviation @ coefficients[:-1], float(coefficients[-1])


def _regression(features: Array, labels: Array, strength: float) -> Array:
    """Coefficients, the intercept last, of the ridge logistic regression: Newton's method, in halved steps where it overshoots.

    Minimises the sum of the log losses + |coefficients|² / (2 · strength), and lets the intercept go free.
    """
    design = np.column_stack([features, np.ones(len(features))])
    penalty = np.append(np.full(features.shape[1], 1 / strength), 1e-6)

    def loss(coefficients: Array) -> float:
        said = design @ coefficients
        return float(np.sum(np.logaddexp(0, said) - labels * said) + penalty @ coefficients**2 / 2)

    coefficients = np.zeros(design.shape[1])
    for _ in range(NEWTON_STEPS):
        chance = expit(design @ coefficients)
        slope = design.T @ (chance - labels) + penalty * coefficients
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, slope)
        while loss(coefficients - step) > loss(coefficients) and np.abs(step).max() > CLOSE:
            step = step / 2
        coefficients = coefficients - step
        if np.abs(step).max() <= CLOSE:
            break
    return coefficients


def _log_loss(labels: Array, said: Array, common: Array) -> float:
    return float(np.mean(np.logaddexp(0, np.where(labels == 1, -1, 1) * (said + common))))


def _judged(
    labels: Array, scores: Array, patients: NDArray[Any], outputs: Sequence[str], settings: AuditShortcutsSection
) -> Evaluation:
    """The AUROC with its interval; undefined where a shortcut has nothing to say."""
    return evaluate(
        np.where(np.isnan(scores), np.nan, labels),
        scores,
        patients,
        outputs=outputs,
        thresholds=[0.5] * len(outputs),
        bins=1,
        resamples=settings.bootstrap,
        seed=settings.seed,
        metrics=("auroc",),
    )


def _finding(name: str, everyone: Evaluation, test: Evaluation, looks: int, alarm_above: float) -> Finding:
    outputs = {}
    for whole, part in zip(everyone.outputs, test.outputs, strict=True):
        at_least = _widened(whole.metrics["auroc"], looks)
        alarm = SHORTCUTS[name].blind and at_least is not None and at_least > alarm_above
        outputs[whole.name] = Knowledge(whole.metrics["auroc"], at_least, alarm, part.metrics["auroc"])
    return Finding(name, SHORTCUTS[name], everyone.macro["auroc"], test.macro["auroc"], outputs)


def _widened(interval: Interval, looks: int) -> float | None:
    """The lower end that holds for all looks at once: its distance from the value, stretched as for a normal distribution."""
    if interval.value is None or interval.low is None:
        return None
    one, all_of_them = (NormalDist().inv_cdf(1 - (1 - LEVEL) / 2 / count) for count in (1, looks))
    return interval.value - (interval.value - interval.low) * all_of_them / one
