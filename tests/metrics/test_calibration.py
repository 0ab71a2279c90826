"""Brier score, expected calibration error and the reliability bins."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from pipelines.metrics.calibration import (
    brier,
    equal_count_bins,
    expected_calibration_error,
    reliability,
    weighted_brier,
    weighted_calibration_error,
)

LABELS = np.array([0, 0, 1, 1, 0, 1])
SCORES = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])


def test_the_brier_score_worked_by_hand_and_by_scikit_learn() -> None:
    by_hand = (0.01 + 0.04 + 0.49 + 0.09 + 0.64 + 0.01) / 6
    assert brier(LABELS, SCORES) == pytest.approx(by_hand)
    assert brier(LABELS, SCORES) == pytest.approx(brier_score_loss(LABELS, SCORES))


@pytest.mark.parametrize(
    ("bins", "error"),
    [
        (1, abs(3.0 / 6 - 3 / 6)),
        (2, (3 * abs(0.6 / 3 - 1 / 3) + 3 * abs(2.4 / 3 - 2 / 3)) / 6),
        (3, (2 * abs(0.15 - 0) + 2 * abs(0.5 - 1) + 2 * abs(0.85 - 0.5)) / 6),
    ],
)
def test_the_calibration_error_worked_by_hand(bins: int, error: float) -> None:
    assert expected_calibration_error(LABELS, SCORES, bins) == pytest.approx(error)


def test_unknown_labels_do_not_count() -> None:
    labels, scores = np.concatenate([LABELS, [np.nan]]), np.concatenate([SCORES, [0.5]])
    assert brier(labels, scores) == brier(LABELS, SCORES)
    assert expected_calibration_error(labels, scores, 3) == expected_calibration_error(LABELS, SCORES, 3)
    assert sum(bar.images for bar in reliability(labels, scores, 3)) == 6


def test_without_known_labels_nothing_is_defined() -> None:
    nothing = np.array([np.nan])
    assert np.isnan(brier(nothing, np.array([0.5])))
    assert np.isnan(expected_calibration_error(nothing, np.array([0.5]), 10))
    assert reliability(nothing, np.array([0.5]), 10) == []


def test_bins_hold_equally_many_images() -> None:
    scores = np.random.default_rng(0).random(1003)
    counts = np.bincount(equal_count_bins(scores, 10), minlength=10)
    assert counts.sum() == 1003
    assert counts.max() - counts.min() <= 1


def test_equal_scores_share_a_bin() -> None:
    assert len(set(equal_count_bins(np.array([0.1, 0.5, 0.5, 0.5, 0.5, 0.9]), 6)[1:5])) == 1


def test_a_reliability_bin_says_what_is_in_it() -> None:
    first, _, last = reliability(LABELS, SCORES, 3)
    assert (first.lowest, first.highest, first.observed, first.images) == (0.1, 0.2, 0.0, 2)
    assert (last.predicted, last.observed) == (pytest.approx(0.85), 0.5)


def test_weights_count_an_image_as_often_as_it_is_drawn() -> None:
    twice = np.array([[0.0, 2.0, 0.0, 0.0, 1.0, 3.0]])
    drawn = [1, 1, 4, 5, 5, 5]
    assert weighted_brier(LABELS, SCORES, twice)[0] == pytest.approx(brier(LABELS[drawn], SCORES[drawn]))
    # fixed bins: {0.1, 0.2}, {0.3, 0.7}, {0.8, 0.9}
    gaps = abs(0.2 + 0.2 - 0) + 0 + abs(0.8 + 3 * 0.9 - 3)
    assert weighted_calibration_error(LABELS, SCORES, twice, 3)[0] == pytest.approx(gaps / 6)
