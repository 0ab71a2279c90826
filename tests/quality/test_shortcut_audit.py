"""The audit raises the alarm where a shortcut is planted, for that shortcut and output, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import made_cohort
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pipelines.config import AuditShortcutsSection
from pipelines.metrics.intervals import Interval
from pipelines.quality import shortcut_audit
from pipelines.quality.shortcut_audit import Audit, audit
from pipelines.quality.shortcuts import SHORTCUTS

SETTINGS = AuditShortcutsSection(bootstrap=100)
Cohort = tuple[pd.DataFrame, np.ndarray, np.ndarray]


def asked(rows: pd.DataFrame, images: np.ndarray, *labels: np.ndarray) -> tuple[Audit, dict[str, np.ndarray]]:
    outputs = ("opacity", "effusion")[: len(labels)]
    return audit(rows, images, np.stack(labels, axis=1), outputs, SETTINGS)


def brighter_corner(rows: pd.DataFrame, images: np.ndarray, positive: np.ndarray) -> None:
    images[positive, :5, :5] = 255


def brighter_site(rows: pd.DataFrame, images: np.ndarray, positive: np.ndarray) -> None:
    images[positive] += 40


def wider(rows: pd.DataFrame, images: np.ndarray, positive: np.ndarray) -> None:
    rows.loc[positive, "columns"] += 150


def portable(rows: pd.DataFrame, images: np.ndarray, positive: np.ndarray) -> None:
    rows.loc[positive, "view"] = "AP"


def other_vendor(rows: pd.DataFrame, images: np.ndarray, positive: np.ndarray) -> None:
    rows.loc[positive, "manufacturer"] = "GE"


def older(rows: pd.DataFrame, images: np.ndarray, positive: np.ndarray) -> None:
    rows.loc[positive, "age_years"] += 40


def diseased(rows: pd.DataFrame, images: np.ndarray, positive: np.ndarray) -> None:
    images[positive, 20:44, 20:44] += 60


PLANTED: dict[str, tuple[Callable[[pd.DataFrame, np.ndarray, np.ndarray], None], set[str]]] = {
    "brighter corner": (brighter_corner, {"border"}),
    "brighter images": (brighter_site, {"border"}),
    "wider images": (wider, {"shape"}),
    "other view": (portable, {"view"}),
    "other vendor": (other_vendor, {"equipment"}),
    "older patients": (older, {"person"}),
}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_cohort_without_a_shortcut_raises_no_alarm(seed: int) -> None:
    found, _ = asked(*made_cohort.make(seed=seed))
    assert found.alarms == {}
    assert not found.to_dict()["alarm"]


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_shortcut_raises_the_alarm_of_the_one_that_sees_it(name: str) -> None:
    plant, seen_by = PLANTED[name]
    rows, images, labels = made_cohort.make()
    plant(rows, images, labels == 1)
    found, _ = asked(rows, images, labels)
    assert set(found.alarms) == seen_by | {"surroundings"}
    assert all(outputs == ("opacity",) for outputs in found.alarms.values())


def test_disease_that_a_blurred_image_shows_is_no_alarm() -> None:
    rows, images, labels = made_cohort.make()
    diseased(rows, images, labels == 1)
    found, _ = asked(rows, images, labels)
    known = {finding.name: finding.everyone.value for finding in found.findings}
    assert known["histogram"] > 0.95
    assert known["thumbnail"] > 0.95
    assert found.alarms == {}


def test_each_output_has_its_own_alarm_and_the_mean_is_of_all() -> None:
    rows, images, labels = made_cohort.make()
    other = np.random.default_rng(5).permutation(labels)
    wider(rows, images, labels == 1)
    found, _ = asked(rows, images, other, labels)
    assert found.alarms == {"shape": ("effusion",), "surroundings": ("effusion",)}
    assert found.looks == 2 * sum(shortcut.blind for shortcut in SHORTCUTS.values())
    shape = next(finding for finding in found.findings if finding.name == "shape")
    areas = [shape.outputs[name].everyone.value for name in ("opacity", "effusion")]
    assert shape.everyone.value == pytest.approx(np.mean(areas))


def test_no_patient_is_judged_by_a_regression_that_learned_from_them() -> None:
    """Each patient's two images are alike and like nobody else's, so that knowing one would give away the other."""
    rows, images, _ = made_cohort.make()
    images[1::2] = images[::2]
    labels = np.repeat(np.random.default_rng(2).permutation(np.arange(len(rows) // 2) % 2), 2).astype(float)
    patients = pd.factorize(rows["patient"])[0]
    features = images.reshape(len(images), -1)[:, :400] / 255.0
    everyone, _ = shortcut_audit._asked(features, labels, patients, (rows["part"] == "train").to_numpy(), 3)
    assert roc_auc_score(labels, everyone) < 0.6
    leaky, _ = shortcut_audit._asked(features, labels, np.arange(len(rows)), (rows["part"] == "train").to_numpy(), 3)
    assert roc_auc_score(labels, leaky) > 0.9


def test_what_is_said_of_the_test_part_was_learned_from_the_training_part_alone() -> None:
    rows, images, labels = made_cohort.make()
    wider(rows, images, labels == 1)
    _, before = asked(rows, images, labels)
    outside = (rows["part"] != "train").to_numpy()
    _, after = asked(rows, images, np.where(outside, 1 - labels, labels))
    for name in SHORTCUTS:
        np.testing.assert_array_equal(before[name], after[name])
        assert before[name].shape == ((rows["part"] == "test").sum(), 1)


def test_the_figure_of_the_test_part_is_the_auroc_of_what_is_said_of_it() -> None:
    rows, images, labels = made_cohort.make()
    found, said = asked(rows, images, labels)
    tested = (rows["part"] == "test").to_numpy()
    for finding in found.findings:
        value = finding.outputs["opacity"].test.value
        assert value == pytest.approx(roc_auc_score(labels[tested], said[finding.name][:, 0]))


def test_images_whose_label_is_unknown_do_not_count() -> None:
    rows, images, labels = made_cohort.make()
    unknown = np.arange(len(rows)) % 6 < 2
    found, said = asked(rows, images, np.where(unknown, np.nan, labels))
    few, _ = asked(rows[~unknown].reset_index(drop=True), images[~unknown], labels[~unknown])
    for one, other in zip(found.findings, few.findings, strict=True):
        if one.name in ("border", "histogram", "thumbnail"):  # the others see the headers of all images
            assert one.outputs["opacity"].everyone.value == pytest.approx(other.outputs["opacity"].everyone.value)
    assert all(np.isfinite(scores).all() for scores in said.values())


@pytest.mark.parametrize("positive_patients", [0, shortcut_audit.FOLDS - 1])
def test_with_too_few_patients_of_a_class_a_shortcut_is_undefined_and_silent(positive_patients: int) -> None:
    rows, images, _ = made_cohort.make()
    learned = np.flatnonzero(rows["part"] == "train")[: 2 * positive_patients]
    labels = np.isin(np.arange(len(rows)), learned).astype(float)
    found, said = asked(rows, images, labels)
    assert found.alarms == {}
    for finding in found.findings:
        plain = finding.to_dict()["outputs"]["opacity"]
        assert plain["everyone"] == {"value": None, "low": None, "high": None, "at_least": None}
        assert plain["test"] == {"value": None, "low": None, "high": None}
        assert np.isnan(said[finding.name]).all()


def test_a_field_that_never_varies_is_exactly_chance() -> None:
    rows, images, labels = made_cohort.make()
    found, _ = asked(rows.assign(view="AP"), images, labels)
    view = next(finding for finding in found.findings if finding.name == "view")
    assert view.everyone == Interval(0.5, 0.5, 0.5)


def test_the_bound_of_the_alarm_holds_for_all_looks_at_once() -> None:
    """Of 6 looks each may err with a sixth of the probability: 2.64 deviations of a normal distribution, not 1.96."""
    bound = shortcut_audit._widened(Interval(0.7, 0.6, 0.78), looks=6)
    assert bound == pytest.approx(0.7 - 0.1 * NormalDist().inv_cdf(1 - 0.025 / 6) / NormalDist().inv_cdf(0.975))
    assert bound == pytest.approx(0.5654, abs=1e-3)
    assert shortcut_audit._widened(Interval(0.7, 0.6, 0.78), looks=1) == pytest.approx(0.6)
    assert shortcut_audit._widened(Interval(0.7, None, None), looks=1) is None


@pytest.mark.parametrize("strength", shortcut_audit.STRENGTHS)
def test_the_regression_is_the_ridge_logistic_regression_of_scikit_learn(strength: float) -> None:
    generator = np.random.default_rng(6)
    features = generator.normal(size=(200, 12)) @ generator.normal(size=(12, 12))
    labels = (features[:, 0] + generator.normal(size=200) > 1).astype(float)
    for one, chosen in ((labels, features), ((features[:, 0] > 0).astype(float), features), (labels, features[:, :0])):
        found = shortcut_audit._regression(chosen, one, strength)
        if chosen.shape[1]:
            expected = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(chosen, one)
            np.testing.assert_allclose(found, [*expected.coef_[0], expected.intercept_[0]], atol=2e-4)
        else:
            np.testing.assert_allclose(found, [np.log(one.mean() / (1 - one.mean()))], atol=1e-4)


def test_how_common_the_finding_is_does_not_enter_what_is_said() -> None:
    """Else folds, each of which learned from another share of positives, could not be put in one order."""
    features = np.random.default_rng(6).normal(size=(200, 4))
    said, common = shortcut_audit._fitted(features, (features[:, 0] > 1).astype(float), features.mean(axis=0)[None], 1.0)
    assert said == pytest.approx(0, abs=1e-9)
    assert common < -1


def test_of_very_many_images_a_part_is_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, images, labels = made_cohort.make()
    wider(rows, images, labels == 1)
    whole, _ = asked(rows, images, labels)
    monkeypatch.setattr(shortcut_audit, "MOST", 80)
    part, _ = asked(rows, images, labels)
    assert "shape" in part.alarms
    assert part.findings[1].everyone.value != whole.findings[1].everyone.value
