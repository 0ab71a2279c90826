"""Solved classifiers: chosen on held-out patients of the training part, and honest about how sure they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.transfer import probes
from pipelines.transfer.probes import Examples, solve
from pipelines.transfer.table import SOLVED

NAN = float("nan")


def examples(images: int = 60, *, strength: float = 2.0, seed: int = 0, classes: int = 0, weights: bool = False) -> Examples:
    """Ten features, of which the first carry the label; two images of each patient."""
    generator = np.random.default_rng(seed)
    patients = np.arange(images) // 2
    truth = patients % max(2, classes)
    features = generator.normal(size=(images, 10))
    if classes:
        features[:, :classes] += strength * np.eye(classes)[truth]
        return Examples(features, np.eye(classes)[truth], patients, True, np.ones(classes) if weights else None)
    features[:, 0] += strength * (truth - 0.5)
    labels = truth.astype(float)[:, None]
    return Examples(features, labels, patients, False, np.array([3.0]) if weights else None)


def answers(kind: str, known: Examples, **settings: float) -> np.ndarray:
    found = solve(kind, known, dropout=0.1, regularisation=settings.get("regularisation"), neighbours=None)
    with torch.no_grad():
        return found.head.eval()(torch.from_numpy(known.features).float()).numpy()


@pytest.mark.parametrize("kind", SOLVED)
@pytest.mark.parametrize("classes", [0, 2, 3])
def test_each_learns_what_separates_and_says_how_it_was_chosen(kind: str, classes: int) -> None:
    known = examples(strength=5.0, classes=classes)
    found = solve(kind, known, dropout=0.1, regularisation=None, neighbours=None)
    with torch.no_grad():
        logits = found.head.eval()(torch.from_numpy(known.features).float()).numpy()
    if classes:
        assert (logits.argmax(axis=1) == known.labels.argmax(axis=1)).mean() > 0.9
    else:
        assert ((logits[:, 0] > 0) == (known.labels[:, 0] == 1)).mean() > 0.9
    assert found.details["chosen_by"] == "cross-validation over patients, 5 folds"
    assert 0 < found.loss < 0.6


@pytest.mark.parametrize("kind", SOLVED)
def test_the_same_training_part_gives_the_same_bits(kind: str) -> None:
    assert np.array_equal(answers(kind, examples()), answers(kind, examples()))


def test_noise_calls_for_more_regularisation_than_a_clear_finding() -> None:
    def chosen(strength: float) -> float:
        settings = {"dropout": 0.0, "regularisation": None, "neighbours": None}
        return solve("logistic_regression", examples(strength=strength), **settings).details["regularisation"]

    assert chosen(0.0) > chosen(6.0)


def test_what_is_set_is_not_chosen() -> None:
    found = solve("logistic_regression", examples(), dropout=0.0, regularisation=7.0, neighbours=None)
    assert found.details["regularisation"] == 7.0
    assert found.details["chosen_by"] == "setting"


@pytest.mark.parametrize("kind", SOLVED)
def test_one_patient_of_a_class_is_too_few_to_choose_on_and_that_is_said(kind: str) -> None:
    known = examples(20)
    known.labels[:, 0] = known.patients == 3
    found = solve(kind, known, dropout=0.0, regularisation=None, neighbours=None)
    assert found.details["chosen_by"] == "default, since a class has fewer than two patients"
    assert np.isnan(found.loss)


def test_candidates_are_judged_on_patients_that_were_not_fitted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every patient looks like itself and no other: whoever is seen is known, and whoever is held out is a coin toss."""
    generator = np.random.default_rng(1)
    patients = np.repeat(np.arange(30), 4)
    features = np.repeat(generator.normal(size=(30, 60)), 4, axis=0)
    labels = (patients % 2).astype(float)[:, None]
    found = solve("knn", Examples(features, labels, patients, False), dropout=0.0, regularisation=None, neighbours=1)
    assert found.loss > np.log(2) * 0.9
    monkeypatch.setattr(probes, "folds", lambda labels, patients: real_folds(labels, np.arange(len(patients))))
    leaky = solve("knn", Examples(features, labels, patients, False), dropout=0.0, regularisation=None, neighbours=1)
    assert leaky.loss < 0.4


real_folds = probes.folds


@pytest.mark.parametrize("kind", ["logistic_regression", "linear_svm"])
def test_the_logits_are_raised_by_the_class_weights_as_a_trained_heads_are(kind: str) -> None:
    """With weights of 3 the mean answer is about that of a threefold prevalence, until the logits are lowered again."""
    known = examples(400, strength=1.0, weights=True)
    logits = answers(kind, known)[:, 0]
    raised, lowered = 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-(logits - np.log(3))))
    assert lowered.mean() == pytest.approx(0.5, abs=0.05)
    assert raised.mean() > 0.6


def test_an_unknown_label_is_left_out_by_all() -> None:
    for kind in SOLVED:
        known = examples(60, strength=5.0)
        labels = np.hstack([known.labels, known.labels])
        labels[:10, 1] = NAN
        two = Examples(known.features, labels, known.patients, False)
        assert np.isfinite(answers(kind, two)).all()
