"""L2-SP: a pull towards the weights that the network came with, against forgetting (Li et al., ICML 2018)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Anchor:
    """Parameters of the backbone, and the source weights that they are held to.

    The penalty is strength / 2 · ‖w − w⁰‖² over all of them; the head, which has no source, has AdamW's decay towards zero
    instead (the paper's second term).
    """

    strength: float
    parameters: tuple[nn.Parameter, ...]
    sources: tuple[Tensor, ...]

    def pull(self) -> None:
        """Add the gradient of the penalty, strength · (w − w⁰), to that of the loss, for what learns at present."""
        for parameter, source in zip(self.parameters, self.sources, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - source, alpha=self.strength)

    @torch.no_grad()
    def distance(self) -> float:
        """How far the parameters are from their sources: ‖w − w⁰‖ / ‖w⁰‖."""
        moved = sum((parameter - source).square().sum().item() for parameter, source in self._pairs())
        came_with = sum(source.square().sum().item() for source in self.sources)
        return float((moved / came_with) ** 0.5) if came_with else 0.0

    def _pairs(self) -> Iterable[tuple[nn.Parameter, Tensor]]:
        return zip(self.parameters, self.sources, strict=True)


def anchor(parameters: Iterable[nn.Parameter], strength: float) -> Anchor:
    """Hold parameters to what they are now."""
    held = tuple(parameters)
    return Anchor(strength, held, tuple(parameter.detach().clone() for parameter in held))
