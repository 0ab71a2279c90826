"""The gates of mlflow/policy.yaml: what a model must show before a person is asked to review it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipelines.config import Policy
from pipelines.metrics.intervals import FEWEST
from pipelines.records import HARMED

TOO_FEW = f"fewer than {FEWEST} test patients of a class; a larger split.test has more"
UNJUDGED = f"fewer than {FEWEST} patients of a class to learn a shortcut from or to test by; add labelled patients"


@dataclass(frozen=True)
class Evidence:
    """What the gates look at.

    Attributes:
        auroc_low: lower end of the 95% interval of the test AUROC, mean over the outputs; None where there is none.
        ece: expected calibration error on the test part, mean over the outputs; None where it is undefined.
        test_patients: patients in the test part.
        quality_passed: whether every expectation of severity `error` passed.
        leakage_clean: whether the leakage certificate found nothing that spans two parts.
        certified_split: SHA-256 of the split that the certificate is about.
        split: SHA-256 of the split in use.
        shortcut: the best shortcut on the test part; None where none could be judged.
        shortcut_gain_low: lower end of the 95% interval of the test AUROC minus that of the best shortcut, mean over the outputs.
        shortcut_gains_low: likewise for each output, beside the shortcut that is best there.
        shortcut_alarm: whether a shortcut that cannot see findings knows a label.
        shortcut_alarms: which shortcuts do, in words, with the outputs whose labels they know.
        adaptation: what became of an adaptation to another hospital, a verdict of `transfer.guard`; None without one.
        adaptation_says: the same in a sentence, with its figures.
    """

    auroc_low: float | None
    ece: float | None
    test_patients: int
    quality_passed: bool
    leakage_clean: bool
    certified_split: str
    split: str
    shortcut: str | None
    shortcut_gain_low: float | None
    shortcut_gains_low: Mapping[str, float | None]
    shortcut_alarm: bool
    shortcut_alarms: str
    adaptation: str | None
    adaptation_says: str


@dataclass(frozen=True)
class Verdict:
    """What one gate said: expected and found, in words; the words of a gate that said no are the reason."""

    gate: str
    passed: bool
    words: str


def _discrimination(policy: Policy, evidence: Evidence) -> tuple[bool, str]:
    least, low = policy.min_auroc_lower_bound, evidence.auroc_low
    passed = low is not None and low >= least
    return passed, f"lower end of the 95% interval of the test AUROC: expected at least {least:g}, got {_end(low, TOO_FEW)}"


def _calibration(policy: Policy, evidence: Evidence) -> tuple[bool, str]:
    most, ece = policy.max_ece, evidence.ece
    passed = ece is not None and ece <= most
    return passed, f"expected calibration error on the test part: expected at most {most:g}, got {_number(ece)}"


def _size(policy: Policy, evidence: Evidence) -> tuple[bool, str]:
    least, found = policy.min_test_patients, evidence.test_patients
    return found >= least, f"patients in the test part: expected at least {least}, got {found}"


def _quality(policy: Policy, evidence: Evidence) -> tuple[bool, str]:
    found = "every expectation of severity error passed" if evidence.quality_passed else "an expectation of severity error failed"
    return _unless_waived(policy.require_quality, evidence.quality_passed, f"data quality: {found}")


def _leakage(policy: Policy, evidence: Evidence) -> tuple[bool, str]:
    if not evidence.leakage_clean:
        found = "it found patients, studies or images that span two parts"
    elif evidence.certified_split != evidence.split:
        found = f"it is about split {evidence.certified_split[:12]}, in use is {evidence.split[:12]}; run `radtransfer split`"
    else:
        found = "it is clean, and is that of the split in use"
    clean = evidence.leakage_clean and evidence.certified_split == evidence.split
    return _unless_waived(policy.require_no_leakage, clean, f"leakage certificate: {found}")


def _shortcuts(policy: Policy, evidence: Evidence) -> tuple[bool, str]:
    least, low = policy.min_gain_over_shortcuts, evidence.shortcut_gain_low
    rival = f"the best shortcut ({evidence.shortcut})" if evidence.shortcut else "the best shortcut"
    words = f"lower end of the 95% interval of the test AUROC minus that of {rival}: "
    if least is None:
        return True, f"{words}got {_end(low, UNJUDGED)} (not required by the policy)"
    found = _end(low, UNJUDGED)
    passed = low is not None and low >= least
    if len(evidence.shortcut_gains_low) > 1:
        short = {name: low for name, low in evidence.shortcut_gains_low.items() if low is None or low < least}
        beside = ", ".join(f"{_end(low, UNJUDGED)} for {name}" for name, low in short.items())
        found += f" on average, and {beside}" if short else " on average, and no less for any output"
        passed = passed and not short
    doubt = "" if passed else "; what the model knows, a shortcut may know too"
    return passed, f"{words}expected at least {least:g}, got {found}{doubt}"


def _alarm(policy: Policy, evidence: Evidence) -> tuple[bool, str]:
    quiet = not evidence.shortcut_alarm
    found = "no shortcut that cannot see findings knows the label"
    if not quiet:
        found = f"the label can be told without seeing a finding, by {evidence.shortcut_alarms}"
    return _unless_waived(policy.refuse_shortcut_alarm, quiet, f"shortcut alarm: {found}")


def _adaptation(policy: Policy, evidence: Evidence) -> tuple[bool, str]:
    found, harmless = evidence.adaptation_says if evidence.adaptation else "none was made", evidence.adaptation != HARMED
    return _unless_waived(policy.refuse_harmful_adaptation, harmless, f"adaptation to another hospital: {found}")


GATES: dict[str, Callable[[Policy, Evidence], tuple[bool, str]]] = {
    "auroc": _discrimination,
    "ece": _calibration,
    "size": _size,
    "quality": _quality,
    "leakage": _leakage,
    "shortcuts": _shortcuts,
    "shortcut_alarm": _alarm,
    "adaptation": _adaptation,
}


def evaluate(policy: Policy, evidence: Evidence) -> tuple[Verdict, ...]:
    """What each gate says; an undefined metric (None) never passes."""
    return tuple(Verdict(name, *gate(policy, evidence)) for name, gate in GATES.items())


def _unless_waived(required: bool, passed: bool, words: str) -> tuple[bool, str]:
    return (passed, words) if required else (True, f"{words} (not required by the policy)")


def _number(value: float | None) -> str:
    return "nothing: it is undefined" if value is None else f"{value:.4g}"


def _end(value: float | None, reason: str) -> str:
    """The end of an interval, or why there is none."""
    return f"no interval ({reason})" if value is None else _number(value)
