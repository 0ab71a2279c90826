"""The strategies of transfer learning, as data: which layer groups learn, how fast, from what, and what becomes of batch norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BatchNorm = Literal["frozen", "adaptive", "trained"]
SOLVED = ("logistic_regression", "linear_svm", "knn")  # classifiers that a solver finds in one go, without learning rates


@dataclass(frozen=True)
class Strategy:
    """One way to transfer.

    Attributes:
        describes: what it does, for a person.
        learning_rate: the default rate of the head.
        learns: which layer groups learn: the head, the last ones, all, or adapters inside of all.
        pretrained: start from the weights that `train.weights` names, else from random numbers.
        cached: run the frozen backbone once, and learn from its features only.
        decays: the rate of each group is `train.strategy.decay` times that of the next one, from head to stem.
        unfreezes: group after group begins to learn, from head to stem, every `train.strategy.unfreeze_every` epochs.
        relative: each group's rate is scaled by its relative gradient norm, epoch by epoch.
        classifiers: what `train.strategy.classifier` may name, the default first; a strategy that is not cached takes the
            head that the classifier finds as its start.
        anchor: the default pull towards the source weights; 0 for none.
        precise: `train.precision: auto` means fp32, whatever the device can do.
        batch_norm: the default; `frozen` keeps statistics, scale and shift as they were loaded.
        least_steps: optimiser steps of an epoch at least; where one pass over the images has fewer, passes are repeated.
        options: settings of `train.strategy` that it has a use for, besides those that all have.
    """

    describes: str
    learning_rate: float
    learns: Literal["head", "last", "all", "adapters"] = "all"
    pretrained: bool = True
    cached: bool = False
    decays: bool = False
    unfreezes: bool = False
    relative: bool = False
    classifiers: tuple[str, ...] = ()
    anchor: float = 0.0
    precise: bool = False
    batch_norm: BatchNorm = "frozen"
    least_steps: int = 1
    options: tuple[str, ...] = ()

    @property
    def classifier(self) -> str | None:
        """What is put on cached features unless the settings say otherwise; None where no features are cached."""
        return self.classifiers[0] if self.classifiers else None


STRATEGIES: dict[str, Strategy] = {
    "feature_extraction": Strategy(
        describes="a classifier on the features of the frozen backbone, computed once",
        learning_rate=3e-3,
        learns="head",
        cached=True,
        classifiers=("linear", "logistic_regression", "linear_svm", "knn", "mlp"),
        precise=True,
        least_steps=40,
        options=("classifier", "regularisation", "neighbours", "hidden"),
    ),
    "head_only": Strategy(
        describes="the head alone, on augmented images",
        learning_rate=3e-3,
        learns="head",
    ),
    "last_groups": Strategy(
        describes="the head and the last layer groups, each slower than the next one",
        learning_rate=1e-3,
        learns="last",
        decays=True,
        options=("groups", "rates", "anchor"),
    ),
    "gradual": Strategy(
        describes="the head first, then group after group down to the stem, each slower than the next one",
        learning_rate=1e-3,
        decays=True,
        unfreezes=True,
        options=("unfreeze_every", "rates", "anchor"),
    ),
    "lp_ft": Strategy(
        describes="a linear probe on cached features, then all layers at one low rate",
        learning_rate=1e-5,
        classifiers=("logistic_regression", "linear_svm"),
        precise=True,
        options=("classifier", "regularisation", "rates", "anchor"),
    ),
    "full": Strategy(
        describes="all layers at one rate",
        learning_rate=1e-4,
        options=("rates", "anchor"),
    ),
    "differential": Strategy(
        describes="all layers, each group slower than the next one from head to stem",
        learning_rate=1e-3,
        decays=True,
        options=("rates", "anchor"),
    ),
    "auto_rgn": Strategy(
        describes="all layers, each group at a rate by its relative gradient norm",
        learning_rate=1e-3,
        relative=True,
        options=("rates", "anchor"),
    ),
    "lora": Strategy(
        describes="low-rank adapters in the attention of a transformer, merged into its weights",
        learning_rate=1e-3,
        learns="adapters",
        options=("rank",),
    ),
    "l2_sp": Strategy(
        describes="all layers at one rate, pulled towards the weights that they came with",
        learning_rate=1e-4,
        anchor=0.1,
        options=("rates", "anchor"),
    ),
    "scratch": Strategy(
        describes="all layers from random numbers, at one rate",
        learning_rate=1e-3,
        pretrained=False,
        batch_norm="trained",
        options=("rates",),
    ),
}
