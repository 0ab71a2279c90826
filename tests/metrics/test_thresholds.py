"""The operating point."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from pipelines.errors import TrainingError
from pipelines.metrics.thresholds import choose, spelled

# negatives 0.1 0.3 0.5 0.7, positives 0.4 0.6 0.8 0.9
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
SCORES = np.array([0.1, 0.3, 0.5, 0.7, 0.4, 0.6, 0.8, 0.9])


@pytest.mark.parametrize(
    ("rule", "value", "threshold", "sensitivity", "specificity"),
    [
        ("youden", 0.0, 0.35, 1.0, 0.5),  # equals 0.75: sensitivity 0.5, specificity 1; the sensitive one wins
        ("sensitivity", 1.0, 0.35, 1.0, 0.5),
        ("sensitivity", 0.75, 0.55, 0.75, 0.75),
        ("sensitivity", 0.5, 0.75, 0.5, 1.0),
        ("sensitivity", 0.6, 0.55, 0.75, 0.75),
        ("specificity", 1.0, 0.75, 0.5, 1.0),
        ("specificity", 0.75, 0.55, 0.75, 0.75),
        ("specificity", 0.0, 0.1, 1.0, 0.0),
    ],
)
def test_thresholds_worked_by_hand(rule: str, value: float, threshold: float, sensitivity: float, specificity: float) -> None:
    chosen = choose(LABELS, SCORES, rule, value)
    assert chosen == pytest.approx(threshold)
    called = np.greater_equal(SCORES, chosen)
    assert called[LABELS == 1].mean() == sensitivity
    assert (~called[LABELS == 0]).mean() == specificity


def test_youdens_gain_is_the_largest_on_the_roc_curve() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 300)
    scores = np.round(generator.normal(labels, 1.0), 1)
    called = scores >= choose(labels, scores, "youden", 0)
    x, y, _ = roc_curve(labels, scores)
    assert called[labels == 1].mean() - called[labels == 0].mean() == pytest.approx((y - x).max())


def test_a_threshold_separates_alike_in_single_and_double_precision() -> None:
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    scores = np.array([low, high], dtype=np.float32)
    threshold = choose(np.array([0, 1]), scores, "youden", 0)
    assert (scores >= np.float32(threshold)).tolist() == [False, True]
    assert (scores.astype(np.float64) >= threshold).tolist() == [False, True]


def test_nothing_is_called_where_only_that_reaches_the_specificity() -> None:
    scores = np.array([0.9, 0.2], dtype=np.float32)
    threshold = choose(np.array([0, 1]), scores, "specificity", 1.0)
    assert not (scores >= np.float32(threshold)).any()
    assert 0.9 < threshold < 0.901


def test_unknown_labels_do_not_move_the_threshold() -> None:
    labels = np.concatenate([LABELS, [np.nan, np.nan]])
    scores = np.concatenate([SCORES, [0.36, 0.74]])
    assert choose(labels, scores, "sensitivity", 0.75) == pytest.approx(0.55)


def test_one_class_alone_is_refused_with_the_remedy() -> None:
    with pytest.raises(TrainingError, match=r"got 2 with and 0 without; change split\.seed"):
        choose(np.array([1, 1, np.nan]), np.array([0.1, 0.2, 0.3]), "youden", 0)


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (0.5, "0.500"),
        (0.05, "0.050"),
        (0.0123, "0.012"),
        (0.000312, "0.00031"),
        (0.99982, "0.99982"),
        (3.2e-9, "3.2e-09"),
        (0.0, "0.000"),
        (1.0, "1.000"),
    ],
)
def test_a_probability_near_0_or_1_never_reads_as_0_or_1(probability: float, text: str) -> None:
    assert spelled(probability) == text


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of youden, sensitivity, specificity, got 'f1'"):
        choose(LABELS, SCORES, "f1", 0)
