"""From the network's outputs to what a person is told: probabilities, values with their unit, classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.records import Head, Task, class_column, probability_column, value_column
from pipelines.training.loss import probabilities


def tell(task: Task, logits: Tensor, scales: Mapping[str, tuple[float, float]]) -> Tensor:
    """The answers (images, all answers of the task) to logits (images, columns), in fp32.

    Args:
        scales: mean and standard deviation of each regression's training values, by the name of the task.
    """
    parts = torch.split(logits.float(), [len(head.columns) for head in task.heads], dim=1)
    return torch.cat([_tell(head, part, scales) for head, part in zip(task.heads, parts, strict=True)], dim=1)


def above(logits: Tensor) -> Tensor:
    """Chance to be above each class but the last (images, steps), never rising, of an ordinal task's logits.

    Each logit is for a step, given that the one before is taken, so chances multiply (CORN; see `records.Head.matrix`).
    """
    return logits.float().sigmoid().cumprod(dim=1)


def likeliest(head: Head, answers: NDArray[Any]) -> NDArray[np.int64]:
    """The place of the class that answers (images, classes) speak for: the likeliest, or of an ordinal task the median."""
    if head.kind == "ordinal":
        steps = 1 - np.cumsum(answers.astype(np.float64), axis=1)[:, :-1]
        return np.asarray((steps > 0.5).sum(axis=1), dtype=np.int64)
    return np.asarray(np.nan_to_num(answers, nan=-1.0).argmax(axis=1), dtype=np.int64)


def columns(head: Head, answers: NDArray[Any], thresholds: Mapping[str, float], usable: NDArray[np.bool_]) -> dict[str, Any]:
    """The columns of a table that hold the answers (images, answers) of one task.

    Args:
        thresholds: of each output that is called positive or negative.
        usable: images that there is an answer for; the others hold NaN, or nothing.
    """
    import pandas as pd

    found: dict[str, Any] = {}
    for number, name in enumerate(head.outputs):
        found[probability_column(name)] = answers[:, number]
        if name in thresholds:
            positive = pd.Series(answers[:, number] >= thresholds[name], dtype="boolean")
            found[f"positive_{name}"] = positive.where(usable)
    if head.kind in ("multiclass", "ordinal"):
        classes = [head.classes[number] for number in likeliest(head, answers)]
        found[class_column(head.name)] = pd.Series(classes, dtype=object).where(usable, None)
    if head.kind == "regression":
        found[value_column(head.name)] = answers[:, 0]
    return found


def _tell(head: Head, logits: Tensor, scales: Mapping[str, tuple[float, float]]) -> Tensor:
    if head.kind == "regression":
        mean, sd = scales[head.name]
        return logits * sd + mean
    if head.kind == "ordinal":
        chances = torch.cat([torch.ones_like(logits[:, :1]), above(logits), torch.zeros_like(logits[:, :1])], dim=1)
        return chances[:, :-1] - chances[:, 1:]
    return probabilities(logits, exclusive=head.kind == "multiclass")
