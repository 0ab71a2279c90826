"""A range test of the learning rate: steps at rates that grow exponentially, until the loss diverges (Smith, WACV 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.config import TrainSection
from pipelines.errors import ConfigurationError, TrainingError
from pipelines.models.backbones import Network
from pipelines.training.averaging import state
from pipelines.training.joint import Joint, Objective
from pipelines.training.material import Batch, Material
from pipelines.training.mixing import mixed
from pipelines.training.numerics import autocast, derived_seed, deterministic, precision_for
from pipelines.training.optimizer import build as build_optimizer
from pipelines.transfer import relative_gradients
from pipelines.transfer.strategies import Plan
from pipelines.transfer.unfreezing import unfreezing

STEPS = 100
LOWEST, HIGHEST = 1e-7, 1.0
SMOOTHING = 0.9  # of the running mean over the losses
DIVERGED = 4.0  # times the lowest loss so far
SETTLED = 10  # steps before a loss may count as the lowest, or the slope is looked at
FEWEST = 2 * SETTLED


@dataclass(frozen=True)
class Sweep:
    """What a range test saw.

    Attributes:
        rates: (steps,), of the head, growing by a constant factor.
        losses: (steps,), of each batch.
        smoothed: (steps,), running mean of the losses.
        steepest: the rate at which the smoothed loss falls fastest over the logarithm of the rate.
        decade_below: a tenth of the rate at which the smoothed loss is lowest, the last before it grows.
    """

    rates: NDArray[np.float64]
    losses: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    steepest: float
    decade_below: float

    @property
    def suggestion(self) -> float:
        """The lower of both, since the peak of a schedule must hold for many steps."""
        return min(self.steepest, self.decade_below)

    @property
    def rule(self) -> str:
        """Where the suggestion comes from."""
        return "the steepest descent" if self.steepest <= self.decade_below else "a decade below the lowest loss"


def check(plan: Plan) -> None:
    """Refuse a plan that has no rate to find.

    Raises:
        ConfigurationError: a solver finds the head.
    """
    if not plan.groups[-1].learning_rate:
        raise ConfigurationError(
            f"params.yaml train.strategy.classifier: expected one that learns in steps, got {plan.classifier}, which a solver "
            "finds without a learning rate; choose linear or mlp, or another strategy"
        )


def sweep(
    network: Network,
    plan: Plan,
    train: Material,
    loss: Objective,
    settings: TrainSection,
    *,
    steps: int = STEPS,
    stepped: Callable[[float, float], None] | None = None,
) -> Sweep:
    """Train for a few steps at rates from `LOWEST` to `HIGHEST`, and put the network back as it was.

    Every layer group keeps its rate relative to the head's; groups that would learn later learn from the start, and relative
    gradient norms are those of the beginning.

    Args:
        network: with the plan in effect (`learn.prepare`).
        plan: whose head is learnt in steps.
        train: of the training part; nothing else is looked at.
        loss: of the training part.
        settings: batch size, weight decay, precision and seed.
        steps: of the whole range; the sweep ends earlier where the loss is `DIVERGED` times its lowest, or not finite.
        stepped: hears the rate and the loss of each step.

    Raises:
        ConfigurationError: there is no rate to find: a solver finds the head.
        TrainingError: the loss is not finite, or diverges, before there is anything to see, or never falls.
    """
    check(plan)
    loss = loss.fixed if isinstance(loss, Joint) else loss  # a learned weight can make a loss negative
    head = plan.groups[-1].learning_rate
    module = network.head if plan.cached else network
    device, before = next(network.parameters()).device, state(module)
    optimizer = build_optimizer(network.groups(), plan, settings.weight_decay)
    schedule = unfreezing(network.groups(), plan)
    module.train()
    schedule.enter(schedule.complete_from)
    rates, losses, smoothed, lowest = np.geomspace(LOWEST, HIGHEST, steps), [], _Smoothed(), float("inf")
    with deterministic(device):
        torch.manual_seed(derived_seed(settings.seed, 0))
        scales = None
        if plan.relative:
            first = islice(_endless(train, settings), relative_gradients.BATCHES)
            scales = relative_gradients.scales(module, schedule.parameters, loss, first)
        for rate, (inputs, labels) in zip(rates, _endless(train, settings), strict=False):
            optimizer.set_rates(rate / head, scales)
            with autocast(device, precision_for(plan, settings)):
                logits = module(inputs)
            value = loss(logits, labels)
            if not np.isfinite(value.item()):
                break
            losses.append(value.item())
            now = smoothed.after(losses[-1])
            if len(losses) > SETTLED and now > DIVERGED * lowest:
                break
            lowest = min(lowest, now)
            optimizer.step(value)
            if stepped:
                stepped(float(rate), losses[-1])
    module.load_state_dict(before)
    return _seen(rates[: len(losses)], np.array(losses))


def _endless(train: Material, settings: TrainSection) -> Iterator[Batch]:
    """Random batches of the training part, changed at random as in training, pass after pass."""
    for number in count(1):
        order = train.shuffled(settings.batch_size, 1, (settings.seed, number))
        generator = torch.Generator().manual_seed(derived_seed(settings.seed, number))
        yield from mixed(train.learning(order, generator), settings.mixup, (settings.seed, number, 1))


class _Smoothed:
    """A running mean, corrected for its start."""

    def __init__(self) -> None:
        self._mean, self._weight = 0.0, 1.0

    def after(self, value: float) -> float:
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * value
        self._weight *= SMOOTHING
        return self._mean / (1 - self._weight)


def _seen(rates: NDArray[np.float64], losses: NDArray[np.float64]) -> Sweep:
    if len(losses) < FEWEST:
        raise TrainingError(
            f"learning rate {rates[-1] if len(rates) else LOWEST:.1e}: expected a loss that is finite and does not diverge over "
            f"{FEWEST} steps, got one over {len(losses)}; look at the images (`radtransfer check`), or set train.precision: fp32"
        )
    running = _Smoothed()
    smoothed = np.array([running.after(loss) for loss in losses])
    lowest = SETTLED + int(smoothed[SETTLED:].argmin())
    if lowest == SETTLED:
        raise TrainingError(
            f"learning rates {rates[SETTLED]:.1e} to {rates[-1]:.1e}: expected a loss that falls, got one that only grows; set "
            "train.strategy.learning_rate to null for the strategy's default"
        )
    slope = np.gradient(smoothed, np.log10(rates))[SETTLED : lowest + 1]
    steepest = rates[SETTLED + int(slope.argmin())]
    return Sweep(rates, losses, smoothed, float(steepest), float(rates[lowest] / 10))
