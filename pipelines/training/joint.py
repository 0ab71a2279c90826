"""What is minimised where one network learns several tasks: the sum of their losses, each over the labels that it knows.

The tasks share the backbone; each owns columns of the last layer, and the same columns of the labels. How much a task
counts is fixed, or learned from its uncertainty (Kendall, Gal and Cipolla, CVPR 2018, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pipelines.errors import TrainingError
from pipelines.records import Head, Task
from pipelines.training.loss import Loss, loss_for


@dataclass(frozen=True)
class Regression:
    """Mean squared error of a number, in standard deviations of the training part."""

    mean: float
    sd: float

    @property
    def judging(self) -> Regression:
        return self

    @property
    def shift(self) -> Tensor | None:
        return None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over what is known, in fp32; 0 where nothing is.

        Args:
            logits: (images, 1), the value less `mean`, by `sd`.
            labels: (images, 1), the value, or NaN (unknown).
        """
        known = ~labels.isnan()
        target = torch.where(known, (labels - self.mean) / self.sd, torch.zeros_like(labels))
        each = functional.mse_loss(logits.float(), target, reduction="none")
        return torch.where(known, each, torch.zeros_like(each)).sum() / known.sum().clamp(min=1)


@dataclass(frozen=True)
class Joint:
    """The loss of a task with further tasks.

    Attributes:
        task: whose heads own the columns, in order.
        losses: of each head.
        log_variances: (heads,), log σ² of each, which learn; None where the weights of the heads are fixed.
    """

    task: Task
    losses: tuple[Loss | Regression, ...]
    log_variances: nn.Parameter | None = None

    @property
    def fixed(self) -> Joint:
        """The same with nothing in it that learns: the sum by the weights of the heads."""
        return replace(self, log_variances=None)

    @property
    def judging(self) -> Joint:
        """The same loss of labels as they are, comparable from epoch to epoch."""
        return replace(self.fixed, losses=tuple(loss.judging for loss in self.losses))

    @property
    def learned(self) -> tuple[nn.Parameter, ...]:
        """What learns besides the network."""
        return () if self.log_variances is None else (self.log_variances,)

    @property
    def shift(self) -> Tensor | None:
        """By how much class weights raise the logits, (columns,); see `Loss.shift`."""
        shifts = [loss.shift for loss in self.losses]
        if all(shift is None for shift in shifts):
            return None
        widths = [len(head.columns) for head in self.task.heads]
        return torch.cat([torch.zeros(width) if own is None else own for width, own in zip(widths, shifts, strict=True)])

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Σ w · loss; with uncertainty Σ loss / σ² + log σ, a regression's loss by 2 σ². Both only over heads with known labels.

        Args:
            logits: (images, columns).
            labels: (images, columns), as `Task.everything` gives them; NaN where unknown.
        """
        parts = zip(self.task.heads, self.losses, self.apart(logits), self.apart(labels), strict=True)
        total = logits.float().sum() * 0.0
        for number, (head, loss, said, known) in enumerate(parts):
            if known.isnan().all():
                continue
            value = loss(said, known)
            if self.log_variances is None:
                total = total + head.weight * value
            else:
                log_variance = self.log_variances[number].to(value.device)
                total = total + _share(head) * (-log_variance).exp() * value + log_variance / 2
        return total

    def apart(self, columns: Tensor) -> Sequence[Tensor]:
        """Columns of the network or of the labels by head."""
        return torch.split(columns, [len(head.columns) for head in self.task.heads], dim=1)

    def weights(self, log_variances: Sequence[float]) -> dict[str, dict[str, float]]:
        """What learned log variances mean: the weight of each head's loss, for the model card."""
        return {
            head.title: {"log_variance": value, "weight": _share(head) * float(np.exp(-value))}
            for head, value in zip(self.task.heads, log_variances, strict=True)
        }


Objective: TypeAlias = Loss | Joint


def loss_of(
    task: Task, labels: NDArray[np.float32], class_weighting: str, *, smoothing: float = 0.0, soft: bool = False
) -> Objective:
    """The loss of a task, and of the further ones that it has.

    Class weights and smoothing are of classifications; an ordinal task has them for each step between classes.

    Args:
        labels: of the training part, (images, columns), as `Task.everything` gives them.

    Raises:
        TrainingError: an output or step has no positive, or no negative, or a regression fewer than two values, in the training
            part.
    """
    if not task.also:
        return loss_for(task, labels, class_weighting, smoothing=smoothing, soft=soft)
    known = scales(task, labels)
    losses: list[Loss | Regression] = []
    for head, own in zip(task.heads, apart(task, labels), strict=True):
        if head.kind == "regression":
            losses.append(Regression(*known[head.name]))
        else:
            losses.append(loss_for(head, own, class_weighting, smoothing=smoothing, soft=soft))
    learned = nn.Parameter(torch.zeros(len(losses))) if task.weighting == "uncertainty" else None
    return Joint(task, tuple(losses), learned)


def apart(task: Task, labels: NDArray[Any]) -> list[NDArray[Any]]:
    """Labels (images, columns) by head."""
    return np.split(labels, np.cumsum([len(head.columns) for head in task.heads])[:-1], axis=1)


def scales(task: Task, labels: NDArray[np.float32]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each regression's known values in the training part, by the name of the task.

    Raises:
        TrainingError: there are fewer than two different values.
    """
    found = {}
    for head, own in zip(task.heads, apart(task, labels), strict=True):
        if head.kind == "regression":
            values = own[~np.isnan(own)].astype(np.float64)
            if len(np.unique(values)) < 2:
                raise TrainingError(
                    f"train part, task {head.title}: expected at least two different values, got {len(values)} known values of "
                    f"{len(np.unique(values))} kinds; add labels, take the task out of task.also, or change split.seed"
                )
            found[head.name] = (float(values.mean()), float(values.std()))
    return found


def require_judgeable(
    task: Task,
    labels: NDArray[np.float32],
    part: str = "validation part",
    remedy: str = "change split.seed or split.validation",
) -> None:
    """Refuse images by which a further task cannot be judged, before anything is learnt.

    Args:
        labels: (images, columns), as `Task.everything` gives them.
        part: what they are, and what to change besides the labels, for the error.

    Raises:
        TrainingError: of a further task there are no two classes, or values.
    """
    for head, own in zip(task.also, apart(task, labels)[1:], strict=True):
        columns = own.T
        if head.kind == "multiclass":
            columns = np.where(np.isnan(own).any(axis=1), np.nan, own.argmax(axis=1))[None]
        elif head.kind == "ordinal":
            columns = np.where(np.isnan(own[:, 0]), np.nan, np.nansum(own, axis=1))[None]
        for name, column in zip(head.columns, columns, strict=False):
            if len(np.unique(column[~np.isnan(column)])) < 2:
                where = f"output {name}" if head.kind in ("binary", "multilabel") else f"{head.targets[0]}"
                raise TrainingError(
                    f"{part}, task {head.title}: expected images that differ in {where}, got none; "
                    f"add labels, take the task out of task.also, or {remedy}"
                )


def _share(head: Head) -> float:
    """Of a loss that is a negative log likelihood with the variance σ²: 1 / (2 σ²) of squares, 1 / σ² of cross-entropies."""
    return 0.5 if head.kind == "regression" else 1.0
