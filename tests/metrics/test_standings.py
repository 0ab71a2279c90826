"""Candidates are ordered by AUROC, and told apart only where the patients tell them apart."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.metrics.standings import standings


def cohort(patients: int = 80) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    random = np.random.default_rng(4)
    labels = (np.arange(2 * patients) // 2 % 2).astype(float)[:, None]
    noise = random.normal(size=(3, 2 * patients, 1))
    scores = {"poor": 0.5 * labels + noise[0], "good": 3 * labels + noise[1], "as good": 3 * labels + noise[2]}
    return labels, scores, np.arange(2 * patients) // 2


def test_the_best_stands_first_and_what_cannot_be_told_apart_from_it_is_tied() -> None:
    labels, scores, patients = cohort()
    found = standings(labels, scores, patients, outputs=("finding",), resamples=200, seed=1)
    assert {standing.name for standing in found[:2]} == {"good", "as good"}
    assert found[2].name == "poor"
    assert [standing.tied for standing in found] == [True, True, False]
    assert found[0].behind.value == 0
    assert found[2].behind.value == pytest.approx(found[0].auroc.value - found[2].auroc.value)


def test_images_that_a_candidate_says_nothing_of_count_for_none() -> None:
    labels, scores, patients = cohort()
    silent = {**scores, "good": np.where(patients[:, None] < 10, np.nan, scores["good"])}
    expected = {name: answers[20:] for name, answers in scores.items()}
    found = standings(labels, silent, patients, outputs=("finding",), resamples=100, seed=1)
    fewer = standings(labels[20:], expected, patients[20:], outputs=("finding",), resamples=100, seed=1)
    assert [standing.auroc.value for standing in found] == [standing.auroc.value for standing in fewer]


def test_where_one_class_is_missing_nothing_is_claimed() -> None:
    labels, scores, patients = cohort()
    found = standings(np.ones_like(labels), scores, patients, outputs=("finding",), resamples=100, seed=1)
    assert all(standing.auroc.value is None and standing.tied for standing in found)
