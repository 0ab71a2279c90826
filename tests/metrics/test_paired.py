"""By how much one set of scores is better than another on the same images."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipelines.metrics.discrimination import weighted_auroc
from pipelines.metrics.intervals import Interval, bootstrap, interval
from pipelines.metrics.paired import gains

OUTPUTS = ("opacity", "effusion")


def cohort(images: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels with gaps, scores that know them, a rival that knows less, and patients of two images each."""
    generator = np.random.default_rng(4)
    labels = generator.integers(0, 2, (images, 2)).astype(float)
    labels[::9, 1] = np.nan
    truth = np.nan_to_num(labels)
    scores = truth + generator.normal(0, 0.5, labels.shape)
    rival = scores + generator.normal(0, 1, labels.shape)
    return labels, scores, rival, np.arange(images) // 2


def test_the_gain_is_the_difference_of_the_two_areas() -> None:
    labels, scores, rival, patients = cohort()
    found = gains(labels, scores, {"rival": rival}, patients, outputs=OUTPUTS, resamples=200, seed=1)["rival"]
    differences = []
    for k, name in enumerate(OUTPUTS):
        known = ~np.isnan(labels[:, k])
        difference = roc_auc_score(labels[known, k], scores[known, k]) - roc_auc_score(labels[known, k], rival[known, k])
        assert found.outputs[name].value == pytest.approx(difference)
        assert found.outputs[name].low < difference < found.outputs[name].high
        differences.append(difference)
    assert found.macro.value == pytest.approx(np.mean(differences))
    assert found.macro.low > 0


def test_over_few_patients_of_a_class_no_gain_is_sure() -> None:
    labels, scores, rival, patients = cohort()
    labels[:, 1] = patients < 4
    found = gains(labels, scores, {"rival": rival}, patients, outputs=OUTPUTS, resamples=100, seed=1)["rival"]
    assert [found.outputs[name].low is None for name in OUTPUTS] == [False, True]
    assert found.macro.low is None
    labels[:, 1] = patients < 5
    found = gains(labels, scores, {"rival": rival}, patients, outputs=OUTPUTS, resamples=100, seed=1)["rival"]
    assert found.macro.low is not None


def test_over_itself_a_model_gains_nothing_for_sure() -> None:
    labels, scores, _, patients = cohort()
    found = gains(labels, scores, {"itself": 3 * scores}, patients, outputs=OUTPUTS, resamples=100, seed=1)["itself"]
    assert found.macro == Interval(0.0, 0.0, 0.0)


def test_the_same_patients_are_drawn_for_both_so_that_the_interval_is_narrower() -> None:
    labels, scores, _, patients = cohort()
    near = scores + np.random.default_rng(1).normal(0, 0.1, scores.shape)
    labels, scores, near = labels[:, :1], scores[:, :1], near[:, :1]
    paired = gains(labels, scores, {"near": near}, patients, outputs=OUTPUTS[:1], resamples=500, seed=1)["near"].macro
    alone = [
        bootstrap(lambda weights, said=said: weighted_auroc(labels[:, 0], said[:, 0], weights)[:, None], patients, 500, seed)[1]
        for said, seed in ((scores, 1), (near, 2))
    ]
    apart = interval(0.0, alone[0] - alone[1])
    assert paired.high - paired.low < 0.6 * (apart.high - apart.low)


def test_what_a_rival_does_not_say_is_undefined_for_it_alone() -> None:
    labels, scores, rival, patients = cohort()
    silent = rival.copy()
    silent[:, 1] = np.nan
    found = gains(labels, scores, {"silent": silent, "rival": rival}, patients, outputs=OUTPUTS, resamples=100, seed=1)
    assert found["silent"].outputs["effusion"] == Interval(None, None, None, 100)
    assert found["silent"].macro == found["silent"].outputs["opacity"] == found["rival"].outputs["opacity"]
    mute = gains(labels, scores, {"mute": silent * np.nan}, patients, outputs=OUTPUTS, resamples=100, seed=1)["mute"]
    assert mute.macro.value is None
