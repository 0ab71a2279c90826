"""Whether an adaptation to a hospital without labels helped: what can be seen without labels, and what only labels tell.

That features of two hospitals look alike does not make the answers right: where the finding is rarer there, or looks
otherwise, making them alike does harm (Zhao et al., ICML 2019). So without labels of the target nobody can know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.metrics.discrimination import auroc, macro_auroc
from pipelines.metrics.paired import gains
from pipelines.metrics.power import patients_to_settle
from pipelines.records import HARMED
from pipelines.transfer import probes
from pipelines.transfer.discrepancy import coral, mmd, standardised
from pipelines.transfer.folds import fewest

HELPED, NOT_HELPED, UNKNOWN = "helped", "did not help", "cannot be known"  # and HARMED
WORTH_KNOWING = 0.05  # of AUROC
USUAL = 0.8  # AUROC on a target of which nothing is known: that on the source is no guide to it
CLOSER = 0.02  # by which the AUROC of a classifier of hospitals has to fall, unless it cannot tell them anyway
TOLD_APART = 0.6  # from which on it can
SHIFTED = 0.15  # between mean probability there and prevalence here, from which on prevalences probably differ
COLLAPSED = 0.25  # of the spread of the probabilities without adaptation
FEWEST = 10  # labelled patients of the target with, and without, a finding: below, an interval says nothing
MOST = 400  # images of each hospital that tell them apart
CONTROL, CHANCE = "control", "chance"


@dataclass(frozen=True)
class Seen:
    """What one network makes of held-out images of one hospital.

    Attributes:
        features: (images, width).
        scores: (images, outputs), probabilities.
        labels: (images, outputs), 0, 1 or NaN.
        patients: (images,), pseudonyms or numbers.
    """

    features: NDArray[Any]
    scores: NDArray[Any]
    labels: NDArray[Any]
    patients: NDArray[Any]


@dataclass(frozen=True)
class Looks:
    """Held-out images of both hospitals, as one network sees them."""

    source: Seen
    target: Seen


@dataclass(frozen=True)
class Judgement:
    """What became of an adaptation.

    Attributes:
        verdict: helped, did not help, harmed, or cannot be known.
        says: the same in a sentence, with its figures.
        warnings: signs of harm that need no labels, in sentences.
        figures: all that was measured, as plain values.
    """

    verdict: str
    says: str
    warnings: tuple[str, ...]
    figures: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {"verdict": self.verdict, "says": self.says, "warnings": list(self.warnings), **self.figures}

    def describe(self) -> str:
        return "\n".join([self.says, *self.warnings])


def judge(
    before: Looks | None, after: Looks, prevalence: NDArray[Any], *, outputs: Sequence[str], resamples: int, seed: int
) -> Judgement:
    """Compare the network without (`before`) and with adaptation (`after`) on the same held-out images.

    Args:
        before: None where no control was trained.
        after: of the adapted network.
        prevalence: (outputs,), among the labels that were learnt from.
        outputs: their names.
        resamples: bootstrap resamples of patients.
        seed: of the bootstrap, and of the images that tell the hospitals apart.
    """
    apart = {name: _apart(looks, seed) for name, looks in (("before", before), ("after", after)) if looks}
    pairs = {
        "source": (before.source if before else None, after.source),
        "target": (before.target if before else None, after.target),
    }
    gained = {domain: _gained(*pair, outputs, resamples, seed) for domain, pair in pairs.items()}
    figures = {
        "held_out": {domain: _counts(seen) for domain, (_, seen) in pairs.items()},
        "apart": apart,
        **gained,
        "mean_probability": _prevalences(before, after, prevalence, outputs),
    }
    verdict, says = _verdict(gained["target"], apart, after.target)
    return Judgement(verdict, says, tuple(_warnings(before, after, gained["source"], apart, prevalence, outputs)), figures)


def _counts(seen: Seen) -> dict[str, int]:
    known = ~np.isnan(seen.labels).all(axis=1)
    return {
        "images": len(seen.labels),
        "patients": len(np.unique(seen.patients)),
        "labelled_patients": len(np.unique(seen.patients[known])),
    }


def _apart(looks: Looks, seed: int) -> dict[str, float | None]:
    """How well a linear classifier tells the hospitals by features, cross-validated over patients; and the discrepancies."""
    source, target = (_some(seen, seed) for seen in (looks.source, looks.target))
    if not len(source.features) or not len(target.features):
        return {"auroc_of_hospital": None, "coral": None, "mmd": None}
    features = np.concatenate([source.features, target.features]).astype(np.float64)
    domain = np.repeat([0.0, 1.0], [len(source.features), len(target.features)])
    patients = np.unique(np.concatenate([source.patients, target.patients]).astype(str), return_inverse=True)[1]
    logits = probes.held_out("logistic_regression", probes.Examples(features, domain[:, None], patients.astype(np.int64), False))
    told = ~np.isnan(logits[:, 0])
    area = auroc(domain[told], logits[told, 0])
    pair = standardised(*(torch.from_numpy(each.features).float() for each in (source, target)))
    return {
        "auroc_of_hospital": None if np.isnan(area) else round(area, 6),
        "coral": round(float(coral(*pair)), 6),
        "mmd": round(float(mmd(*pair)), 6),
    }


def _some(seen: Seen, seed: int) -> Seen:
    """At most `MOST` images."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(seen.features))[:MOST])
    return Seen(seen.features[chosen], seen.scores[chosen], seen.labels[chosen], seen.patients[chosen])


def _gained(before: Seen | None, after: Seen, outputs: Sequence[str], resamples: int, seed: int) -> dict[str, Any]:
    """AUROC with and without, the paired difference, and that to chance; None where labels or the control are missing."""
    area = macro_auroc(after.labels, after.scores)
    found: dict[str, Any] = {"auroc": None, CONTROL: None, "gain": None, "above_chance": None}
    if np.isnan(area):
        return found
    rivals = {CHANCE: np.zeros_like(after.scores)} | ({CONTROL: before.scores} if before else {})
    gain = gains(after.labels, after.scores, rivals, after.patients, outputs=outputs, resamples=resamples, seed=seed)
    found |= {"auroc": round(area, 6), "above_chance": gain[CHANCE].macro.to_dict()}
    if before:
        found |= {CONTROL: round(macro_auroc(before.labels, before.scores), 6), "gain": gain[CONTROL].macro.to_dict()}
    return found


def _prevalences(
    before: Looks | None, after: Looks, prevalence: NDArray[Any], outputs: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """For each output: prevalence here, mean probability there without and with adaptation."""
    return {
        name: {
            "source_prevalence": round(float(prevalence[k]), 4),
            "target_before": _mean(before.target.scores[:, k]) if before else None,
            "target_after": _mean(after.target.scores[:, k]),
        }
        for k, name in enumerate(outputs)
    }


def _mean(scores: NDArray[Any]) -> float | None:
    return round(float(scores.mean()), 4) if len(scores) else None


def _verdict(target: Mapping[str, Any], apart: Mapping[str, Any], seen: Seen) -> tuple[str, str]:
    gain = target["gain"]
    if gain is not None:
        amount = f"AUROC on the target {_difference(gain)}, {target[CONTROL]:.3f} without and {target['auroc']:.3f} with it"
        if (few := _fewest(seen)) < FEWEST or gain["low"] is None:
            return UNKNOWN, (
                f"cannot be known: {amount}, but only {few} labelled held-out patients are of the rarer kind, and an interval "
                f"takes {FEWEST} of each; {_needed()}"
            )
        chance = (target["above_chance"]["low"] or 0) <= 0
        if gain["low"] > 0 and not chance:
            return HELPED, f"helped: {amount}"
        if gain["high"] < 0:
            return HARMED, f"harmed: {amount}; set train.adaptation.method: null"
        if chance:
            return NOT_HELPED, f"did not help: {amount}, not shown to be better than chance; label some images of the target"
        return NOT_HELPED, f"did not help: {amount}, which cannot be told from none; {_needed(target['auroc'])}"
    if target["auroc"] is not None:
        return UNKNOWN, (
            f"cannot be known: AUROC on the target {target['auroc']:.3f}, and nothing to compare it with; "
            "set train.adaptation.control: true"
        )
    return UNKNOWN, f"cannot be known: {_lacks(seen)}{_closer(apart)}; {_needed()}"


def _lacks(seen: Seen) -> str:
    """Why nothing can be judged."""
    patients, labelled = len(np.unique(seen.patients)), _labelled(seen)
    if not patients:
        return "no image of the target was held out"
    if not labelled:
        return f"none of the {patients} held-out patients of the target has a label"
    return f"the {labelled} labelled held-out patients of the target are all of one kind"


def _labelled(seen: Seen) -> int:
    return _counts(seen)["labelled_patients"]


def _difference(gain: Mapping[str, Any]) -> str:
    ends = "" if gain["low"] is None else f" [{gain['low']:+.3f}, {gain['high']:+.3f}]"
    return f"{gain['value']:+.3f}{ends}"


def _closer(apart: Mapping[str, Any]) -> str:
    values = [apart[name]["auroc_of_hospital"] for name in ("before", "after") if name in apart]
    if len(values) < 2 or None in values:
        return ""
    return (
        f"; features tell the hospitals apart with an AUROC of {values[1]:.3f} (without it {values[0]:.3f}), which says nothing "
        "about right answers"
    )


def _fewest(seen: Seen) -> int:
    """Of the patients with, and without, each output that has an AUROC: the smallest number."""
    judged = [k for k, column in enumerate(seen.labels.T) if {0, 1} <= set(column)]
    return fewest(seen.labels[:, judged], seen.patients)


def _needed(area: float | None = None) -> str:
    number = patients_to_settle(area or USUAL, WORTH_KNOWING)
    where = "" if area else f" of an AUROC near {USUAL:g}"
    return (
        f"about {number:,} labelled patients of the target, half of them with the finding, would show a difference of "
        f"{WORTH_KNOWING:g}{where}"
    )


def _warnings(
    before: Looks | None,
    after: Looks,
    source: Mapping[str, Any],
    apart: Mapping[str, Any],
    prevalence: NDArray[Any],
    outputs: Sequence[str],
) -> list[str]:
    said = []
    cost = source["gain"]
    if cost is not None and cost["high"] is not None and cost["high"] < 0:
        said.append(f"on held-out patients of the source, AUROC fell: {_difference(cost)}")
    values = [apart[name]["auroc_of_hospital"] for name in ("before", "after") if name in apart]
    if len(values) == 2 and None not in values and values[1] > max(values[0] - CLOSER, TOLD_APART):
        said.append(
            f"the features tell the hospitals apart as before: AUROC {values[1]:.3f} with, {values[0]:.3f} without adaptation"
        )
    if before is None or not len(after.target.scores):
        return said
    for k, name in enumerate(outputs):
        there = float(before.target.scores[:, k].mean())
        if abs(there - prevalence[k]) > SHIFTED:
            said.append(
                f"{name}: {prevalence[k]:.0%} of the labels learnt from are positive, the mean probability on the target is "
                f"{there:.0%} without adaptation; if the finding is that much {'rarer' if there < prevalence[k] else 'commoner'} "
                "there, features made alike give wrong answers (Zhao et al., ICML 2019)"
            )
        spreads = [float(looks.target.scores[:, k].std()) for looks in (before, after)]
        if spreads[1] < COLLAPSED * spreads[0]:
            said.append(
                f"{name}: collapse, the probabilities on the target hardly differ: standard deviation {spreads[1]:.3f}, "
                f"without adaptation {spreads[0]:.3f}"
            )
    return said
