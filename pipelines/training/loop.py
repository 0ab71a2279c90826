"""The training loop, read from top to bottom: resume, epochs of steps, validation, early stopping, the best weights.

Everything random in an epoch (order, augmentation, mixup, dropout) is seeded by the configured seed and the epoch's number,
so that a resumed training takes the same steps as one that was never interrupted, to the bit on a CPU. What a strategy
does in its own way is asked of its plan: which groups learn in an epoch, at which scale, and what holds them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.config import TrainSection
from pipelines.errors import TrainingError
from pipelines.models.backbones import Network
from pipelines.training.adaptation_steps import Adaptation, Alone
from pipelines.training.averaging import Average, average, state
from pipelines.training.checkpoint import Checkpoint, Saved
from pipelines.training.joint import Joint, Objective
from pipelines.training.judging import judge
from pipelines.training.listener import Epoch, Listener, Step
from pipelines.training.material import Batch, Material, Order
from pipelines.training.mixing import mixed
from pipelines.training.numerics import autocast, derived_seed, deterministic, precision_for
from pipelines.training.optimizer import Optimizer
from pipelines.training.optimizer import build as build_optimizer
from pipelines.training.schedule import factor
from pipelines.training.stopping import Stopping
from pipelines.transfer import relative_gradients
from pipelines.transfer.strategies import STRATEGIES, Plan
from pipelines.transfer.unfreezing import Unfreezing, unfreezing

CHECKPOINT = "training"
STEPS_PER_REPORT = 10  # on an accelerator, where reading a loss waits for it; on a CPU every step is told


@dataclass(frozen=True)
class Fitted:
    """What a training came to; the network holds the best epoch's weights.

    Attributes:
        history: begins with epoch 0 where the training began at a head that a solver had found.
        best_epoch: 0 where no epoch was better than that head.
        images_per_second: learnt from, on the wall clock, validation and checkpoints left out; 0 if nothing was left to learn.
        resumed_from: the last epoch of an earlier, interrupted run, or None.
        details: what else a model card should say: scales of the rates, distance from the anchor, how a classifier was found.
    """

    history: tuple[Epoch, ...]
    best_epoch: int
    validation_auroc: float
    images_per_second: float
    resumed_from: int | None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Position:
    """How far a training has come; of each epoch, `scales` are those of the groups' rates, and `variances` weigh the tasks."""

    stopping: Stopping
    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    scales: list[tuple[float, ...]] = field(default_factory=list)
    variances: list[tuple[float, ...]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """The last epoch that learnt; 0 before the first."""
        return self.history[-1].epoch if self.history else 0


@dataclass(frozen=True)
class _Training:
    """Everything that stays the same from epoch to epoch; `learns` says what learns, so that a checkpoint can be told apart."""

    module: nn.Module
    plan: Plan
    optimizer: Optimizer
    unfreezing: Unfreezing
    average: Average | None
    adaptation: Adaptation
    loss: Objective
    train: Material
    validation: Material
    settings: TrainSection
    precision: str
    learns: dict[str, Any]
    device: torch.device
    listener: Listener


def fit(
    network: Network,
    plan: Plan,
    train: Material,
    validation: Material,
    loss: Objective,
    settings: TrainSection,
    listener: Listener,
    checkpoint: Checkpoint | None = None,
    begun: float | None = None,
    adaptation: Adaptation | None = None,
) -> Fitted:
    """Train what the plan lets learn, until the validation AUROC, or score, stops growing, and leave the best weights.

    Args:
        network: on its device, with the plan in effect.
        train: the images, or the cached features where the plan says so.
        validation: likewise; every epoch is judged on it.
        checkpoint: where the state is kept after each epoch, and taken up from.
        begun: the training loss of the head that a solver found; the network is judged with it as epoch 0, and keeps it if no
            epoch is better. None where there is no such head.
        adaptation: to another hospital; None for none.

    Raises:
        TrainingError: a loss is not finite, or the validation part cannot give an AUROC.
    """
    training = _training(network, plan, train, validation, loss, settings, listener, adaptation or Alone())
    module, device = training.module, training.device
    position = _resumed(training, checkpoint) or _Position(Stopping(settings.patience))
    resumed_from = position.epoch or None
    seconds, images = 0.0, 0
    with deterministic(device):
        if begun is not None and not position.history:
            _judge(training, position, 0, begun, 0.0)
            listener.epoch_ended(position.history[-1], best=True)
        while position.epoch < settings.epochs and not position.stopping.stops:
            started = time.perf_counter()
            learnt, train_loss, rate = _epoch(training, position)
            seconds, images = seconds + time.perf_counter() - started, images + learnt
            best = _judge(training, position, position.epoch + 1, train_loss, rate)
            if checkpoint:
                checkpoint.write(CHECKPOINT, _saved(training, position))
            listener.epoch_ended(position.history[-1], best=best)
    module.load_state_dict(position.best)
    stopping = position.stopping
    rate = images / seconds if seconds else 0.0
    details = _details(training, position)
    return Fitted(tuple(position.history), stopping.best_epoch, stopping.best_auroc, rate, resumed_from, details)


def _training(
    network: Network,
    plan: Plan,
    train: Material,
    validation: Material,
    loss: Objective,
    settings: TrainSection,
    listener: Listener,
    adaptation: Adaptation,
) -> _Training:
    groups, module = network.groups(), network.head if plan.cached else network
    return _Training(
        module=module,
        plan=plan,
        optimizer=build_optimizer(groups, plan, settings.weight_decay, _learned(loss)),
        unfreezing=unfreezing(groups, plan),
        average=average(module, settings.ema),
        adaptation=adaptation,
        loss=loss,
        train=train,
        validation=validation,
        settings=settings,
        precision=precision_for(plan, settings),
        learns=_learning(module),
        device=next(network.parameters()).device,
        listener=listener,
    )


def _details(training: _Training, position: _Position) -> dict[str, Any]:
    """What the model card says of the epoch that was kept."""
    details = training.adaptation.details()
    if training.plan.relative:
        names = [group.name for group in training.plan.groups]
        details["rate_scales"] = dict(zip(names, position.scales[position.stopping.best_epoch - 1], strict=True))
    if isinstance(training.loss, Joint) and training.loss.learned:
        details["task_weights"] = training.loss.weights(position.variances[position.stopping.best_epoch - 1])
    if training.optimizer.anchor:
        details["distance_from_source"] = training.optimizer.anchor.distance()
    return details


def _epoch(training: _Training, position: _Position) -> tuple[int, float, float]:
    """Learn from every image once or more; returns images learnt from, their mean loss, and the head's last rate."""
    settings, listener, epoch = training.settings, training.listener, position.epoch + 1
    torch.manual_seed(derived_seed(settings.seed, epoch))
    order = training.train.shuffled(settings.batch_size, least_steps(training.plan), (settings.seed, epoch))
    steps, images = len(order), sum(len(positions) for positions in order)
    listener.epoch_started(epoch, settings.epochs, images)
    training.module.train()
    training.unfreezing.enter(epoch)
    training.adaptation.enter(epoch, order)
    scales = _scales(training, epoch, order)
    position.scales.append(scales or ())
    every = 1 if training.device.type == "cpu" else STEPS_PER_REPORT
    warmup, total = round(settings.strategy.warmup_epochs * steps), settings.epochs * steps
    pending: list[tuple[int, Tensor]] = []
    learnt_loss, rates = 0.0, training.optimizer.rates
    batches = mixed(_batches(training, epoch, order), settings.mixup, (settings.seed, epoch, 1))
    for step, (inputs, labels) in enumerate(batches):
        done = (epoch - 1) * steps + step
        rates = training.optimizer.set_rates(factor(done, warmup=warmup, total=total), scales)
        with autocast(training.device, training.precision):
            logits, beside = training.adaptation.forward(training.module, inputs, done / total)
        loss = training.loss(logits, labels)
        training.optimizer.step(loss if beside is None else loss + beside)
        training.adaptation.learn()
        if training.average:
            training.average.update(training.module)
        pending.append((len(inputs), loss.detach()))
        if len(pending) == every or step + 1 == steps:
            learnt_loss += _report(training, epoch, step + 1 - len(pending), pending, rates)
            pending = []
    position.variances.append(tuple(value for learned in _learned(training.loss) for value in learned.tolist()))
    return images, learnt_loss / images, rates[-1]


def _batches(training: _Training, epoch: int, order: Order) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(derived_seed(training.settings.seed, epoch))
    return training.train.learning(order, generator)


def _scales(training: _Training, epoch: int, order: Order) -> tuple[float, ...] | None:
    """Of the layer groups' rates in this epoch, from its first batches, where the strategy asks for them."""
    if not training.plan.relative:
        return None
    first = order[: relative_gradients.BATCHES]
    training.listener.passed(sum(len(positions) for positions in first))
    batches = _batches(training, epoch, first)
    return relative_gradients.scales(training.module, training.unfreezing.parameters, training.loss, batches)


def _report(training: _Training, epoch: int, first: int, pending: list[tuple[int, Tensor]], rates: tuple[float, ...]) -> float:
    """Tell the listener about steps; returns the sum of their images' losses."""
    losses = torch.stack([loss for _, loss in pending]).tolist()
    for step, loss in enumerate(losses, start=first + 1):
        if not np.isfinite(loss):
            raise TrainingError(
                f"epoch {epoch}, step {step}: expected a finite loss, got {loss}; lower train.strategy.learning_rate "
                f"(the head's is {rates[-1]:.1e} here), or set train.precision: fp32"
            )
    images = sum(count for count, _ in pending)
    total = sum(count * loss for (count, _), loss in zip(pending, losses, strict=True))
    training.listener.stepped(Step(epoch, images, total / images, rates))
    return float(total)


def _judge(training: _Training, position: _Position, epoch: int, train_loss: float, rate: float) -> bool:
    """Add the epoch to the history; keep the weights, or their average, if it is the best so far."""
    module = training.module
    with training.average.applied(module) if training.average else nullcontext():
        loss, auroc = judge(module, training.validation, training.loss, training.settings.batch_size, training.precision)
        position.history.append(Epoch(epoch, train_loss, loss, auroc, rate))
        before = Stopping(position.stopping.patience) if training.adaptation.keeps_last else position.stopping
        position.stopping = before.after(epoch, auroc, loss, waits=epoch >= training.unfreezing.complete_from)
        best = position.stopping.best_epoch == epoch
        if best:
            position.best = state(module)
    return best


def _saved(training: _Training, position: _Position) -> Saved:
    tensors = {
        **_under("module", training.module.state_dict()),
        **_under("best", position.best),
        **_under("optimizer", training.optimizer.state()),
        **_under("average", training.average.tensors if training.average else {}),
        **_under("adaptation", training.adaptation.state()),
        **_under("loss", {str(number): learned for number, learned in enumerate(_learned(training.loss))}),
    }
    facts = {
        "stopping": asdict(position.stopping),
        "history": [asdict(epoch) for epoch in position.history],
        "learning": training.learns,
        "scales": position.scales,
        "variances": position.variances,
        "averaged": training.average.updates if training.average else 0,
    }
    return Saved(tensors, facts)


def _resumed(training: _Training, checkpoint: Checkpoint | None) -> _Position | None:
    """Take up an interrupted training, if the same parameters learn in it; else say that it is discarded."""
    if checkpoint is None or not checkpoint.exists(CHECKPOINT):
        return None
    saved = checkpoint.read(CHECKPOINT)
    if saved is None or saved.facts["learning"] != training.learns:
        training.listener.noted("a checkpoint of another training was discarded: configuration, data or weights differ")
        return None
    training.module.load_state_dict(_below("module", saved.tensors))
    training.optimizer.restore(_below("optimizer", saved.tensors))
    if training.average:
        training.average.restore(_below("average", saved.tensors), saved.facts["averaged"])
    training.adaptation.restore(_below("adaptation", saved.tensors))
    history = [Epoch(**epoch) for epoch in saved.facts["history"]]
    best = {name: tensor.to(training.device) for name, tensor in _below("best", saved.tensors).items()}
    training.listener.noted(f"resumed after epoch {history[-1].epoch}")
    for learned, tensor in zip(_learned(training.loss), _below("loss", saved.tensors).values(), strict=True):
        learned.data.copy_(tensor)
    scales, variances = ([tuple(of_epoch) for of_epoch in saved.facts[name]] for name in ("scales", "variances"))
    return _Position(Stopping(**saved.facts["stopping"]), history, best, scales, variances)


def _learned(loss: Objective) -> tuple[nn.Parameter, ...]:
    """What learns besides the network: how much each of several tasks counts."""
    return loss.learned if isinstance(loss, Joint) else ()


def _learning(module: nn.Module) -> dict[str, Any]:
    """Which parameters learn, and which modules are fixed in evaluation mode."""
    module.train()
    return {
        "parameters": [name for name, parameter in module.named_parameters() if parameter.requires_grad],
        "frozen_modules": [name for name, inner in module.named_modules() if not inner.training],
    }


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _below(prefix: str, tensors: Any) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}/")}


def least_steps(plan: Plan) -> int:
    """Optimiser steps of an epoch at least."""
    return STRATEGIES[plan.strategy].least_steps
