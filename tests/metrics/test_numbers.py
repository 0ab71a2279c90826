"""Errors and orders of numbers, against scikit-learn and scipy, also for resamples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from pipelines.metrics import numbers
from pipelines.metrics.discrimination import auroc

NAN = float("nan")
RANDOM = np.random.default_rng(3)
TRUTH = np.round(RANDOM.normal(50, 10, 40))
SAID = np.round(TRUTH + RANDOM.normal(0, 8, 40))
TIMES = RANDOM.integers(0, 4, (5, 40))
REFERENCES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "mae": (numbers.mean_absolute_error, metrics.mean_absolute_error),
    "rmse": (numbers.root_mean_squared_error, metrics.root_mean_squared_error),
    "r2": (numbers.explained, metrics.r2_score),
    "spearman": (numbers.spearman, lambda truth, said: stats.spearmanr(truth, said).statistic),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_a_resample_counts_as_the_images_that_it_draws(name: str) -> None:
    ours, reference = REFERENCES[name]
    found = ours(TRUTH, SAID, TIMES.astype(float))
    expected = [reference(np.repeat(TRUTH, times), np.repeat(SAID, times)) for times in TIMES]
    assert found == pytest.approx(expected, rel=1e-9)


def test_what_is_not_defined_is_nan() -> None:
    same, weights = np.full(4, 0.1), np.ones((1, 4))
    moving = np.arange(4.0)
    assert math.isnan(numbers.explained(same, moving, weights)[0])
    assert math.isnan(numbers.spearman(same, moving, weights)[0])
    assert math.isnan(numbers.spearman(moving, same, weights)[0])
    assert math.isnan(numbers.concordance(same, moving))


def pairs(truth: Any, said: Any) -> float:
    """By counting every pair."""
    points = [
        0.5 if said[one] == said[other] else float(said[one] > said[other])
        for one in range(len(truth))
        for other in range(len(truth))
        if truth[one] > truth[other]
    ]
    return float(np.mean(points))


def test_concordance_is_the_share_of_pairs_in_order() -> None:
    assert numbers.concordance(TRUTH, SAID) == pytest.approx(pairs(TRUTH, SAID))
    assert numbers.concordance(np.append(TRUTH, NAN), np.append(SAID, 1e9)) == pytest.approx(pairs(TRUTH, SAID))
    assert numbers.concordance(TRUTH, TRUTH) == 1
    assert numbers.concordance(TRUTH, -TRUTH) == pytest.approx(0)
    assert numbers.concordance(TRUTH, np.zeros(40)) == 0.5


def test_concordance_with_two_values_is_the_auroc() -> None:
    labels = (TRUTH > 52).astype(float)
    assert numbers.concordance(labels, SAID) == pytest.approx(auroc(labels, SAID))
