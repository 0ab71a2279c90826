"""The strategies of transfer learning, and what each means for the layer groups of one network.

A network is an ordered list of layer groups, from stem to head. A strategy says which of them learn, how fast, and
whether batch norm does; `plan` works that out for one network, and `apply` puts it into effect.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

from pipelines.config import StrategySection
from pipelines.errors import ConfigurationError
from pipelines.models.backbones import LayerGroup, Network
from pipelines.transfer.batch_norm import batch_norms, freeze_batch_norm

BatchNorm = Literal["frozen", "trained"]


@dataclass(frozen=True)
class Strategy:
    """One way to transfer.

    Attributes:
        pretrained: start from the weights that `train.weights` names, else from random numbers.
        backbone_learns: train every layer group, else only the head, on features that are computed once.
        decays: the rate of each group is `train.strategy.decay` times that of the next one, from head to stem.
        batch_norm: the default; `frozen` keeps statistics, scale and shift as they were loaded.
        learning_rate: the default rate of the head.
        least_steps: optimiser steps of an epoch at least; where one pass over the images has fewer, passes are repeated.
        describes: what it does, for a person.
    """

    pretrained: bool
    backbone_learns: bool
    decays: bool
    batch_norm: BatchNorm
    learning_rate: float
    least_steps: int
    describes: str


STRATEGIES: dict[str, Strategy] = {
    "feature_extraction": Strategy(
        pretrained=True,
        backbone_learns=False,
        decays=False,
        batch_norm="frozen",
        learning_rate=3e-3,
        least_steps=40,
        describes="a linear head on the features of the frozen backbone, computed once",
    ),
    "differential": Strategy(
        pretrained=True,
        backbone_learns=True,
        decays=True,
        batch_norm="frozen",
        learning_rate=1e-3,
        least_steps=1,
        describes="all layers, each group slower than the next one from head to stem",
    ),
    "full": Strategy(
        pretrained=True,
        backbone_learns=True,
        decays=False,
        batch_norm="frozen",
        learning_rate=1e-4,
        least_steps=1,
        describes="all layers at one rate",
    ),
    "scratch": Strategy(
        pretrained=False,
        backbone_learns=True,
        decays=False,
        batch_norm="trained",
        learning_rate=1e-3,
        least_steps=1,
        describes="all layers from random numbers, at one rate",
    ),
}


@dataclass(frozen=True)
class PlannedGroup:
    """What happens to one layer group.

    Attributes:
        parameters: how many numbers the group holds, of which `trained` learn.
        batch_norm: `frozen` or `trained`, or None for a group without batch norm.
        learning_rate: peak rate of the schedule; 0 for a group that does not learn.
    """

    name: str
    parameters: int
    trained: int
    batch_norm: BatchNorm | None
    learning_rate: float


@dataclass(frozen=True)
class Plan:
    """What a strategy does to one network; the groups are in order from stem to head."""

    strategy: str
    batch_norm: BatchNorm
    groups: tuple[PlannedGroup, ...]

    @property
    def cached(self) -> bool:
        """Whether the backbone is run once and only the head learns, on its features."""
        return not STRATEGIES[self.strategy].backbone_learns

    @property
    def parameters(self) -> int:
        return sum(group.parameters for group in self.groups)

    @property
    def trained(self) -> int:
        return sum(group.trained for group in self.groups)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for model.json."""
        return {"name": self.strategy, "batch_norm": self.batch_norm, "groups": [asdict(group) for group in self.groups]}


def plan(network: Network, settings: StrategySection) -> Plan:
    """Work out what the strategy of `settings` does to each layer group of `network`; the network is not changed.

    Raises:
        ConfigurationError: `batch_norm: trained` for a strategy whose backbone does not learn, or `frozen` without pretraining.
    """
    strategy = STRATEGIES[settings.name]
    batch_norm: BatchNorm = settings.batch_norm or strategy.batch_norm
    if batch_norm == "trained" and not strategy.backbone_learns:
        raise ConfigurationError(
            f"params.yaml train.strategy.batch_norm: expected frozen or null for {settings.name}, whose backbone is run once, "
            "got trained; choose the strategy full or differential to train batch norm"
        )
    if batch_norm == "frozen" and not strategy.pretrained:
        raise ConfigurationError(
            f"params.yaml train.strategy.batch_norm: expected trained or null for {settings.name}, whose statistics are not "
            "learnt yet, got frozen"
        )
    groups = network.groups()
    rates = learning_rates(len(groups), settings)
    planned = tuple(_planned(group, rate, batch_norm) for group, rate in zip(groups, rates, strict=True))
    return Plan(settings.name, batch_norm, planned)


def learning_rates(groups: int, settings: StrategySection) -> tuple[float, ...]:
    """The rate of each of `groups` layer groups, from stem to head: head × decayᵈ at d groups below the head, or 0."""
    strategy = STRATEGIES[settings.name]
    head = settings.learning_rate or strategy.learning_rate
    if not strategy.backbone_learns:
        return (0.0,) * (groups - 1) + (head,)
    decay = settings.decay if strategy.decays else 1.0
    return tuple(head * decay**below for below in range(groups - 1, -1, -1))


def apply(network: Network, plan: Plan) -> None:
    """Make exactly the parameters of the plan learn, and freeze batch norm where the plan says so."""
    if plan.batch_norm == "frozen":
        freeze_batch_norm(network)
    for group, planned in zip(network.groups(), plan.groups, strict=True):
        kept = _frozen_parameters(group, planned.batch_norm)
        for parameter in _parameters(group):
            parameter.requires_grad_(planned.learning_rate > 0 and id(parameter) not in kept)


def learning_parameters(group: LayerGroup) -> list[nn.Parameter]:
    """The parameters of a layer group that learn, in order."""
    return [parameter for parameter in _parameters(group) if parameter.requires_grad]


def _planned(group: LayerGroup, rate: float, batch_norm: BatchNorm) -> PlannedGroup:
    has_batch_norm = any(True for module in group.modules for _ in batch_norms(module))
    frozen = _frozen_parameters(group, batch_norm)
    parameters = _parameters(group)
    learning = sum(parameter.numel() for parameter in parameters if id(parameter) not in frozen)
    return PlannedGroup(
        name=group.name,
        parameters=sum(parameter.numel() for parameter in parameters),
        trained=learning if rate else 0,
        batch_norm=batch_norm if has_batch_norm else None,
        learning_rate=rate,
    )


def _frozen_parameters(group: LayerGroup, batch_norm: BatchNorm | None) -> set[int]:
    """The identities of the batch-norm parameters that stay as they are."""
    if batch_norm != "frozen":
        return set()
    return {id(own) for module in group.modules for norm in batch_norms(module) for own in norm.parameters()}


def _parameters(group: LayerGroup) -> list[nn.Parameter]:
    return [parameter for module in group.modules for parameter in module.parameters()]
