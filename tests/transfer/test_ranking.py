"""Networks are ranked by what their features say of patients whom no probe has seen."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.metrics.discrimination import macro_auroc
from pipelines.transfer.probes import Examples
from pipelines.transfer.ranking import PROBES, judge
from pipelines.transfer.transferability import SCORES


def cohort(separation: float, patients: int = 60, outputs: int = 1, *, exclusive: bool = False) -> Examples:
    """Two images of each patient, nearly the same; the first feature of each output tells it by `separation` deviations."""
    random = np.random.default_rng(2)
    kinds = outputs if exclusive else 2
    classes = np.stack([random.permutation(np.arange(patients) % kinds) for _ in range(1 if exclusive else outputs)], axis=1)
    labels = np.eye(outputs)[classes[:, 0]] if exclusive else classes.astype(float)
    person = random.normal(size=(patients, 12))
    person[:, :outputs] += separation * labels
    features = np.repeat(person, 2, axis=0) + 0.01 * random.normal(size=(2 * patients, 12))
    return Examples(features, np.repeat(labels, 2, axis=0), np.repeat(np.arange(patients), 2), exclusive)


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_knows_nothing_of_patients_whom_it_has_not_seen_if_there_is_nothing_to_know(probe: str) -> None:
    examples = cohort(0.0)
    logits = judge(examples, None).held_out[probe]
    assert macro_auroc(examples.labels, logits) < 0.65  # a probe that saw the other image of the patient would reach 1.0


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize(
    ("outputs", "exclusive"), [(1, False), (2, False), (3, True)], ids=["binary", "multilabel", "multiclass"]
)
def test_a_probe_finds_what_there_is(probe: str, outputs: int, exclusive: bool) -> None:
    examples = cohort(5.0, outputs=outputs, exclusive=exclusive)
    logits = judge(examples, None).held_out[probe]
    assert logits.shape == examples.labels.shape
    assert macro_auroc(examples.labels, logits) > 0.9


@pytest.mark.parametrize("exclusive", [False, True])
def test_every_score_is_higher_for_the_better_features(exclusive: bool) -> None:
    worse, better = (judge(cohort(apart, outputs=3, exclusive=exclusive), None).scores for apart in (0.5, 6.0))
    assert set(better) == set(SCORES)
    assert all(better[name] > worse[name] for name in SCORES)


def test_the_source_classifier_is_asked_where_there_is_one() -> None:
    examples = cohort(6.0)
    knows, knows_not = np.zeros((2, 12)), np.zeros((2, 12))
    knows[1, 0] = knows_not[1, 5] = 4.0
    bias = np.array([0.0, -12.0])
    assert judge(examples, (knows, bias)).scores["leep"] > judge(examples, (knows_not, bias)).scores["leep"] + 0.3
    assert "leep" not in judge(examples, None).scores


def test_unknown_labels_are_left_out() -> None:
    examples = cohort(6.0, outputs=2)
    labels = examples.labels.copy()
    labels[:20, 1] = np.nan
    known = judge(Examples(examples.features, labels, examples.patients, exclusive=False), None)
    assert macro_auroc(labels, known.held_out["logistic_regression"]) > 0.95
    assert all(np.isfinite(value) for value in known.scores.values())


def test_a_network_that_sees_no_difference_has_no_score() -> None:
    examples = cohort(6.0)
    blind = Examples(np.zeros_like(examples.features), examples.labels, examples.patients, exclusive=False)
    ranked = judge(blind, None)
    assert all(value is None for value in ranked.scores.values())
    assert all(macro_auroc(examples.labels, logits) < 0.6 for logits in ranked.held_out.values())


def test_an_output_with_one_class_only_has_no_score() -> None:
    examples = cohort(6.0)
    alike = Examples(examples.features, np.ones_like(examples.labels), examples.patients, exclusive=False)
    ranked = judge(alike, None)
    assert all(value is None for value in ranked.scores.values())
    assert all(np.isnan(logits).all() for logits in ranked.held_out.values())
