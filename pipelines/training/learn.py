"""One training from end to end: the plan into effect, features cached where the backbone is frozen, then the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from pipelines.config import TrainSection
from pipelines.errors import ConfigurationError, TrainingError
from pipelines.models import heads
from pipelines.models.backbones import Network
from pipelines.processes import keep_memory
from pipelines.records import Task
from pipelines.training.adaptation_steps import adaptation
from pipelines.training.batches import Examples, even
from pipelines.training.checkpoint import Checkpoint, Saved
from pipelines.training.joint import Objective, loss_of, require_judgeable
from pipelines.training.judging import judge
from pipelines.training.listener import Epoch, Listener
from pipelines.training.loop import Fitted, fit
from pipelines.training.loss import Loss
from pipelines.training.material import Features, Images, Material, extract
from pipelines.training.numerics import deterministic, precision_for
from pipelines.transfer import adapters, checks, probes, strategies
from pipelines.transfer.batch_norm import adapt, batch_norms
from pipelines.transfer.probes import Solved
from pipelines.transfer.stochastic_depth import set_stochastic_depth
from pipelines.transfer.strategies import Plan

STEPWISE = ("linear", "mlp")  # classifiers that learn in steps


@dataclass(frozen=True)
class Ready:
    """A network with its plan in effect, and what it learns from.

    Attributes:
        train: images, or cached features where the plan says so.
        validation: likewise.
        loss: of the training part.
        solved: the head that a solver has found, if one has.
        images_per_second: through the frozen backbone; 0 if no features were computed.
        finish: what is done to the network once its weights are final.
    """

    train: Material
    validation: Material
    loss: Objective
    solved: Solved | None
    images_per_second: float
    finish: Callable[[], None]


def learn(
    network: Network,
    plan: Plan,
    task: Task,
    train: Examples,
    validation: Examples,
    settings: TrainSection,
    listener: Listener,
    checkpoint: Checkpoint | None = None,
    target: Examples | None = None,
) -> Fitted:
    """Train `network`, which is on its device, as `plan` says, and leave the best epoch's weights in it.

    Images without any known label are left out of both parts. What class weighting added to the logits is taken from the
    head's bias in the end, so that probabilities are those of the training prevalence, and calibrated as far as training goes.
    Adapters are merged, so that the network is plain again.

    Args:
        target: images of the hospital to adapt to, whose labels are not looked at; for methods that do so in steps.

    Raises:
        ConfigurationError: a regulariser that the strategy has no use for, or that the network has no place for.
        TrainingError: a part holds no labelled image, an output has one class only, or the loss is not finite.
    """
    ready = prepare(network, plan, task, train, validation, settings, listener, checkpoint)
    if unused := checks.unused(plan, settings):
        listener.noted(unused)
    if plan.solved and ready.solved:
        fitted = _judged(network, plan, ready.solved, ready, settings, listener)
    else:
        begun = ready.solved.loss if ready.solved else None
        beside = adaptation(settings, target, network)
        fitted = fit(network, plan, ready.train, ready.validation, ready.loss, settings, listener, checkpoint, begun, beside)
    ready.finish()
    if ready.solved:
        fitted = replace(fitted, details={**fitted.details, "classifier": dict(ready.solved.details)})
    if not fitted.best_epoch:
        listener.noted(f"no epoch was better on validation than the {plan.classifier} that training began at, which is kept")
    return replace(fitted, images_per_second=ready.images_per_second) if plan.cached else fitted


def prepare(
    network: Network,
    plan: Plan,
    task: Task,
    train: Examples,
    validation: Examples,
    settings: TrainSection,
    listener: Listener,
    checkpoint: Checkpoint | None = None,
) -> Ready:
    """Put the plan into effect, up to where the network can learn in steps; arguments and errors as for `learn`."""
    if next(network.parameters()).device.type == "cpu":
        keep_memory()
    _check(plan, settings, task)
    _tell_of_late_groups(plan, settings, listener)
    train, validation = (_labelled(name, part) for name, part in (("train", train), ("validation", validation)))
    weighting, smoothing = settings.class_weighting, settings.label_smoothing
    loss = loss_of(task, train.labels, weighting, smoothing=smoothing, soft=settings.mixup > 0)
    require_judgeable(task, validation.labels)
    if settings.stochastic_depth is not None:
        set_stochastic_depth(network, settings.stochastic_depth)
    if plan.batch_norm == "adaptive":
        _adapt(network, train, settings.batch_size, listener, checkpoint)
    strategies.apply(network, plan, settings.seed)
    if plan.classifier is None:
        return _on_images(network, plan, (train, validation), loss, settings)
    device = next(network.parameters()).device
    with deterministic(device):
        features, speed = extract(network, (train, validation), settings.batch_size, listener, checkpoint)
        if plan.classifier in STEPWISE:
            return _stepwise(network, plan, features, loss, speed)
        loss = cast(Loss, loss)  # a solver finds the head of one classification
        solved = _solved(network, plan, features[0], train, loss, settings, listener, checkpoint)
        network.head = solved.head.to(device)
        shifted = loss if solved.shifted else replace(loss, weights=None)
        if np.isnan(solved.loss):  # no patients could be held out
            own, _ = judge(network.head, features[0], shifted, settings.batch_size, precision_for(plan, settings))
            solved = replace(solved, loss=own)
    if not plan.cached:
        strategies.apply(network, plan, settings.seed)  # of the new head, too
        return replace(_on_images(network, plan, (train, validation), loss, settings), solved=solved)
    return Ready(features[0], features[1], shifted, solved, speed, lambda: _finish(network, plan, shifted))


def _labelled(name: str, part: Examples) -> Examples:
    known = part.labelled()
    if not len(known):
        raise TrainingError(f"{name} part: expected labelled images, got none; add labels or change split.seed")
    return known


def _on_images(network: Network, plan: Plan, parts: tuple[Examples, Examples], loss: Objective, settings: TrainSection) -> Ready:
    device = next(network.parameters()).device
    train, validation = (Images(part, settings.augment, device) for part in parts)
    return Ready(train, validation, loss, None, 0.0, lambda: _finish(network, plan, loss))


def _tell_of_late_groups(plan: Plan, settings: TrainSection, listener: Listener) -> None:
    if late := [group.name for group in plan.groups if group.learning_rate and group.from_epoch > settings.epochs]:
        listener.noted(
            f"train.epochs: {settings.epochs}, too few for {', '.join(late)} to learn; raise it, or lower "
            "train.strategy.unfreeze_every"
        )


def place(network: Network, device: torch.device) -> Network:
    """Move a network to its device, with channels last where convolutions are faster so."""
    if device.type == "mps":
        return network.to(device)
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _check(plan: Plan, settings: TrainSection, task: Task) -> None:
    """Refuse what works on steps where there are none, on blocks that do not learn, and a solver for several tasks."""
    if task.also and plan.classifier is not None and plan.classifier not in STEPWISE:
        remedy = "train.strategy.classifier: linear or mlp" if plan.cached else "another strategy, e.g. differential"
        raise ConfigurationError(
            f"params.yaml train.strategy: expected one that learns in steps for a task with further ones (task.also), got "
            f"{plan.strategy} with {plan.classifier}, which a solver finds for one classification; choose {remedy}"
        )
    if settings.stochastic_depth and not any(group.learning_rate for group in plan.groups[:-1]):
        raise ConfigurationError(
            f"params.yaml train.stochastic_depth: expected null or 0 for {plan.strategy}, whose backbone does not learn, "
            f"got {settings.stochastic_depth:g}"
        )
    if not plan.solved:
        return
    for name, neutral in (("label_smoothing", 0.0), ("mixup", 0.0), ("ema", None)):
        if (value := getattr(settings, name)) != neutral:
            raise ConfigurationError(
                f"params.yaml train.{name}: expected {'null' if neutral is None else '0'} for the classifier {plan.classifier}, "
                f"which a solver finds in one go, got {value}; choose linear or mlp to learn in steps"
            )


def _adapt(network: Network, train: Examples, batch_size: int, listener: Listener, checkpoint: Checkpoint | None) -> None:
    """Batch-norm statistics of the training images, or those that an interrupted training has estimated."""
    device = next(network.parameters()).device
    saved = checkpoint.read("batch_norm") if checkpoint else None
    if saved is None:
        with deterministic(device):
            adapt(network, train.images(even(len(train), batch_size), device))
        listener.passed(len(train))
        saved = Saved(_statistics(network), {})
        if checkpoint:
            checkpoint.write("batch_norm", saved)
    for name, tensor in _statistics(network).items():
        tensor.copy_(saved.tensors[name])


def _statistics(network: Network) -> dict[str, Tensor]:
    norms = enumerate(batch_norms(network))
    return {f"{number}.{name}": buffer for number, norm in norms for name, buffer in norm.named_buffers(recurse=False)}


def _stepwise(network: Network, plan: Plan, features: list[Features], loss: Objective, speed: float) -> Ready:
    """A head that learns in steps; an MLP from standardised features, which is folded into it in the end."""
    if plan.classifier != "mlp":
        return Ready(features[0], features[1], loss, None, speed, lambda: _finish(network, plan, loss))
    mean = features[0].features.mean(dim=0)
    scale = heads.spread(features[0].features)
    standard = [replace(part, features=(part.features - mean) / scale) for part in features]

    def finish() -> None:
        heads.standardise(network.head, mean, scale)
        _finish(network, plan, loss)

    return Ready(standard[0], standard[1], loss, None, speed, finish)


def _solved(
    network: Network,
    plan: Plan,
    features: Features,
    train: Examples,
    loss: Loss,
    settings: TrainSection,
    listener: Listener,
    checkpoint: Checkpoint | None,
) -> Solved:
    """The head that a solver finds on the training part's features, or has found before an interruption.

    A head that is fine-tuned from there has no dropout: the solver's has none, and what is noise to it would be the first
    thing that the backbone learns from.
    """
    dropout = settings.dropout if plan.cached else 0.0
    outputs = features.labels.shape[1]
    saved = checkpoint.read("classifier") if checkpoint else None
    if saved is not None:
        head = heads.build(saved.facts["head"], network.width, outputs, dropout)
        head.load_state_dict(dict(saved.tensors))
        return Solved(head, saved.facts["shifted"], saved.facts["loss"], saved.facts["details"])
    known = probes.Examples(
        features=features.features.cpu().double().numpy(),
        labels=features.labels.cpu().double().numpy(),
        patients=train.grouped(),
        exclusive=loss.exclusive,
        weights=None if loss.weights is None else loss.weights.double().numpy(),
    )
    solved = probes.solve(
        str(plan.classifier),
        known,
        dropout=dropout,
        regularisation=plan.regularisation,
        neighbours=plan.neighbours,
    )
    listener.noted(f"{plan.classifier}: " + ", ".join(f"{name} {value}" for name, value in solved.details.items()))
    if checkpoint:
        facts = {"head": heads.describe(solved.head), "shifted": solved.shifted, "loss": solved.loss, "details": solved.details}
        checkpoint.write("classifier", Saved(solved.head.state_dict(), facts))
    return solved


def _judged(network: Network, plan: Plan, solved: Solved, ready: Ready, settings: TrainSection, listener: Listener) -> Fitted:
    """A solved head as a training of one epoch; its training loss is that on held-out patients of the training part."""
    images = len(cast(Features, ready.train).features)
    listener.epoch_started(1, 1, images)
    precision = precision_for(plan, settings)
    loss, auroc = judge(network.head, ready.validation, ready.loss, settings.batch_size, precision)
    epoch = Epoch(1, solved.loss, loss, auroc, 0.0)
    listener.epoch_ended(epoch, best=True)
    return Fitted((epoch,), 1, auroc, 0.0, None)


def _finish(network: Network, plan: Plan, loss: Objective) -> None:
    if plan.rank:
        adapters.merge(network.trunk)
    if loss.shift is not None:
        network.lower_logits(loss.shift)
