from __future__ import annotations

import numpy as np
import pytest

from pipelines.transfer.calibration import LEAST_SLOPE, Calibration, calibrate
from pipelines.transfer.solvers import Linear

NAN = float("nan")


def test_platts_targets_keep_a_perfect_separation_finite() -> None:
    """Two values, three images each: the logits that fit are those of the targets 4/5 and 1/5."""
    values, labels = np.array([[1.0], [-1.0]] * 3), np.array([[1.0], [0.0]] * 3)
    found = calibrate(values, labels, exclusive=False)
    assert found(np.array([[1.0]])).item() == pytest.approx(np.log(4), abs=1e-3)
    assert found(np.array([[-1.0]])).item() == pytest.approx(-np.log(4), abs=1e-3)


def test_calibrated_values_have_the_frequency_that_they_say() -> None:
    generator = np.random.default_rng(3)
    values = generator.normal(size=(40000, 1))
    labels = (generator.random((40000, 1)) < 1 / (1 + np.exp(-(2 * values - 1)))).astype(float)
    found = calibrate(values, labels, exclusive=False)
    assert (found.slope.item(), found.bias.item()) == pytest.approx((2, -1), abs=0.06)


def test_values_against_the_labels_never_turn_the_order_round() -> None:
    found = calibrate(np.array([[1.0], [-1.0]] * 9), np.array([[0.0], [1.0]] * 9), exclusive=False)
    assert found.slope.item() == pytest.approx(LEAST_SLOPE)


def test_classes_share_a_slope_and_unknown_rows_do_not_count() -> None:
    generator = np.random.default_rng(4)
    values = generator.normal(size=(30000, 3))
    shares = np.exp(1.5 * values + np.array([0.5, 0.0, -0.5]))
    shares /= shares.sum(axis=1, keepdims=True)
    labels = np.eye(3)[(shares.cumsum(axis=1) < generator.random((30000, 1))).sum(axis=1).clip(max=2)]
    labels[::10], values[1::10] = NAN, NAN
    found = calibrate(values, labels, exclusive=True)
    assert found.slope == pytest.approx([1.5] * 3, abs=0.07)
    assert found.bias - found.bias.mean() == pytest.approx([0.5, 0, -0.5], abs=0.07)


def test_a_calibration_folds_into_the_linear_layer() -> None:
    linear, calibration = Linear(np.ones((2, 3)), np.array([1.0, 2.0])), Calibration(np.array([2.0, 3.0]), np.array([0.5, -0.5]))
    features = np.random.default_rng(1).normal(size=(4, 3))
    assert calibration.into(linear).logits(features) == pytest.approx(calibration(linear.logits(features)))


def test_without_any_image_held_out_nothing_changes() -> None:
    found = calibrate(np.full((2, 1), NAN), np.array([[0.0], [1.0]]), exclusive=False)
    assert found(np.array([[3.0]])).item() == 3.0


def test_perfectly_separate_classes_stay_finite_too_by_the_like_targets() -> None:
    """Three images of each of three classes: 4/6 for the true class and 1/6 for each other one."""
    values, labels = 10 * np.tile(np.eye(3), (3, 1)), np.tile(np.eye(3), (3, 1))
    found = calibrate(values, labels, exclusive=True)
    logits = found(values[:1])[0]
    assert np.exp(logits) / np.exp(logits).sum() == pytest.approx([4 / 6, 1 / 6, 1 / 6], abs=1e-3)


def test_two_exclusive_classes_are_calibrated_as_platt_calibrates_one_output() -> None:
    generator = np.random.default_rng(5)
    value = generator.normal(size=30)
    labels = (value + generator.normal(size=30) > 0.3).astype(float)
    one = calibrate(value[:, None], labels[:, None], exclusive=False)(value[:, None])[:, 0]
    both = calibrate(np.stack([-value / 2, value / 2], 1), np.stack([1 - labels, labels], 1), exclusive=True)
    logits = both(np.stack([-value / 2, value / 2], 1))
    assert logits[:, 1] - logits[:, 0] == pytest.approx(one, abs=1e-2)
