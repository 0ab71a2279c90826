"""Differences over patients and seeds: as large as they are, as wide as both leave open, and held together over all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipelines.metrics.crossed import Crossed, _of_seeds, crossed
from pipelines.metrics.intervals import Interval

PATIENTS = 60


def cohort(
    seed: int, contenders: int = 3, seeds: int = 5, luck: float = 0.0, gains: tuple[float, ...] = ()
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Contenders of the same worth, but for `gains`; `luck` is by how much one training differs from the next."""
    random = np.random.default_rng(seed)
    labels, shared = (np.arange(PATIENTS) % 2).astype(float)[:, None], random.normal(size=(PATIENTS, 1))
    scores = {}
    for number in range(contenders):
        gain = gains[number] if gains else 0.0
        runs = [(1.5 + gain + luck * random.normal()) * labels + 0.7 * shared for _ in range(seeds)]
        scores[str(number)] = np.array([run + 0.7 * random.normal(size=(PATIENTS, 1)) for run in runs])
    return labels, scores, np.arange(PATIENTS)


def compared(cohort: tuple[np.ndarray, dict[str, np.ndarray], np.ndarray], resamples: int = 200, seed: int = 1) -> Crossed:
    labels, scores, patients = cohort
    return crossed(labels, scores, patients, rivals=[list(scores)], resamples=resamples, seed=seed)


def test_a_difference_is_that_of_the_mean_areas_over_the_seeds() -> None:
    labels, scores, patients = cohort(1, luck=0.3)
    found = compared((labels, scores, patients))
    areas = {name: np.mean([roc_auc_score(labels[:, 0], run[:, 0]) for run in runs]) for name, runs in scores.items()}
    for name, area in areas.items():
        assert found.aurocs[name].value == pytest.approx(area)
        assert found.aurocs[name].low < area < found.aurocs[name].high
    for one, other in combinations(areas, 2):
        assert found.difference(one, other).value == pytest.approx(areas[one] - areas[other])


def test_a_pair_is_the_same_the_other_way_round() -> None:
    found = compared(cohort(1))
    one, other = found.difference("0", "1"), found.difference("1", "0")
    assert (one.value, one.low, one.high) == (-other.value, -other.high, -other.low)


@pytest.mark.parametrize(("seeds", "luck"), [(1, 0.0), (2, 0.6), (3, 0.6), (5, 0.6), (5, 0.0)])
def test_equals_are_rarely_told_apart_even_where_the_seed_decides(seeds: int, luck: float) -> None:
    """Of 100 comparisons of four equals, each with all its six pairs, at most 5% err; up to 10 are within chance.

    Without the seeds most would (see `test_with_one_seed…`), and with Student's t for a single pair 7 to 17 where seeds differ.
    """
    wrong = 0
    for number in range(100):
        made = cohort(number, contenders=4, seeds=seeds, luck=luck)
        differences = compared(made, resamples=150, seed=number).differences.values()
        wrong += any(difference.low > 0 or difference.high < 0 for difference in differences)
    assert wrong <= 10


def test_the_seeds_share_is_students_t_for_as_many_pairs() -> None:
    """Scores that are right in every resample or wrong in every one leave nothing to the patients: AUROC 1, 1, 0 and 1, 1, 1."""
    labels = (np.arange(PATIENTS) % 2).astype(float)[:, None]
    scores = {"0": np.array([labels, labels, 1 - labels]), "1": np.array([labels, labels, labels])}
    found = compared((labels, scores, np.arange(PATIENTS)))
    # a standard error of 1/3, and t(0.975) with two degrees of freedom is 4.303: the ends are beyond what an AUROC can be
    assert found.difference("0", "1") == Interval(pytest.approx(-1 / 3), -1.0, 1.0)
    assert found.aurocs["0"] == Interval(pytest.approx(2 / 3), 0.0, 1.0)
    ends = _of_seeds(np.array([[0.9, 0.8, 0.7]]), 1), _of_seeds(np.array([[0.9, 0.8, 0.7]]), 3)
    assert np.concatenate(ends) == pytest.approx([0.1 / 3**0.5 * 4.3027, 0.1 / 3**0.5 * 7.6488], rel=1e-4)


def test_with_one_seed_its_luck_is_taken_for_a_difference() -> None:
    """What the verdict warns of; it also shows that the cohort above would find intervals out that ignore the seeds."""
    wrong = 0
    for number in range(60):
        differences = compared(cohort(number, seeds=1, luck=0.6), resamples=150, seed=number).differences.values()
        wrong += any(difference.low > 0 or difference.high < 0 for difference in differences)
    assert wrong > 20


def test_a_real_difference_is_found() -> None:
    found = compared(cohort(3, contenders=2, luck=0.1, gains=(1.5, 0.0)))
    assert found.difference("0", "1").low > 0


def test_more_comparisons_make_each_interval_wider() -> None:
    labels, scores, patients = cohort(2, contenders=8, luck=0.2)
    few = crossed(labels, scores, patients, rivals=[["0", "1"]], resamples=400, seed=1).difference("0", "1")
    many = crossed(labels, scores, patients, rivals=[list(scores)], resamples=400, seed=1).difference("0", "1")
    assert many.low < few.low < few.high < many.high


def test_what_gives_the_same_answers_differs_by_nothing() -> None:
    labels, scores, patients = cohort(2, contenders=2)
    found = compared((labels, {**scores, "again": scores["0"]}, patients))
    assert found.difference("again", "0") == Interval(0.0, 0.0, 0.0)
    assert found.difference("again", "1") == found.difference("0", "1")


@pytest.mark.parametrize(("patients", "sure"), [(1, False), (4, False), (5, True)])
def test_on_few_patients_of_a_class_nothing_is_told_apart(patients: int, sure: bool) -> None:
    labels, scores, _ = cohort(1, gains=(0.0, 3.0, 6.0))
    whose = np.arange(PATIENTS) // 2 % patients  # each has images of both classes
    found = compared((labels, scores, whose))
    ends = [*found.aurocs.values(), *found.differences.values()]
    assert {each.low is not None for each in ends} == {each.high is not None for each in ends} == {sure}
    assert all(each.value is not None for each in ends)


def test_only_rivals_are_compared_and_each_group_holds_together_by_itself() -> None:
    labels, scores, patients = cohort(2, contenders=4, luck=0.2)
    found = crossed(labels, scores, patients, rivals=[["0", "1"], ["2", "3"]], resamples=100, seed=1)
    assert set(found.differences) == {("0", "1"), ("2", "3")}
    alone = crossed(labels, scores, patients, rivals=[["0", "1"]], resamples=100, seed=1)
    assert found.difference("0", "1") == alone.difference("0", "1")


def test_the_mean_is_over_the_outputs_that_have_both_classes() -> None:
    labels, scores, patients = cohort(2)
    twice = np.concatenate([labels, np.ones_like(labels)], axis=1)
    double = {name: np.concatenate([runs, runs], axis=2) for name, runs in scores.items()}
    assert compared((twice, double, patients)).aurocs["0"].value == compared((labels, scores, patients)).aurocs["0"].value
    nothing = compared((np.ones_like(labels), scores, patients))
    assert nothing.aurocs["0"].value is None
    assert nothing.difference("0", "1").value is None
