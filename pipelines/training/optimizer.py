"""AdamW with one learning rate per layer group, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from pipelines.models.backbones import LayerGroup
from pipelines.transfer.strategies import Plan, learning_parameters


@dataclass(frozen=True)
class Optimizer:
    """AdamW over the layer groups that learn.

    Biases and the scale and shift of norms, the parameters of one dimension, are not decayed towards zero.

    Attributes:
        rates: peak learning rate of every layer group of the plan, from stem to head; 0 for one that does not learn.
        base: peak rate of each of AdamW's parameter groups.
    """

    adamw: AdamW
    rates: tuple[float, ...]
    base: tuple[float, ...]

    def set_rates(self, factor: float) -> tuple[float, ...]:
        """Set every rate to `factor` times its peak; returns those of the layer groups, from stem to head."""
        for group, peak in zip(self.adamw.param_groups, self.base, strict=True):
            group["lr"] = peak * factor
        return tuple(rate * factor for rate in self.rates)

    def step(self, loss: Tensor) -> None:
        self.adamw.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.adamw.step()

    def state(self) -> dict[str, Tensor]:
        """AdamW's moments and step counts, as `PARAMETER.NAME` with parameters numbered in order."""
        parameters = self.adamw.state_dict()["state"]
        return {f"{number}.{name}": value for number, values in parameters.items() for name, value in values.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave; strides follow the parameters, so that the next step gives the same bits."""
        for key, value in state.items():
            number, name = key.split(".")
            parameter = self._parameters()[int(number)]
            like = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
            self.adamw.state[parameter][name] = like.copy_(value)

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.adamw.param_groups for parameter in group["params"]]


def build(groups: Sequence[LayerGroup], plan: Plan, weight_decay: float) -> Optimizer:
    """AdamW for what the plan lets learn; the plan is in effect (`transfer.strategies.apply`)."""
    sets, base = [], []
    for group, planned in zip(groups, plan.groups, strict=True):
        learning = learning_parameters(group)
        decayed = [parameter for parameter in learning if parameter.ndim > 1]
        plain = [parameter for parameter in learning if parameter.ndim <= 1]
        for parameters, decay in ((decayed, weight_decay), (plain, 0.0)):
            if parameters:
                sets.append({"params": parameters, "lr": planned.learning_rate, "weight_decay": decay})
                base.append(planned.learning_rate)
    return Optimizer(AdamW(sets), tuple(planned.learning_rate for planned in plan.groups), tuple(base))
