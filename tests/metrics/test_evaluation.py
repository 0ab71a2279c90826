"""All metrics of all outputs in one pass."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from pipelines.metrics.evaluation import METRICS, Evaluation, evaluate

# called positive from 0.5: 3 true positives, 1 false negative, 1 false positive, 5 true negatives
LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], dtype=float)
SCORES = np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.4, 0.3, 0.2, 0.1, 0.0])
BY_HAND = {"sensitivity": 3 / 4, "specificity": 5 / 6, "ppv": 3 / 4, "npv": 5 / 6}


def judged(labels: np.ndarray, scores: np.ndarray, patients: np.ndarray | None = None, threshold: float = 0.5) -> Evaluation:
    outputs = [f"finding{k}" for k in range(labels.shape[1])]
    patients = np.arange(len(labels)) if patients is None else patients
    thresholds = [threshold] * len(outputs)
    return evaluate(labels, scores, patients, outputs=outputs, thresholds=thresholds, bins=5, resamples=200, seed=1)


@pytest.mark.parametrize("name", BY_HAND)
def test_the_operating_point_worked_by_hand(name: str) -> None:
    found = judged(LABELS[:, None], SCORES[:, None]).outputs[0]
    assert found.metrics[name].value == pytest.approx(BY_HAND[name])
    assert (found.positives, found.negatives, found.threshold) == (4, 6, 0.5)


def test_a_score_at_the_threshold_counts_as_positive() -> None:
    found = judged(LABELS[:, None], SCORES[:, None], threshold=0.7).outputs[0]
    assert found.metrics["sensitivity"].value == pytest.approx(3 / 4)


def test_the_operating_point_agrees_with_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels, scores = generator.integers(0, 2, 80).astype(float), generator.random(80)
    (tn, fp), (fn, tp) = confusion_matrix(labels, scores >= 0.3)
    found = judged(labels[:, None], scores[:, None], threshold=0.3).outputs[0].metrics
    expected = {"sensitivity": tp / (tp + fn), "specificity": tn / (tn + fp), "ppv": tp / (tp + fp), "npv": tn / (tn + fn)}
    assert {name: found[name].value for name in expected} == pytest.approx(expected)


def test_every_interval_holds_its_value() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 120).astype(float)
    scores = np.clip(0.3 * labels + 0.7 * generator.random(120), 0, 1)
    for name, found in judged(labels[:, None], scores[:, None]).macro.items():
        if name != "ece":  # resampling adds noise, which only raises it
            assert found.low is not None, name
            assert found.low <= found.value <= found.high, name


def test_unknown_labels_do_not_count_for_their_output() -> None:
    labels = np.stack([LABELS, LABELS], axis=1)
    scores = np.stack([SCORES, 1 - SCORES], axis=1)
    labels[[0, 9], 1] = np.nan
    first, second = judged(labels, scores).outputs
    assert (second.positives, second.negatives) == (3, 5)
    assert first.metrics["auroc"].value == pytest.approx(roc_auc_score(LABELS, SCORES))
    assert second.metrics["auroc"].value == pytest.approx(roc_auc_score(LABELS[1:9], 1 - SCORES[1:9]))


def test_the_macro_mean_is_over_the_outputs_where_a_metric_is_defined() -> None:
    labels = np.stack([LABELS, LABELS, np.ones(10)], axis=1)
    scores = np.stack([SCORES, 1 - SCORES, SCORES], axis=1)
    found = judged(labels, scores)
    assert found.macro["auroc"].value == pytest.approx(0.5)
    assert found.outputs[2].metrics["auroc"].value is None
    assert found.outputs[2].metrics["sensitivity"].value == pytest.approx(0.4)


def test_undefined_metrics_are_null_in_json_and_never_nan() -> None:
    found = judged(np.ones((4, 1)), np.full((4, 1), 0.9)).to_dict()
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text)["outputs"]["finding0"]["auroc"] == {"value": None, "low": None, "high": None}
    assert found["macro"]["npv"]["value"] is None


def test_the_json_has_the_declared_form() -> None:
    found = judged(LABELS[:, None], SCORES[:, None], np.repeat(np.arange(5), 2)).to_dict()
    assert (found["images"], found["patients"]) == (10, 5)
    assert set(found["macro"]) == set(METRICS)
    assert set(found["outputs"]["finding0"]) == {*METRICS, "threshold", "positives", "negatives"}
    assert set(found["macro"]["auroc"]) == {"value", "low", "high"}


def test_resamples_without_both_classes_are_counted() -> None:
    labels = np.array([1, 0, 0, 0, 0, 0], dtype=float)[:, None]
    found = judged(labels, np.linspace(1, 0, 6)[:, None]).macro["auroc"]
    assert 40 < found.skipped < 100  # (5/6)^6 of 200 miss the one positive
    assert (found.value, found.low) == (1.0, None)


@pytest.mark.parametrize("rare", [1, 0])
def test_a_few_patients_of_a_class_bear_no_interval_of_what_looks_at_that_class(rare: int) -> None:
    """Resamples take the few as they are: the one who scores as they should would make anything sure."""
    labels = np.full((60, 1), 1.0 - rare)
    labels[:8] = rare  # images of four patients
    patients = np.r_[np.arange(8) // 2, np.arange(8, 60)]
    scores = np.abs(labels - np.linspace(0, 0.45, 60)[:, None])
    few = {"auroc", "auprc", *(("sensitivity", "ppv") if rare else ("specificity", "npv"))}  # all are called as they should be
    found = judged(labels, scores, patients).outputs[0].metrics
    assert {name for name, metric in found.items() if metric.low is None} == few
    patients[7] = 4
    found = judged(labels, scores, patients).outputs[0].metrics
    assert not [name for name, metric in found.items() if metric.low is None]


def test_the_macro_mean_bears_no_interval_where_one_output_bears_none() -> None:
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 2, (60, 3)).astype(float)
    scores = np.clip(0.3 * labels + generator.uniform(0, 0.7, labels.shape), 0, 1)
    labels[:, 2] = 0  # undefined, and left out of the mean
    assert judged(labels, scores).macro["auroc"].low is not None
    labels[:, 1] = np.arange(60) < 3
    found = judged(labels, scores)
    assert [output.metrics["auroc"].low is None for output in found.outputs] == [False, True, True]
    assert found.macro["auroc"].value is not None
    assert found.macro["auroc"].low is None
