"""AUROC and average precision against hand-worked values and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from pipelines.metrics import discrimination
from pipelines.metrics.discrimination import auprc, auroc, macro_auroc, weighted_auprc, weighted_auroc

# Hanley and McNeil's meaning: the fraction of (positive, negative) pairs in the right order, ties counting half.
HAND = [
    ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], 1.0, 1.0),
    ([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4], 0.0, (1 / 3 + 2 / 4) / 2),
    ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 3 / 4, (1 + 2 / 3) / 2),
    ([0, 1], [0.5, 0.5], 1 / 2, 1 / 2),
    ([0, 1, 1], [0.5, 0.5, 0.9], (1 + 1 / 2) / 2, (1 + 2 / 3) / 2),
]


@pytest.fixture
def tied() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    return generator.integers(0, 2, 200).astype(float), generator.integers(0, 30, 200) / 30


@pytest.mark.parametrize(("labels", "scores", "area", "precision"), HAND)
def test_areas_worked_by_hand(labels: list[int], scores: list[float], area: float, precision: float) -> None:
    assert auroc(np.array(labels), np.array(scores)) == pytest.approx(area)
    assert auprc(np.array(labels), np.array(scores)) == pytest.approx(precision)


def test_areas_agree_with_scikit_learn_on_tied_scores(tied: tuple[np.ndarray, np.ndarray]) -> None:
    assert auroc(*tied) == pytest.approx(roc_auc_score(*tied), abs=1e-12)
    assert auprc(*tied) == pytest.approx(average_precision_score(*tied), abs=1e-12)


def test_unknown_labels_do_not_count() -> None:
    labels, scores = np.array([0, np.nan, 1, np.nan]), np.array([0.1, 0.9, 0.8, 0.0])
    assert auroc(labels, scores) == 1.0
    assert auprc(labels, scores) == 1.0


@pytest.mark.parametrize("labels", [[1.0, 1.0], [0.0, 0.0], [np.nan, np.nan], [1.0, np.nan]])
def test_an_area_is_undefined_where_a_class_is_missing(labels: list[float]) -> None:
    assert np.isnan(auroc(np.array(labels), np.array([0.2, 0.4])))
    assert np.isnan(auprc(np.array(labels), np.array([0.2, 0.4])))


def test_the_macro_mean_leaves_out_undefined_outputs() -> None:
    labels = np.array([[0, 1, 0], [1, 1, 1], [0, 1, np.nan]])
    scores = np.array([[0.1, 0.5, 0.9], [0.9, 0.5, 0.1], [0.2, 0.5, 0.5]])
    assert macro_auroc(labels, scores) == pytest.approx((1.0 + 0.0) / 2)
    assert np.isnan(macro_auroc(labels[:, 1:2], scores[:, 1:2]))


def test_weights_count_an_image_as_often_as_it_is_drawn(tied: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = tied
    times = np.random.default_rng(4).integers(0, 4, (5, len(labels)))
    drawn = [np.repeat(np.arange(len(labels)), row) for row in times]
    weights = times.astype(float)
    expected = [roc_auc_score(labels[row], scores[row]) for row in drawn]
    np.testing.assert_allclose(weighted_auroc(labels, scores, weights), expected, atol=1e-12)
    expected = [average_precision_score(labels[row], scores[row]) for row in drawn]
    np.testing.assert_allclose(weighted_auprc(labels, scores, weights), expected, atol=1e-12)


def test_the_roc_curve_turns_where_scikit_learns_does(tied: tuple[np.ndarray, np.ndarray]) -> None:
    curve = discrimination.roc_curve(*tied)
    x, y, thresholds = roc_curve(*tied, drop_intermediate=False)
    kept = np.isin(thresholds, curve.thresholds[1:])
    np.testing.assert_allclose(curve.x[1:], x[kept])
    np.testing.assert_allclose(curve.y[1:], y[kept])
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(auroc(*tied))
    assert np.isnan(curve.thresholds[0])


def test_the_roc_curve_keeps_only_the_points_where_it_turns() -> None:
    curve = discrimination.roc_curve(np.array([0, 0, 0, 1, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    assert list(zip(curve.x, curve.y, strict=True)) == [(0, 0), (0, 1), (1, 1)]
    assert curve.thresholds[1:].tolist() == [0.4, 0.1]


def test_the_precision_recall_curve_is_scikit_learns(tied: tuple[np.ndarray, np.ndarray]) -> None:
    curve = discrimination.precision_recall_curve(*tied)
    precision, recall, thresholds = precision_recall_curve(*tied)
    np.testing.assert_allclose(curve.x, recall[:-1][::-1])
    np.testing.assert_allclose(curve.y, precision[:-1][::-1])
    np.testing.assert_allclose(curve.thresholds, thresholds[::-1])
