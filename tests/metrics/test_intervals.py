"""The patient-level bootstrap."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pipelines.metrics.discrimination import auroc, weighted_auroc
from pipelines.metrics.evaluation import evaluate
from pipelines.metrics.intervals import Interval, bootstrap, interval, resampled


def width(labels: np.ndarray, scores: np.ndarray, patients: np.ndarray) -> float:
    _, draws = bootstrap(lambda weights: weighted_auroc(labels, scores, weights)[:, None], patients, 400, 5)
    low, high = np.nanquantile(draws[:, 0], [0.025, 0.975])
    return float(high - low)


def test_images_of_one_patient_are_drawn_together() -> None:
    patients = np.array(["b", "a", "b", "c", "a"])
    weights = np.concatenate(list(resampled(patients, 300, 1)))
    assert weights.shape == (300, 5)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)
    assert abs(weights[:, 3].mean() - 1) < 0.2


def test_the_same_seed_gives_the_same_draws_and_another_seed_others() -> None:
    patients = np.arange(50)
    first, again, other = (np.concatenate(list(resampled(patients, 20, seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_copies_of_an_image_add_no_evidence_when_patients_are_drawn() -> None:
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 2, 60).astype(float)
    scores = generator.normal(labels, 1.2)
    once = width(labels, scores, np.arange(60))
    copied = np.tile(labels, 4), np.tile(scores, 4)
    by_patient = width(*copied, np.tile(np.arange(60), 4))
    by_image = width(*copied, np.arange(240))
    assert by_patient == pytest.approx(once)
    assert by_image < 0.65 * by_patient  # about a half: four times the evidence that there is


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(150):
        mean = generator.normal(size=40)
        _, draws = bootstrap(lambda w, mean=mean: (w @ mean / w.sum(axis=1))[:, None], np.arange(40), 300, 3)
        found = interval(float(mean.mean()), draws[:, 0])
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    assert 0.87 <= covered / 150 <= 0.99


def test_undefined_resamples_are_skipped_and_counted() -> None:
    draws = np.array([0.5, np.nan, 0.7, 0.6, np.nan, 0.6])
    found = interval(0.6, draws)
    assert found.skipped == 2
    assert found.low == pytest.approx(np.quantile([0.5, 0.6, 0.6, 0.7], 0.025))


def test_a_value_without_enough_resamples_has_no_ends() -> None:
    assert interval(0.6, np.array([0.5, np.nan, np.nan])) == Interval(0.6, None, None, 2)
    assert interval(float("nan"), np.array([np.nan])) == Interval(None, None, None, 1)


def test_a_thousand_resamples_of_five_thousand_images_take_seconds() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (5000, 1)).astype(float)
    scores = 1 / (1 + np.exp(-generator.normal(labels * 2 - 1, 1.5)))
    started = time.process_time()
    found = evaluate(
        labels,
        scores,
        generator.integers(0, 3000, 5000),
        outputs=["opacity"],
        thresholds=[0.5],
        bins=10,
        resamples=1000,
        seed=1,
    )
    assert time.process_time() - started < 20
    area = found.macro["auroc"]
    assert area.value == pytest.approx(auroc(labels[:, 0], scores[:, 0]))
    assert area.low is not None
    assert area.high is not None
    assert 0.01 < area.high - area.low < 0.04
