"""The training loop, read from top to bottom: resume, epochs of steps, validation, early stopping, the best weights.

Everything random in an epoch (order, augmentation, dropout) is seeded by the configured seed and the epoch's number, so
that a resumed training takes the same steps as one that was never interrupted, to the bit on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.config import TrainSection
from pipelines.errors import TrainingError
from pipelines.metrics.discrimination import macro_auroc
from pipelines.models.backbones import Network
from pipelines.training.checkpoint import Checkpoint, Saved
from pipelines.training.listener import Epoch, Listener, Step
from pipelines.training.loss import Loss, probabilities
from pipelines.training.material import Material
from pipelines.training.optimizer import Optimizer
from pipelines.training.optimizer import build as build_optimizer
from pipelines.training.schedule import factor
from pipelines.training.stopping import Stopping
from pipelines.transfer.strategies import STRATEGIES, Plan

CHECKPOINT = "training"
STEPS_PER_REPORT = 10  # on an accelerator, where reading a loss waits for it; on a CPU every step is told


@dataclass(frozen=True)
class Fitted:
    """What a training came to; the network holds the best epoch's weights.

    Attributes:
        images_per_second: learnt from, on the wall clock, validation and checkpoints left out; 0 if nothing was left to learn.
        resumed_from: the last epoch of an earlier, interrupted run, or None.
    """

    history: tuple[Epoch, ...]
    best_epoch: int
    validation_auroc: float
    images_per_second: float
    resumed_from: int | None


@dataclass
class _Position:
    """How far a training has come."""

    stopping: Stopping
    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        return len(self.history)


@dataclass(frozen=True)
class _Training:
    """Everything that stays the same from epoch to epoch."""

    module: nn.Module
    optimizer: Optimizer
    loss: Loss
    train: Material
    validation: Material
    settings: TrainSection
    least_steps: int
    device: torch.device
    listener: Listener


def fit(
    network: Network,
    plan: Plan,
    train: Material,
    validation: Material,
    loss: Loss,
    settings: TrainSection,
    listener: Listener,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Train what the plan lets learn, until the validation AUROC stops growing, and leave the best weights in the network.

    Args:
        network: on its device, with the plan in effect.
        train: the images, or the cached features where the plan says so.
        validation: likewise; every epoch is judged on it.
        checkpoint: where the state is kept after each epoch, and taken up from.

    Raises:
        TrainingError: a loss is not finite, or the validation part cannot give an AUROC.
    """
    module = network.head if plan.cached else network
    device = next(network.parameters()).device
    optimizer = build_optimizer(network.groups(), plan, settings.weight_decay)
    least = STRATEGIES[plan.strategy].least_steps
    training = _Training(module, optimizer, loss, train, validation, settings, least, device, listener)
    position = _resumed(training, checkpoint) or _Position(Stopping(settings.patience))
    resumed_from = position.epoch or None
    seconds, images = 0.0, 0
    with deterministic(device):
        while position.epoch < settings.epochs and not position.stopping.stops:
            started = time.perf_counter()
            learnt, train_loss, rate = _epoch(training, position.epoch + 1)
            seconds, images = seconds + time.perf_counter() - started, images + learnt
            best = _judge(training, position, train_loss, rate)
            if checkpoint:
                checkpoint.write(CHECKPOINT, _saved(training, position))
            listener.epoch_ended(position.history[-1], best=best)
    module.load_state_dict(position.best)
    stopping = position.stopping
    rate = images / seconds if seconds else 0.0
    return Fitted(tuple(position.history), stopping.best_epoch, stopping.best_auroc, rate, resumed_from)


def _epoch(training: _Training, epoch: int) -> tuple[int, float, float]:
    """Learn from every image once or more; returns images learnt from, their mean loss, and the head's last rate."""
    settings, listener = training.settings, training.listener
    generator = torch.Generator().manual_seed(derived_seed(settings.seed, epoch))
    torch.manual_seed(derived_seed(settings.seed, epoch))
    order = training.train.shuffled(settings.batch_size, training.least_steps, (settings.seed, epoch))
    steps, images = len(order), sum(len(positions) for positions in order)
    listener.epoch_started(epoch, settings.epochs, images)
    training.module.train()
    every = 1 if training.device.type == "cpu" else STEPS_PER_REPORT
    warmup, total = round(settings.strategy.warmup_epochs * steps), settings.epochs * steps
    pending: list[tuple[int, Tensor]] = []
    learnt_loss, rates = 0.0, training.optimizer.rates
    for step, (inputs, labels) in enumerate(training.train.learning(order, generator)):
        rates = training.optimizer.set_rates(factor((epoch - 1) * steps + step, warmup=warmup, total=total))
        with autocast(training.device, settings.precision):
            logits = training.module(inputs)
        loss = training.loss(logits, labels)
        training.optimizer.step(loss)
        pending.append((len(inputs), loss.detach()))
        if len(pending) == every or step + 1 == steps:
            learnt_loss += _report(training, epoch, step + 1 - len(pending), pending, rates)
            pending = []
    return images, learnt_loss / images, rates[-1]


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


def _judge(training: _Training, position: _Position, train_loss: float, rate: float) -> bool:
    """Add the epoch to the history; keep the weights if it is the best so far."""
    epoch = position.epoch + 1
    loss, auroc = _validate(training)
    position.history.append(Epoch(epoch, train_loss, loss, auroc, rate))
    position.stopping = position.stopping.after(epoch, auroc, loss)
    best = position.stopping.best_epoch == epoch
    if best:
        position.best = {name: tensor.detach().clone() for name, tensor in training.module.state_dict().items()}
    return best


def _validate(training: _Training) -> tuple[float, float]:
    """Loss, and macro AUROC of the probabilities that the network would give as it is, on the validation part."""
    training.module.eval()
    logits, labels = [], []
    with torch.inference_mode(), autocast(training.device, training.settings.precision):
        for inputs, known in training.validation.judging(training.settings.batch_size):
            logits.append(training.module(inputs).float())
            labels.append(known)
    everything, truth = torch.cat(logits), torch.cat(labels)
    scores = probabilities(training.loss.unweighted(everything), exclusive=training.loss.exclusive)
    auroc = macro_auroc(truth.cpu().numpy(), scores.cpu().numpy())
    loss = float(training.loss(everything, truth))
    if np.isnan(auroc) or not np.isfinite(loss):
        raise TrainingError(
            f"validation part: expected a loss and an AUROC, got {loss} and {auroc}; it needs labelled images with and "
            "without each finding (change split.seed or split.validation), and a lower train.strategy.learning_rate if the "
            "loss is not finite"
        )
    return loss, auroc


def _saved(training: _Training, position: _Position) -> Saved:
    tensors = {
        **_under("module", training.module.state_dict()),
        **_under("best", position.best),
        **_under("optimizer", training.optimizer.state()),
    }
    facts = {
        "stopping": asdict(position.stopping),
        "history": [asdict(epoch) for epoch in position.history],
        "learning": _learning(training.module),
    }
    return Saved(tensors, facts)


def _resumed(training: _Training, checkpoint: Checkpoint | None) -> _Position | None:
    """Take up an interrupted training, if the same parameters learn in it; else say that it is discarded."""
    if checkpoint is None or not checkpoint.exists(CHECKPOINT):
        return None
    saved = checkpoint.read(CHECKPOINT)
    if saved is None or saved.facts["learning"] != _learning(training.module):
        training.listener.noted("a checkpoint of another training was discarded: configuration, data or weights differ")
        return None
    training.module.load_state_dict(_below("module", saved.tensors))
    training.optimizer.restore(_below("optimizer", saved.tensors))
    history = [Epoch(**epoch) for epoch in saved.facts["history"]]
    best = {name: tensor.to(training.device) for name, tensor in _below("best", saved.tensors).items()}
    training.listener.noted(f"resumed after epoch {len(history)}")
    return _Position(Stopping(**saved.facts["stopping"]), history, best)


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


def derived_seed(seed: int, epoch: int) -> int:
    """A seed of 63 bits for one epoch."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bf16 where it is asked for, or on `auto` where a GPU has it; else no casting."""
    supported = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    enabled = precision == "bf16" or (precision == "auto" and supported)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """On a CPU only algorithms that give the same bits each time; the global generators are left as they were."""
    filling: Any = torch.utils.deterministic
    before, filled = torch.are_deterministic_algorithms_enabled(), filling.fill_uninitialized_memory
    with torch.random.fork_rng([torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.use_deterministic_algorithms(before or device.type == "cpu")
        filling.fill_uninitialized_memory = False  # a debugging aid that costs a fifth of the speed
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            filling.fill_uninitialized_memory = filled
