"""How good a network is on the validation part, as it would answer."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.errors import TrainingError
from pipelines.metrics.discrimination import macro_auroc
from pipelines.metrics.numbers import concordance
from pipelines.records import Head
from pipelines.training.answers import above
from pipelines.training.joint import Joint, Objective, Regression
from pipelines.training.loss import Loss, probabilities
from pipelines.training.material import Material
from pipelines.training.numerics import autocast


def judge(module: nn.Module, validation: Material, loss: Objective, batch_size: int, precision: str) -> tuple[float, float]:
    """Loss, and macro AUROC (or of several tasks the score) of what the network would answer as it is, on the validation part.

    The score says how well each task tells high from low, 0…1 with 0.5 for chance, as the mean by the weights of the tasks: of
    a classification the macro AUROC, of an ordinal one the mean AUROC of its steps, of a regression the concordance, which
    for two values is the AUROC.

    Raises:
        TrainingError: either is not a finite number.
    """
    module.eval()
    logits, labels = [], []
    device = next(itertools.chain(module.parameters(), module.buffers())).device
    with torch.inference_mode(), autocast(device, precision):
        for inputs, known in validation.judging(batch_size):
            logits.append(module(inputs).float())
            labels.append(known)
    everything, truth = torch.cat(logits), torch.cat(labels)
    auroc = _score(loss, everything, truth)
    value = float(loss.judging(everything, truth))
    if np.isnan(auroc) or not np.isfinite(value):
        raise TrainingError(
            f"validation part: expected a loss and {_called(loss)}, got {value} and {auroc}; it needs labelled images with and "
            "without each finding (change split.seed or split.validation), and a lower train.strategy.learning_rate if the "
            "loss is not finite"
        )
    return value, auroc


def _called(loss: Objective) -> str:
    return f"a {loss.task.score}" if isinstance(loss, Joint) else "an AUROC"


def _score(loss: Objective, logits: Tensor, labels: Tensor) -> float:
    if not isinstance(loss, Joint):
        return _auroc(loss, logits, labels)
    parts = zip(loss.task.heads, loss.losses, loss.apart(logits), loss.apart(labels), strict=True)
    scores = [_of_head(head, own, said, known) for head, own, said, known in parts]
    return float(np.average(scores, weights=[head.weight for head in loss.task.heads]))


def _auroc(loss: Loss, logits: Tensor, labels: Tensor) -> float:
    scores = probabilities(loss.unweighted(logits), exclusive=loss.exclusive)
    return macro_auroc(labels.cpu().numpy(), scores.cpu().numpy())


def _of_head(head: Head, loss: Loss | Regression, logits: Tensor, labels: Tensor) -> float:
    if isinstance(loss, Regression):
        return concordance(labels[:, 0].cpu().numpy(), logits[:, 0].cpu().numpy())
    if head.kind != "ordinal":
        return _auroc(loss, logits, labels)
    known = labels.cpu().numpy()
    ranks = np.where(np.isnan(known[:, :1]), np.nan, np.nansum(known, axis=1, keepdims=True))
    steps = np.where(np.isnan(ranks), np.nan, ranks > np.arange(known.shape[1]))
    return macro_auroc(steps, above(loss.unweighted(logits)).cpu().numpy())
