"""Which strategy suits the data: `train.strategy.name: recommended` reads their fingerprint and looks into a short table.

The table holds what was measured (benchmarks/label_efficiency.md), and nothing else: on real radiographs, from 16 labelled
images (of four to seven patients in the rarer class) to 400, all layers at rates that decay from head to stem, with batch
norm frozen, were not surely worse than any other strategy measured there. At 8 images, of two or three such patients, the
head and one layer group do as well as all groups do, in about 6/10 of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config import StrategySection
from pipelines.transfer.folds import fewest

RECOMMENDED = "recommended"
MEASURED = 400  # images, at most


@dataclass(frozen=True)
class Fingerprint:
    """What the training part is like.

    Attributes:
        images: labelled ones.
        patients: of those images.
        fewest: patients with, or without, a finding: the smallest of these numbers over the outputs.
        pretrained: there are weights to start from.
    """

    images: int
    patients: int
    fewest: int
    pretrained: bool

    def describe(self) -> str:
        start = "weights to start from" if self.pretrained else "no weights"
        return f"{self.images} labelled images of {self.patients} patients, {self.fewest} in the rarest class, {start}"


@dataclass(frozen=True)
class Rule:
    """What is recommended where its conditions hold.

    Attributes:
        pretrained: for a start from weights, or from random numbers.
        least: patients in the rarest class, at least.
        settings: of `train.strategy`.
        why: for the log and the model card.
    """

    pretrained: bool
    least: int
    settings: dict[str, Any]
    why: str


RULES = (
    Rule(
        pretrained=True,
        least=4,
        settings={"name": "differential"},
        why="the best of the strategies measured, or not told apart from it, at every size from 16 to 400 images "
        "(MobileNetV2, children's chest radiographs)",
    ),
    Rule(
        pretrained=True,
        least=0,
        settings={"name": "last_groups", "groups": 1},
        why="with so few labels the last layer group does as well as all of them, in less time (measured at 8 images)",
    ),
    Rule(
        pretrained=False,
        least=0,
        settings={"name": "scratch"},
        why="there are no weights to transfer from; those of a source are worth many labels, see train.weights",
    ),
)


@dataclass(frozen=True)
class Recommendation:
    """The settings in the place of `recommended`, and one line that says what they are and why."""

    settings: StrategySection
    line: str


def fingerprint(labels: NDArray[np.float32], patients: NDArray[np.int64], *, pretrained: bool) -> Fingerprint:
    """The fingerprint of a training part.

    Args:
        labels: (images, outputs), 0, 1 or NaN; images without any known label do not count.
        patients: (images,), numbers.
        pretrained: there are weights to start from.
    """
    known = ~np.isnan(labels).all(axis=1)
    labels, patients = labels[known], patients[known]
    return Fingerprint(len(labels), len(np.unique(patients)), fewest(labels.astype(np.float64), patients), pretrained)


def recommend(settings: StrategySection, found: Fingerprint) -> Recommendation:
    """Put what suits the data in the place of `recommended`; what is set besides stays as it is."""
    rule = next(rule for rule in RULES if rule.pretrained == found.pretrained and found.fewest >= rule.least)
    chosen = {name: value for name, value in rule.settings.items() if name == "name" or getattr(settings, name) is None}
    line = f"recommended: {_spelled(chosen)} for {found.describe()}: {rule.why}"
    if found.pretrained and found.images > MEASURED:
        line += "; these are more images than were measured, and radtransfer compare says what is best here"
    return Recommendation(settings.model_copy(update=chosen), line)


def _spelled(settings: dict[str, Any]) -> str:
    options = ", ".join(f"{name} {value}" for name, value in settings.items() if name != "name")
    return str(settings["name"]) + (f" ({options})" if options else "")
