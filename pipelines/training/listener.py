"""What a training tells whoever watches it; the core itself prints nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipelines.transfer.strategies import Plan


@dataclass(frozen=True)
class Step:
    """Progress within an epoch: `images` more were learnt from, with this loss, at these rates from stem to head."""

    epoch: int
    images: int
    loss: float
    learning_rates: tuple[float, ...]


@dataclass(frozen=True)
class Epoch:
    """One line of the history; epochs count from 1, and 0 is a solved head that a training began at.

    Attributes:
        train_loss: mean over the epoch's images, with augmentation and dropout; of a classifier that a solver found, the
            cross-entropy on held-out patients of the training part, or on that part itself where it has too few.
        validation_auroc: of several tasks the mean score, see `training.judging`.
        learning_rate_head: the head's rate at the last step.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_auroc: float
    learning_rate_head: float


class Listener(Protocol):
    """Hears what happens, in this order; an exception raised here ends the training as a kill would."""

    def planned(self, plan: Plan) -> None:
        """Before anything is computed: what happens to each layer group."""

    def noted(self, text: str) -> None:
        """Something a person should know, such as a resumed or discarded checkpoint."""

    def extracting(self, done: int, total: int) -> None:
        """`done` of `total` images went through the frozen backbone."""

    def passed(self, images: int) -> None:
        """So many images went through the network besides, to estimate statistics or rates."""

    def epoch_started(self, epoch: int, epochs: int, images: int) -> None:
        """An epoch that will learn from `images` images, repeated passes counted."""

    def stepped(self, step: Step) -> None:
        """After optimiser steps."""

    def epoch_ended(self, epoch: Epoch, *, best: bool) -> None:
        """After validation, once the checkpoint is written; epoch 0 ends without having started."""


class Silence:
    """A listener that does not listen."""

    def planned(self, plan: Plan) -> None: ...

    def noted(self, text: str) -> None: ...

    def extracting(self, done: int, total: int) -> None: ...

    def passed(self, images: int) -> None: ...

    def epoch_started(self, epoch: int, epochs: int, images: int) -> None: ...

    def stepped(self, step: Step) -> None: ...

    def epoch_ended(self, epoch: Epoch, *, best: bool) -> None: ...
