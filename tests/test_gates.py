"""The registration policy, gate by gate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.config import Policy
from pipelines.gates import GATES, Evidence, evaluate

GOOD = Evidence(
    auroc_low=0.82,
    ece=0.06,
    test_patients=40,
    quality_passed=True,
    leakage_clean=True,
    certified_split="a" * 64,
    split="a" * 64,
    shortcut="thumbnail",
    shortcut_gain_low=0.05,
    shortcut_gains_low={"opacity": 0.05},
    shortcut_alarm=False,
    shortcut_alarms="none",
    adaptation=None,
    adaptation_says="",
)
HARMFUL = {"adaptation": "harmed", "adaptation_says": "harmed: AUROC on the target -0.120 [-0.200, -0.040]"}
ALARMED = {"shortcut_alarm": True, "shortcut_alarms": "border (opacity)"}
VETO = Policy(refuse_shortcut_alarm=True)


def refused(policy: Policy, evidence: Evidence) -> dict[str, str]:
    return {verdict.gate: verdict.words for verdict in evaluate(policy, evidence) if not verdict.passed}


def test_good_evidence_passes_every_gate_of_the_table() -> None:
    verdicts = evaluate(Policy(), GOOD)
    assert [verdict.gate for verdict in verdicts] == list(GATES)
    assert all(verdict.passed for verdict in verdicts)


@pytest.mark.parametrize(
    ("change", "gate", "reason"),
    [
        ({"auroc_low": 0.69}, "auroc", "AUROC: expected at least 0.7, got 0.69"),
        ({"auroc_low": None}, "auroc", "got no interval (fewer than 5 test patients of a class; a larger split"),
        ({"ece": 0.151}, "ece", "expected at most 0.15, got 0.151"),
        ({"ece": None}, "ece", "got nothing: it is undefined"),
        ({"test_patients": 19}, "size", "patients in the test part: expected at least 20, got 19"),
        ({"quality_passed": False}, "quality", "an expectation of severity error failed"),
        ({"leakage_clean": False}, "leakage", "span two parts"),
        ({"split": "b" * 64}, "leakage", "about split aaaaaaaaaaaa, in use is bbbbbbbbbbbb"),
        (
            {"shortcut_gain_low": 0.009},
            "shortcuts",
            "the best shortcut (thumbnail): expected at least 0.01, got 0.009; what the model knows, a shortcut may know too",
        ),
        (
            {"shortcut_gain_low": None, "shortcut": None},
            "shortcuts",
            "the best shortcut: expected at least 0.01, got no interval (fewer than 5 patients of a class",
        ),
        (
            {"shortcut_gains_low": {"opacity": 0.05, "effusion": -0.02, "nodule": None, "fracture": 0.01}},
            "shortcuts",
            "expected at least 0.01, got 0.05 on average, and -0.02 for effusion, no interval (fewer than 5 patients of a class "
            "to learn a shortcut from or to test by; add labelled patients) for nodule",
        ),
        (HARMFUL, "adaptation", "adaptation to another hospital: harmed: AUROC on the target -0.120 [-0.200, -0.040]"),
        (ALARMED, "shortcut_alarm", "without seeing a finding, by border (opacity)"),
    ],
)
def test_each_gate_says_no_alone_and_says_why(change: dict[str, object], gate: str, reason: str) -> None:
    answer = refused(VETO, replace(GOOD, **change))  # type: ignore[arg-type]
    assert list(answer) == [gate]
    assert reason in answer[gate]


def test_each_of_several_outputs_has_to_beat_the_shortcuts() -> None:
    several = replace(GOOD, shortcut_gains_low={"opacity": 0.02, "effusion": 0.01})
    (verdict,) = (verdict for verdict in evaluate(Policy(), several) if verdict.gate == "shortcuts")
    assert verdict.passed
    assert verdict.words.endswith("got 0.05 on average, and no less for any output")


def test_a_value_on_the_bound_passes() -> None:
    assert refused(Policy(min_auroc_lower_bound=0.82, max_ece=0.06, min_gain_over_shortcuts=0.05), GOOD) == {}


def test_a_gate_that_the_policy_waives_passes_and_says_so() -> None:
    bad = replace(GOOD, quality_passed=False, leakage_clean=False, shortcut_gain_low=-0.1, **ALARMED, **HARMFUL)
    policy = Policy(
        require_quality=False, require_no_leakage=False, min_gain_over_shortcuts=None, refuse_harmful_adaptation=False
    )
    assert refused(policy, bad) == {}
    words = {verdict.gate: verdict.words for verdict in evaluate(policy, bad)}
    assert "an expectation of severity error failed (not required by the policy)" in words["quality"]
    assert "span two parts (not required by the policy)" in words["leakage"]
    assert "got -0.1 (not required by the policy)" in words["shortcuts"]
    assert "by border (opacity) (not required by the policy)" in words["shortcut_alarm"]
    assert "[-0.200, -0.040] (not required by the policy)" in words["adaptation"]


@pytest.mark.parametrize("verdict", ["helped", "did not help", "cannot be known"])
def test_an_adaptation_that_is_not_shown_to_harm_passes_with_what_was_seen(verdict: str) -> None:
    (found,) = (
        one for one in evaluate(Policy(), replace(GOOD, adaptation=verdict, adaptation_says=verdict)) if one.gate == "adaptation"
    )
    assert found.passed
    assert found.words.endswith(f": {verdict}")


def test_every_reason_against_a_model_is_given_at_once() -> None:
    worst = Evidence(
        *(None, None, 0, False, False, "a", "b", None, None, {"opacity": None}, True, "border (opacity)", "harmed", "worse")
    )
    assert list(refused(VETO, worst)) == list(GATES)
