"""How good a network is on the validation part, as it would answer."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn

from pipelines.errors import TrainingError
from pipelines.metrics.discrimination import macro_auroc
from pipelines.training.loss import Loss, probabilities
from pipelines.training.material import Material
from pipelines.training.numerics import autocast


def judge(module: nn.Module, validation: Material, loss: Loss, batch_size: int, precision: str) -> tuple[float, float]:
    """Loss, and macro AUROC of the probabilities that the network would give as it is, on the validation part.

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
    scores = probabilities(loss.unweighted(everything), exclusive=loss.exclusive)
    auroc = macro_auroc(truth.cpu().numpy(), scores.cpu().numpy())
    value = float(loss.judging(everything, truth))
    if np.isnan(auroc) or not np.isfinite(value):
        raise TrainingError(
            f"validation part: expected a loss and an AUROC, got {value} and {auroc}; it needs labelled images with and "
            "without each finding (change split.seed or split.validation), and a lower train.strategy.learning_rate if the "
            "loss is not finite"
        )
    return value, auroc
