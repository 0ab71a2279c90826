"""The metrics of tasks beside the main one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from pipelines.metrics.further import TaskEvaluation, evaluate_head
from pipelines.records import Head

NAN = float("nan")
PATIENTS = np.repeat(np.arange(30), 2)
RANDOM = np.random.default_rng(6)
BEGINNING = RANDOM.bit_generator.state
HEADS = {
    "regression": Head("regression", ("years",), name="age", unit="years"),
    "ordinal": Head("ordinal", ("grade",), ("low", "middle", "high"), name="grade"),
    "multiclass": Head("multiclass", ("view",), ("PA", "AP", "LL"), name="view"),
    "multilabel": Head("multilabel", ("effusion", "oedema"), name="fluid"),
    "binary": Head("binary", ("fracture",), name="fracture"),
}
WANTED = {
    "regression": ["mae", "rmse", "r2", "spearman"],
    "ordinal": ["kappa", "mae_ranks", "accuracy", "auroc"],
    "multiclass": ["accuracy", "auroc", "auprc", "brier", "ece"],
    "multilabel": ["auroc", "auprc", "sensitivity", "specificity", "ppv", "npv", "brier", "ece"],
    "binary": ["auroc", "auprc", "sensitivity", "specificity", "ppv", "npv", "brier", "ece"],
}


@pytest.fixture(autouse=True)
def begin_anew() -> None:
    RANDOM.bit_generator.state = BEGINNING


def judged(kind: str, truth: Any, **changes: Any) -> TaskEvaluation:
    head = HEADS[kind]
    answers = RANDOM.dirichlet(np.ones(3), 60) if head.classes else RANDOM.random((60, head.answers))
    labels = RANDOM.integers(0, 2, (60, head.answers)).astype(float)
    labels[np.isnan(truth)] = NAN
    given = {"labels": labels, "truth": truth, "answers": answers, "said": RANDOM.permutation(60) % 3, **changes}
    return evaluate_head(head, **given, patients=PATIENTS, thresholds={"effusion": 0.3}, bins=5, resamples=60, seed=1)


@pytest.mark.parametrize("kind", HEADS)
def test_every_kind_has_its_metrics_on_the_images_whose_label_is_known(kind: str) -> None:
    truth = RANDOM.integers(0, 3, 60).astype(float)
    truth[:6] = NAN
    found = judged(kind, truth)
    assert list(found.metrics) == WANTED[kind]
    assert (found.images, found.patients) == (54, 27)
    assert all(value.low <= value.value <= value.high for name, value in found.metrics.items() if name != "ece")  # type: ignore[operator]
    assert all(found.title(name) and found.meaning(name) for name in found.metrics)


@pytest.mark.parametrize("kind", HEADS)
def test_without_a_label_nothing_is_known_of_a_task(kind: str) -> None:
    found = judged(kind, np.full(60, NAN))
    assert (found.images, found.patients) == (0, 0)
    assert list(found.metrics) == WANTED[kind]
    assert {value.value for value in found.metrics.values()} == {None}


def test_a_regression_says_its_unit_and_its_error() -> None:
    truth, said = RANDOM.normal(50, 9, 60), RANDOM.normal(50, 9, 60)
    found = judged("regression", truth, said=said)
    assert found.metrics["mae"].value == pytest.approx(metrics.mean_absolute_error(truth, said))
    assert [found.unit(name) for name in found.metrics] == ["years", "years", "", ""]
    assert found.to_dict()["unit"] == "years"


def test_an_ordinal_task_counts_how_far_off_its_classes_are() -> None:
    truth, said = RANDOM.integers(0, 3, 60).astype(float), RANDOM.integers(0, 3, 60)
    found = judged("ordinal", truth, said=said)
    assert found.metrics["kappa"].value == pytest.approx(metrics.cohen_kappa_score(truth, said, weights="quadratic"))
    assert found.confusion is not None
    assert found.confusion.tolist() == metrics.confusion_matrix(truth, said).tolist()


@pytest.mark.parametrize(("patients", "known"), [(4, False), (5, True)])
def test_the_steps_of_an_ordinal_task_bear_no_interval_by_a_few_patients(patients: int, known: bool) -> None:
    truth = np.where(patients > PATIENTS, 2.0, PATIENTS % 2)
    found = judged("ordinal", truth).metrics
    assert {name: value.low is not None for name, value in found.items()} == {
        "kappa": True, "mae_ranks": True, "accuracy": True, "auroc": known,
    }  # fmt: skip


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize(("patients", "known"), [(4, False), (20, True)])
def test_nothing_bears_an_interval_by_a_few_patients(kind: str, patients: int, known: bool) -> None:
    truth = np.where(patients > PATIENTS, RANDOM.integers(0, 3, 60).astype(float), NAN)
    assert {value.low is not None for value in judged(kind, truth).metrics.values()} == {known}


def test_only_what_is_called_positive_has_a_threshold() -> None:
    truth = RANDOM.integers(0, 3, 60).astype(float)
    assert judged("multilabel", truth).to_dict()["outputs"]["effusion"]["threshold"] == 0.3
    assert "threshold" not in judged("multiclass", truth).to_dict()["outputs"]["view_PA"]
