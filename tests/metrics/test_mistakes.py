"""The mistakes that the packet shows."""

from __future__ import annotations

import numpy as np

from pipelines.metrics.mistakes import Mistake, worst

LABELS = np.array([[0, 1], [0, np.nan], [1, 0], [1, 1], [0, 0]])
SCORES = np.array([[0.6, 0.9], [0.9, 0.9], [0.3, 0.2], [0.4, 0.05], [0.1, 0.8]])


def test_the_surest_mistakes_come_first_over_all_outputs() -> None:
    false_positives, false_negatives = worst(LABELS, SCORES, [0.5, 0.3], 8)
    assert false_positives == [Mistake(4, 1, 0.8), Mistake(1, 0, 0.9), Mistake(0, 0, 0.6)]
    assert false_negatives == [Mistake(3, 1, 0.05), Mistake(2, 0, 0.3), Mistake(3, 0, 0.4)]


def test_no_more_are_shown_than_asked_for() -> None:
    false_positives, false_negatives = worst(LABELS, SCORES, [0.5, 0.3], 1)
    assert (len(false_positives), len(false_negatives)) == (1, 1)
    assert worst(LABELS, SCORES, [0.5, 0.3], 0) == ([], [])


def test_at_the_threshold_an_image_is_called_positive() -> None:
    false_positives, false_negatives = worst(np.array([[0], [1]]), np.array([[0.5], [0.5]]), [0.5], 8)
    assert [mistake.row for mistake in false_positives] == [0]
    assert false_negatives == []
