"""What is minimised: cross-entropies in which unknown labels do not count."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipelines.errors import TrainingError
from pipelines.records import Head


@dataclass(frozen=True)
class Loss:
    """The loss of a task.

    Attributes:
        exclusive: the outputs are classes of which one is true (softmax), else each is judged alone (sigmoid).
        weights: (outputs,), the weight of a positive of each output, or of each class; None weighs all alike.
        smoothing: share of each label that is spread evenly: over 0 and 1, or over the classes.
        soft: labels between 0 and 1 may come, from mixup.
    """

    exclusive: bool
    weights: Tensor | None = None
    smoothing: float = 0.0
    soft: bool = False

    @property
    def judging(self) -> Loss:
        """The same loss of labels as they are, for what is judged rather than learnt from."""
        return replace(self, smoothing=0.0, soft=False)

    @property
    def shift(self) -> Tensor | None:
        """By how much the weights raise the logits of a network that minimises the loss, (outputs,); None without weights.

        A class of weight w is learnt as if it were w times as frequent, so its logit comes out log w too high (Elkan,
        IJCAI 2001).
        """
        return None if self.weights is None else self.weights.log()

    def unweighted(self, logits: Tensor) -> Tensor:
        """The logits (images, outputs) without `shift`; classes of a softmax are ranked otherwise with it."""
        return logits if self.shift is None else logits - self.shift.to(logits)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over what is known, in fp32; 0 where nothing is.

        Args:
            logits: (images, outputs).
            labels: (images, outputs), 0, 1, between them if `soft`, or NaN (unknown); for exclusive outputs rows that sum to
                1, one-hot unless `soft`, or rows of NaN.
        """
        logits = logits.float()
        weights = None if self.weights is None else self.weights.to(logits.device)
        if self.exclusive:
            known = ~labels.isnan().any(dim=1)
            if not known.any():
                return logits.sum() * 0.0
            if not self.soft and not self.smoothing:
                return functional.cross_entropy(logits[known], labels[known].argmax(dim=1), weight=weights)
            return self._soft_cross_entropy(logits[known], labels[known], weights)
        known = ~labels.isnan()
        target = torch.where(known, labels, torch.zeros_like(labels))
        if self.smoothing:
            target = (1 - self.smoothing) * target + self.smoothing / 2
        each = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weights, reduction="none")
        return torch.where(known, each, torch.zeros_like(each)).sum() / known.sum().clamp(min=1)

    def _soft_cross_entropy(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """−Σ w y log p / Σ w y over images and classes, which for one-hot labels is the weighted mean above."""
        target = (1 - self.smoothing) * labels + self.smoothing / labels.shape[1]
        weighted = target if weights is None else target * weights
        return -(weighted * logits.log_softmax(dim=1)).sum() / weighted.sum()


def loss_for(
    task: Head, labels: NDArray[np.float32], class_weighting: str, *, smoothing: float = 0.0, soft: bool = False
) -> Loss:
    """The loss of one classification, weighted by the prevalence in the training labels (images, columns) if so configured.

    `balanced` gives a positive of an output negatives / positives times the weight of a negative, and a class of a
    multiclass target images / (classes × images of the class).

    Raises:
        TrainingError: an output has no positive, or (unless multiclass) no negative, in the training part.
    """
    exclusive = task.kind == "multiclass"
    positives, negatives = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    for name, with_it, without in zip(task.columns, positives, negatives, strict=True):
        if not with_it or not without:
            raise TrainingError(
                f"train part, output {name}: expected images with and without it, got {with_it} with and {without} without; "
                "add labelled images, take the output out of task, or change split.seed"
            )
    if class_weighting == "none":
        return Loss(exclusive, None, smoothing, soft)
    weights = positives.sum() / (len(positives) * positives) if exclusive else negatives / positives
    return Loss(exclusive, torch.tensor(weights, dtype=torch.float32), smoothing, soft)


def probabilities(logits: Tensor, *, exclusive: bool) -> Tensor:
    """Softmax over exclusive outputs, else a sigmoid of each, in fp32."""
    return logits.float().softmax(dim=1) if exclusive else logits.float().sigmoid()
