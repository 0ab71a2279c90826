"""A running average of the weights (EMA), which is judged and kept in the place of the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Average:
    """The average over the steps so far: after each, average ← d · average + (1 − d) · weights.

    d is `decay`, but at most (1 + n) / (10 + n) at the n-th update (from 0), so that the first weights are soon forgotten.
    Statistics of batch norm are averaged likewise; counters are taken as they are.
    """

    decay: float
    tensors: dict[str, Tensor]
    updates: int = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights after a step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, 1 - decay)
            else:
                self.tensors[name].copy_(tensor)
        self.updates += 1

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The averaged weights in the module for a while; its own come back to the bit."""
        own = state(module)
        module.load_state_dict(self.tensors)
        try:
            yield
        finally:
            module.load_state_dict(own)

    def restore(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Put back what a checkpoint kept."""
        self.tensors = {name: tensors[name].to(tensor.device) for name, tensor in self.tensors.items()}
        self.updates = updates


def average(module: nn.Module, decay: float | None) -> Average | None:
    """An average that begins at the weights of `module`; None without a decay."""
    return Average(decay, state(module)) if decay else None


def state(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the module's tensors."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
