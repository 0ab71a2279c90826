"""What the guard says of an adaptation, on answers made by hand."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from pipelines.metrics.power import patients_to_settle
from pipelines.transfer.guard import Judgement, Looks, Seen, judge

IMAGES = 120


def seen(seed: int, *, clarity: float = 1.0, moved: float = 0.0, labelled: bool = True, level: float = 0.0) -> Seen:
    """Probabilities that tell the finding by `clarity`, around `level` in logits, and features `moved` from the origin."""
    random = np.random.default_rng(seed)
    labels = (np.arange(IMAGES) % 2).astype(np.float32)[:, None]
    logits = clarity * (2 * labels - 1) + random.normal(0, 1, (IMAGES, 1)) + level
    features = random.normal(0, 1, (IMAGES, 8)) + moved
    patients = np.array([f"{seed}-{image // 2}" for image in range(IMAGES)])
    return Seen(features, 1 / (1 + np.exp(-logits)), labels if labelled else np.full_like(labels, np.nan), patients)


def judged(before: Looks | None, after: Looks) -> Judgement:
    return judge(before, after, np.array([0.5]), outputs=("opacity",), resamples=200, seed=3)


def looks(**target: Any) -> Looks:
    return Looks(seen(1), seen(2, **target))


@pytest.mark.parametrize(("before", "after", "verdict"), [(0.0, 2.0, "helped"), (2.0, 0.0, "harmed"), (1.0, 1.0, "did not help")])
def test_labels_of_the_target_decide(before: float, after: float, verdict: str) -> None:
    found = judged(looks(clarity=before), looks(clarity=after))
    assert found.verdict == verdict
    assert found.says.startswith(f"{verdict}: AUROC on the target ")
    gain = found.figures["target"]["gain"]
    assert (gain["low"] > 0) == (verdict == "helped")
    assert (gain["high"] < 0) == (verdict == "harmed")
    json.dumps(found.to_dict(), allow_nan=False)


def test_to_be_less_wrong_than_chance_by_less_is_no_help() -> None:
    found = judged(looks(clarity=-2.0), looks(clarity=-0.5))
    assert found.verdict == "did not help"
    assert found.figures["target"]["gain"]["low"] > 0
    assert found.figures["target"]["above_chance"]["high"] < 0
    assert "not shown to be better than chance" in found.says


def test_without_labels_of_the_target_features_that_look_alike_decide_nothing() -> None:
    found = judged(looks(moved=3.0, labelled=False), looks(moved=0.0, labelled=False))
    assert found.verdict == "cannot be known"
    apart = found.figures["apart"]
    assert apart["before"]["auroc_of_hospital"] > 0.99
    assert apart["after"]["auroc_of_hospital"] < 0.65
    assert apart["after"]["mmd"] < apart["before"]["mmd"]
    assert "with an AUROC of 0.5" in found.says or "with an AUROC of 0.6" in found.says or "with an AUROC of 0.4" in found.says
    assert "none of the 60 held-out patients of the target has a label" in found.says
    assert found.figures["held_out"]["target"] == {"images": 120, "patients": 60, "labelled_patients": 0}
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_handful_of_labelled_patients_of_the_target_decides_nothing() -> None:
    before, after = looks(clarity=0.0), looks(clarity=9.0)
    few = np.where(np.arange(IMAGES)[:, None] < 10, after.target.labels, np.nan)
    given = (Looks(each.source, dataclasses.replace(each.target, labels=few)) for each in (before, after))
    found = judged(*given)
    assert found.figures["target"]["gain"]["low"] is not None
    assert found.verdict == "cannot be known"
    assert "but only 5 labelled held-out patients are of the rarer kind, and an interval takes 10 of each" in found.says


def test_a_target_of_nobody_is_judged_too() -> None:
    there = seen(2)
    nobody = Seen(there.features[:0], there.scores[:0], there.labels[:0], there.patients[:0])
    found = judged(None, Looks(seen(1), nobody))
    assert "no image of the target was held out" in found.says
    assert found.figures["apart"]["after"]["auroc_of_hospital"] is None
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (looks(moved=2.0), looks(moved=2.0), "tell the hospitals apart as before"),
        (looks(level=-3.0), looks(), "if the finding is that much rarer there"),
        (looks(level=3.0), looks(), "if the finding is that much commoner there"),
        (looks(), looks(level=-9.0), "collapse, the probabilities on the target hardly differ"),
        (Looks(seen(1, clarity=3.0), seen(2)), Looks(seen(1, clarity=0.5), seen(2)), "of the source, AUROC fell: -0."),
    ],
)
def test_signs_of_harm_are_told_without_labels(before: Looks, after: Looks, words: str) -> None:
    assert any(words in warning for warning in judged(before, after).warnings)


def test_where_nothing_is_wrong_nothing_is_warned_of() -> None:
    assert judged(looks(moved=2.0), looks(moved=0.0)).warnings == ()


def test_a_hospital_of_one_patient_cannot_be_told_apart_and_does_no_harm() -> None:
    there = seen(2)
    one = Seen(there.features, there.scores, there.labels, np.array(["somebody"] * IMAGES))
    assert judged(None, Looks(seen(1), one)).figures["apart"]["after"]["auroc_of_hospital"] is None


def test_hospitals_that_were_alike_to_begin_with_are_no_sign_of_harm() -> None:
    found = judged(looks(moved=0.0), looks(moved=0.0))
    assert found.figures["apart"]["before"]["auroc_of_hospital"] < 0.6
    assert found.warnings == ()


def test_how_many_patients_it_takes_is_not_told_by_the_auroc_of_the_source() -> None:
    """A source without a mistake would promise that a few dozen are enough."""
    source = seen(1, clarity=9.0)
    found = judged(*(Looks(source, seen(2, labelled=False)) for _ in range(2)))
    assert f"about {patients_to_settle(0.8, 0.05)} labelled patients" in found.says
    assert "a difference of 0.05 of an AUROC near 0.8" in found.says
    assert patients_to_settle(0.99, 0.05) < 40 < patients_to_settle(0.8, 0.05)


def test_an_output_without_labels_at_the_target_does_not_keep_the_others_from_being_judged() -> None:
    def two(clarity: float) -> Seen:
        one = seen(2, clarity=clarity)
        labels = np.hstack([one.labels, np.full_like(one.labels, np.nan)])
        return dataclasses.replace(one, scores=np.hstack([one.scores, one.scores]), labels=labels)

    source = dataclasses.replace(seen(1), scores=np.hstack([seen(1).scores] * 2), labels=np.hstack([seen(1).labels] * 2))
    found = judge(
        Looks(source, two(0.0)),
        Looks(source, two(2.0)),
        np.array([0.5, 0.5]),
        outputs=("opacity", "effusion"),
        resamples=200,
        seed=3,
    )
    assert found.verdict == "helped"
