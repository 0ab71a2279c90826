"""The strategies of transfer learning, and what each means for the layer groups of one network.

A network is an ordered list of layer groups, from stem to head. A strategy says which of them learn, how fast, from when
on, and what becomes of batch norm; `plan` works that out for one network, and `apply` puts it into effect. What a strategy
does beyond that (probes, adapters, anchors, relative gradients) is named in its plan and done by the module of that name.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from pipelines.config import StrategySection
from pipelines.models import heads
from pipelines.models.backbones import LayerGroup, Network
from pipelines.transfer import adapters
from pipelines.transfer.batch_norm import batch_norms, freeze_batch_norm
from pipelines.transfer.checks import check_network, check_settings
from pipelines.transfer.table import SOLVED, STRATEGIES, BatchNorm, Strategy

__all__ = ["STRATEGIES", "Plan", "PlannedGroup", "Strategy", "apply", "learning_parameters", "learning_rates", "plan"]


@dataclass(frozen=True)
class PlannedGroup:
    """What happens to one layer group.

    Attributes:
        parameters: how many numbers the group holds, of which `trained` learn; adapters are merged in the end, and count as
            learning only.
        batch_norm: what becomes of it, or None for a group without batch norm.
        learning_rate: peak rate of the schedule; 0 for a group that does not learn, or that a solver finds.
        from_epoch: the first epoch in which the group learns.
    """

    name: str
    parameters: int
    trained: int
    batch_norm: BatchNorm | None
    learning_rate: float
    from_epoch: int = 1


@dataclass(frozen=True)
class Plan:
    """What a strategy does to one network; the groups are in order from stem to head.

    Attributes:
        classifier: what is put on cached features, or None where no features are cached.
        regularisation: of a solved classifier; None chooses it by cross-validation.
        neighbours: of kNN; None chooses likewise.
        hidden: units of the hidden layer of an MLP; 0 without one.
        rank: of the adapters; 0 without adapters.
        anchor: the pull towards the source weights; 0 without one.
    """

    strategy: str
    batch_norm: BatchNorm
    groups: tuple[PlannedGroup, ...]
    classifier: str | None = None
    regularisation: float | None = None
    neighbours: int | None = None
    hidden: int = 0
    rank: int = 0
    anchor: float = 0.0

    @property
    def cached(self) -> bool:
        """Whether the backbone is run once and only the head learns, on its features."""
        return STRATEGIES[self.strategy].cached

    @property
    def solved(self) -> bool:
        """Whether a solver finds the head, instead of steps along a gradient."""
        return self.cached and self.classifier in SOLVED

    @property
    def begins_solved(self) -> bool:
        """Whether steps along a gradient begin at a head that a solver finds."""
        return self.classifier in SOLVED and not self.cached

    @property
    def relative(self) -> bool:
        """Whether relative gradient norms scale the rates."""
        return STRATEGIES[self.strategy].relative

    @property
    def parameters(self) -> int:
        return sum(group.parameters for group in self.groups)

    @property
    def trained(self) -> int:
        return sum(group.trained for group in self.groups)

    def until(self, epoch: int) -> Plan:
        """What came of it where this epoch was kept: groups whose turn had not come are frozen, but for the head (0: a probe)."""
        *below, head = self.groups
        below = [group if group.from_epoch <= epoch else _unreached(group) for group in below]
        return replace(self, groups=(*below, head if epoch else replace(head, learning_rate=0.0)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for model.json; options that are not in effect are left out."""
        names = ("classifier", "regularisation", "neighbours", "hidden", "rank", "anchor")
        options = {name: getattr(self, name) for name in names}
        in_effect = {name: value for name, value in options.items() if value}
        groups = [asdict(group) for group in self.groups]
        return {"name": self.strategy, "batch_norm": self.batch_norm, **in_effect, "groups": groups}


def plan(network: Network, settings: StrategySection) -> Plan:
    """Work out what the strategy of `settings` does to each layer group of `network`; the network is not changed.

    Raises:
        ConfigurationError: an option that the strategy has no use for, a batch norm that it cannot have, a layer group that
            the network does not have, or adapters for a network without attention.
    """
    check_settings(settings)
    strategy, groups = STRATEGIES[settings.name], network.groups()
    batch_norm: BatchNorm = settings.batch_norm or strategy.batch_norm
    check_network(network, settings, batch_norm)
    classifier = settings.classifier or strategy.classifier
    hidden = (settings.hidden or heads.HIDDEN) if classifier == "mlp" else 0
    rank = (settings.rank or adapters.RANK) if strategy.learns == "adapters" else 0
    rates = _rates(groups, settings)
    planned = [_planned(group, rate, batch_norm, rank) for group, rate in zip(groups, rates, strict=True)]
    planned[-1] = _planned_head(planned[-1], network, classifier if strategy.cached else None, hidden)
    if strategy.unfreezes:
        every, last = settings.unfreeze_every or 1, len(planned) - 1
        planned = [_from(group, 1 + every * (last - position)) for position, group in enumerate(planned)]
    return Plan(
        strategy=settings.name,
        batch_norm=batch_norm,
        groups=tuple(planned),
        classifier=classifier,
        regularisation=settings.regularisation,
        neighbours=settings.neighbours,
        hidden=hidden,
        rank=rank,
        anchor=settings.anchor or strategy.anchor,
    )


def learning_rates(groups: int, settings: StrategySection) -> tuple[float, ...]:
    """The rate of each of `groups` layer groups, from stem to head: head × decayᵈ at d groups below the head, or 0."""
    strategy = STRATEGIES[settings.name]
    head = settings.learning_rate or strategy.learning_rate
    learning = {"head": 1, "last": 1 + (settings.groups or 1)}.get(strategy.learns, groups)
    decay = settings.decay if strategy.decays else 1.0
    return tuple(head * decay**below if below < learning else 0.0 for below in range(groups - 1, -1, -1))


def apply(network: Network, plan: Plan, seed: int = 0) -> None:
    """Make exactly the parameters of the plan learn, and freeze batch norm where the plan says so.

    Adapters are put in, and an MLP takes the head's place; `seed` decides their first random numbers.
    """
    if plan.hidden:
        network.head = heads.perceptron(network, plan.hidden, seed)
    if plan.rank:
        adapters.inject(network.trunk, plan.rank, seed)
    groups = list(zip(network.groups(), plan.groups, strict=True))
    still = [group for group, planned in groups if planned.batch_norm not in (None, "trained")]
    freeze_batch_norm(network, only={id(norm) for group in still for module in group.modules for norm in batch_norms(module)})
    for group, planned in zip(network.groups(), plan.groups, strict=True):
        kept = _frozen_parameters(group, planned.batch_norm)
        if plan.rank and planned.name != "head":
            own = {id(parameter) for module in group.modules for parameter in adapters.parameters(module)}
            kept |= {id(parameter) for parameter in group.parameters() if id(parameter) not in own}
        for parameter in group.parameters():
            parameter.requires_grad_(planned.learning_rate > 0 and id(parameter) not in kept)


def learning_parameters(group: LayerGroup) -> list[nn.Parameter]:
    """The parameters of a layer group that learn, in order."""
    return [parameter for parameter in group.parameters() if parameter.requires_grad]


def _rates(groups: list[LayerGroup], settings: StrategySection) -> tuple[float, ...]:
    """`learning_rates`, with those that `train.strategy.rates` names in their place."""
    rates = learning_rates(len(groups), settings)
    return tuple(settings.rates.get(group.name, rate) for group, rate in zip(groups, rates, strict=True))


def _planned(group: LayerGroup, rate: float, batch_norm: BatchNorm, rank: int) -> PlannedGroup:
    norm: BatchNorm | None = None
    if any(True for module in group.modules for _ in batch_norms(module)):
        # statistics that go on moving in a group that does not learn would not be frozen
        norm = "frozen" if batch_norm == "trained" and not rate else batch_norm
    frozen = _frozen_parameters(group, norm)
    parameters = list(group.parameters())
    learning = sum(parameter.numel() for parameter in parameters if id(parameter) not in frozen)
    if rank and group.name != "head":
        learning = sum(adapters.size(module, rank) for module in group.modules)
        rate = rate if learning else 0.0
    return PlannedGroup(
        name=group.name,
        parameters=sum(parameter.numel() for parameter in parameters),
        trained=learning if rate else 0,
        batch_norm=norm,
        learning_rate=rate,
    )


def _planned_head(planned: PlannedGroup, network: Network, classifier: str | None, hidden: int) -> PlannedGroup:
    """The head as the classifier makes it."""
    if classifier == "mlp":
        parameters = heads.perceptron_size(network, hidden)
        return PlannedGroup(planned.name, parameters, parameters, None, planned.learning_rate)
    if classifier == "knn":
        return PlannedGroup(planned.name, 0, 0, None, 0.0)
    if classifier in SOLVED:
        return PlannedGroup(planned.name, planned.parameters, planned.parameters, None, 0.0)
    return planned


def _from(group: PlannedGroup, epoch: int) -> PlannedGroup:
    return replace(group, from_epoch=epoch)


def _unreached(group: PlannedGroup) -> PlannedGroup:
    norm: BatchNorm | None = "frozen" if group.batch_norm == "trained" else group.batch_norm
    return replace(group, trained=0, batch_norm=norm, learning_rate=0.0)


def _frozen_parameters(group: LayerGroup, batch_norm: BatchNorm | None) -> set[int]:
    """The identities of the batch-norm parameters that stay as they are."""
    if batch_norm in (None, "trained"):
        return set()
    return {id(own) for module in group.modules for norm in batch_norms(module) for own in norm.parameters()}
