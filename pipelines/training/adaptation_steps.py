"""Domain adaptation inside the loop: what is added to the loss so that two hospitals' features come to look alike.

The loop asks an `Adaptation` for the logits of its batch, and for what is to be added to their loss. `Alone` adds nothing.
`Adapting` takes a batch of the target's images along in every step, seeded by the epoch as everything is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from pipelines.config import TrainSection
from pipelines.models.backbones import Network
from pipelines.training.batches import Examples, even
from pipelines.training.material import Batch, Images, Order
from pipelines.training.numerics import derived_seed, deterministic
from pipelines.training.optimizer import Optimizer
from pipelines.transfer.adaptation import METHODS
from pipelines.transfer.batch_norm import adapt
from pipelines.transfer.discrepancy import DomainCritic, coral, mmd, reversal_strength, reverse_gradient, standardised

CRITIC_RATE = 1e-3  # of the adversary, which does not follow the network's schedule
PURPOSE = 2  # of the target's random order and augmentation, so that the source's are what they are without it


class Adaptation(Protocol):
    """What the loop asks, in this order in each epoch.

    Attributes:
        keeps_last: the last epoch is kept, and not the one that is best on the source, where adaptation has done least.
    """

    keeps_last: bool

    def enter(self, epoch: int, order: Order) -> None:
        """An epoch (from 1) of these batches of the source begins."""

    def forward(self, module: nn.Module, inputs: Tensor, progress: float) -> tuple[Tensor, Tensor | None]:
        """Logits of the batch, and what to add to its loss; `progress` of the whole training is in 0…1."""

    def learn(self) -> None:
        """The optimiser has taken its step."""

    def state(self) -> dict[str, Tensor]:
        """All that has to be kept to go on after an epoch."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""

    def details(self) -> dict[str, Any]:
        """For the model card."""


class Alone:
    """No adaptation."""

    keeps_last = False

    def enter(self, epoch: int, order: Order) -> None: ...

    def forward(self, module: nn.Module, inputs: Tensor, progress: float) -> tuple[Tensor, Tensor | None]:
        return module(inputs), None

    def learn(self) -> None: ...

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None: ...

    def details(self) -> dict[str, Any]:
        return {}


class Adapting:
    """Adds how far the features of a batch of the source and one of the target lie apart.

    Both go through the network together, so that batch norm that learns sees both. The weight grows from 0 to its full
    value in the course of the training (`reversal_strength`).
    """

    keeps_last = True

    def __init__(self, target: Examples, settings: TrainSection, width: int, device: torch.device) -> None:
        self._settings, self._target = settings, Images(target, settings.augment, device)
        self._method = str(settings.adaptation.method)
        self._weight = settings.adaptation.weight or METHODS[self._method].weight
        self._batches: Iterator[Batch] = iter(())
        self._apart: list[Tensor] = []
        self._epochs: list[float] = []
        self._critic: DomainCritic | None = None
        self._optimizer: Optimizer | None = None
        if self._method == "dann":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derived_seed(settings.seed, 0, PURPOSE))
                self._critic = DomainCritic(width).to(device)
            self._optimizer = Optimizer(AdamW(self._critic.parameters(), lr=CRITIC_RATE), (), ())

    def enter(self, epoch: int, order: Order) -> None:
        self._close()
        seed = self._settings.seed
        others = self._target.shuffled(self._settings.batch_size, len(order), (seed, epoch, PURPOSE))[: len(order)]
        generator = torch.Generator().manual_seed(derived_seed(seed, epoch, PURPOSE))
        self._batches = self._target.learning(others, generator)

    def forward(self, module: nn.Module, inputs: Tensor, progress: float) -> tuple[Tensor, Tensor | None]:
        network = cast(Network, module)
        with torch.autocast(inputs.device.type, enabled=False):  # augmented in fp32, as the source's images are
            others, _ = next(self._batches)
        features = network.features(torch.cat([inputs, others]))
        logits = network.head(features[: len(inputs)])
        with torch.autocast(features.device.type, enabled=False):
            source, target = standardised(features[: len(inputs)].float(), features[len(inputs) :].float())
            strength = self._weight * reversal_strength(progress)
            if self._critic:
                apart = self._critic.loss(reverse_gradient(source, strength), reverse_gradient(target, strength))
                beside = apart
            else:
                apart = DISCREPANCIES[self._method](source, target)
                beside = strength * apart
        self._apart.append(apart.detach())
        return logits, beside

    def learn(self) -> None:
        if self._optimizer:
            self._optimizer.adamw.step()
            self._optimizer.adamw.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        self._close()
        kept = {"epochs": torch.tensor(self._epochs, dtype=torch.float64)}
        if self._critic and self._optimizer:
            kept |= {f"critic.{name}": tensor for name, tensor in self._critic.state_dict().items()}
            kept |= {f"moments.{name}": tensor for name, tensor in self._optimizer.state().items()}
        return kept

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._epochs = state["epochs"].tolist()
        if self._critic and self._optimizer:
            self._critic.load_state_dict(_below("critic.", state))
            self._optimizer.restore(_below("moments.", state))

    def details(self) -> dict[str, Any]:
        self._close()
        return {"discrepancy_by_epoch": [round(value, 6) for value in self._epochs]}

    def _close(self) -> None:
        """Keep the mean discrepancy of an epoch that is over."""
        if self._apart:
            self._epochs.append(float(torch.stack(self._apart).mean()))
            self._apart = []


DISCREPANCIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"coral": coral, "mmd": mmd}


def adaptation(settings: TrainSection, target: Examples | None, network: Network) -> Adaptation:
    """What takes part in the steps of a training, as `train.adaptation` says."""
    method = settings.adaptation.method
    if method is None or target is None or not METHODS[method].in_steps:
        return Alone()
    return Adapting(target, settings, network.width, next(network.parameters()).device)


def adapt_batch_norm(network: Network, target: Examples, batch_size: int) -> None:
    """AdaBN: the target's statistics in every batch norm of a trained network (Li et al., 2016); nothing else changes."""
    device = next(network.parameters()).device
    with deterministic(device):
        adapt(network, target.images(even(len(target), batch_size), device))


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
