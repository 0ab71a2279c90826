"""Agreement of classes, against scikit-learn, also for resamples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics

from pipelines.metrics import grades

RANDOM = np.random.default_rng(4)
TRUTH = RANDOM.integers(0, 4, 50).astype(float)
SAID = np.clip(TRUTH + RANDOM.integers(-1, 3, 50), 0, 3)
TIMES = RANDOM.integers(0, 4, (5, 50))


def test_kappa_is_that_of_the_images_drawn() -> None:
    found = grades.quadratic_kappa(TRUTH, SAID, TIMES.astype(float), 4)
    expected = [
        metrics.cohen_kappa_score(np.repeat(TRUTH, times), np.repeat(SAID, times), weights="quadratic", labels=range(4))
        for times in TIMES
    ]
    assert found == pytest.approx(expected)


def test_kappa_is_not_defined_where_chance_cannot_be_wrong() -> None:
    assert math.isnan(grades.quadratic_kappa(np.ones(3), np.ones(3), np.ones((1, 3)), 4)[0])


def test_accuracy_and_distance_by_hand() -> None:
    truth, said, weights = np.array([0.0, 1, 3, 2]), np.array([0.0, 3, 2, 2]), np.array([[1.0, 1, 1, 1], [0, 2, 1, 0]])
    assert grades.accuracy(truth, said, weights).tolist() == [0.5, 0.0]
    assert grades.mean_distance(truth, said, weights).tolist() == pytest.approx([0.75, 5 / 3])


def test_the_auroc_of_the_steps_is_their_mean_where_both_sides_are_there() -> None:
    truth = np.where(TRUTH == 3, 2, TRUTH)
    above = RANDOM.random((50, 3))
    expected = [metrics.roc_auc_score(truth > k, above[:, k]) for k in (0, 1)]
    assert grades.step_auroc(truth, above, np.ones((1, 50)))[0] == pytest.approx(np.mean(expected))


def test_the_confusion_counts_true_classes_in_rows() -> None:
    assert grades.confusion(np.array([0.0, 0, 1]), np.array([1.0, 0, 1]), 2).tolist() == [[1, 1], [0, 1]]
