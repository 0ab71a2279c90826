"""One training from end to end: the plan into effect, features cached where the backbone is frozen, then the loop."""

from __future__ import annotations

from dataclasses import replace

import torch

from pipelines.config import TrainSection
from pipelines.errors import TrainingError
from pipelines.models.backbones import Network
from pipelines.records import Task
from pipelines.training.batches import Examples
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.listener import Listener
from pipelines.training.loop import Fitted, deterministic, fit
from pipelines.training.loss import loss_for
from pipelines.training.material import Images, extract
from pipelines.transfer import strategies
from pipelines.transfer.strategies import Plan


def learn(
    network: Network,
    plan: Plan,
    task: Task,
    train: Examples,
    validation: Examples,
    settings: TrainSection,
    listener: Listener,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Train `network`, which is on its device, as `plan` says, and leave the best epoch's weights in it.

    Images without any known label are left out of both parts. What class weighting added to the logits is taken from the
    head's bias in the end, so that probabilities are those of the training prevalence, and calibrated as far as training goes.

    Raises:
        TrainingError: a part holds no labelled image, an output has one class only, or the loss is not finite.
    """
    train, validation = train.labelled(), validation.labelled()
    for name, part in (("train", train), ("validation", validation)):
        if not len(part):
            raise TrainingError(f"{name} part: expected labelled images, got none; add labels or change split.seed")
    loss = loss_for(task, train.labels, settings.class_weighting)
    strategies.apply(network, plan)
    device = next(network.parameters()).device
    if plan.cached:
        with deterministic(device):
            features, speed = extract(network, (train, validation), settings.batch_size, listener, checkpoint)
        fitted = fit(network, plan, features[0], features[1], loss, settings, listener, checkpoint)
        fitted = replace(fitted, images_per_second=speed)
    else:
        images = [Images(part, settings.augment, device) for part in (train, validation)]
        fitted = fit(network, plan, images[0], images[1], loss, settings, listener, checkpoint)
    if loss.shift is not None:
        network.lower_logits(loss.shift)
    return fitted


def place(network: Network, device: torch.device) -> Network:
    """Move a network to its device, with channels last where convolutions are faster so."""
    if device.type == "mps":
        return network.to(device)
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
