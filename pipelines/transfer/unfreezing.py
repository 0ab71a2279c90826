"""Which layer groups learn in which epoch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pipelines.models.backbones import LayerGroup
from pipelines.transfer.strategies import Plan, learning_parameters


@dataclass(frozen=True)
class Unfreezing:
    """The layer groups of a network with the parameters that learn in the end, and the epoch from which they do.

    A group that does not learn, or not yet, is in evaluation mode, so that neither batch norm nor dropout in it is at work.
    """

    groups: tuple[LayerGroup, ...]
    parameters: tuple[tuple[nn.Parameter, ...], ...]
    from_epochs: tuple[int | None, ...]

    @property
    def complete_from(self) -> int:
        """The first epoch in which everything learns that ever will."""
        return max((begins for begins in self.from_epochs if begins is not None), default=1)

    def enter(self, epoch: int) -> None:
        """Make the network, which is in training mode, ready for an epoch (from 1)."""
        for group, parameters, begins in zip(self.groups, self.parameters, self.from_epochs, strict=True):
            learns = begins is not None and begins <= epoch
            for parameter in parameters:
                parameter.requires_grad_(learns)
            if not learns:
                for module in group.modules:
                    module.eval()


def unfreezing(groups: list[LayerGroup], plan: Plan) -> Unfreezing:
    """The schedule of a plan that is in effect (`strategies.apply`)."""
    parameters = tuple(tuple(learning_parameters(group)) for group in groups)
    begins = tuple(planned.from_epoch if planned.learning_rate else None for planned in plan.groups)
    return Unfreezing(tuple(groups), parameters, begins)
