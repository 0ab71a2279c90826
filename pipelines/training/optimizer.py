"""AdamW with one learning rate per layer group, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from pipelines.models.backbones import LayerGroup
from pipelines.transfer.anchoring import Anchor, anchor
from pipelines.transfer.strategies import Plan, learning_parameters

BESIDE_RATE = 0.01  # peak rate of what learns besides the network: logarithms, which the head's rate would hardly move


@dataclass(frozen=True)
class Optimizer:
    """AdamW over the layer groups that learn.

    Biases and the scale and shift of norms, the parameters of one dimension, are not decayed towards zero, and nothing is
    that an anchor holds.

    Attributes:
        rates: peak learning rate of every layer group of the plan, from stem to head; 0 for one that does not learn.
        base: peak rate of each of AdamW's parameter groups.
        owners: the number of the layer group that each of AdamW's parameter groups is of.
        anchor: what holds the backbone to its source weights, or None.
    """

    adamw: AdamW
    rates: tuple[float, ...]
    base: tuple[float, ...]
    owners: tuple[int, ...] = ()
    anchor: Anchor | None = None

    def set_rates(self, factor: float, scales: Sequence[float] | None = None) -> tuple[float, ...]:
        """Set every rate to `factor` times its peak, and times the layer group's scale where there are any.

        Returns:
            The rates of the layer groups, from stem to head.
        """
        own = [scales[owner] for owner in self.owners] if scales else [1.0] * len(self.base)
        for group, peak, scale in zip(self.adamw.param_groups, self.base, own, strict=True):
            group["lr"] = peak * factor * scale
        return tuple(rate * factor * scale for rate, scale in zip(self.rates, scales or [1.0] * len(self.rates), strict=True))

    def step(self, loss: Tensor) -> None:
        self.adamw.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.anchor:
            self.anchor.pull()
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


def build(groups: Sequence[LayerGroup], plan: Plan, weight_decay: float, beside: Sequence[nn.Parameter] = ()) -> Optimizer:
    """AdamW for what the plan lets learn; the plan is in effect (`transfer.strategies.apply`).

    Where the plan has an anchor, it holds what learns below the head to what it is now. What learns `beside` the network
    follows the schedule of the head, at a rate of its own, and is not decayed.
    """
    sets, owners, held = [], [], []
    for number, (group, planned) in enumerate(zip(groups, plan.groups, strict=True)):
        learning = learning_parameters(group)
        anchored = plan.anchor > 0 and number + 1 < len(groups)
        held += learning if anchored else []
        decayed = [parameter for parameter in learning if parameter.ndim > 1]
        plain = [parameter for parameter in learning if parameter.ndim <= 1]
        for parameters, decay in ((decayed, 0.0 if anchored else weight_decay), (plain, 0.0)):
            if parameters:
                sets.append({"params": parameters, "lr": planned.learning_rate, "weight_decay": decay})
                owners.append(number)
    rates = tuple(planned.learning_rate for planned in plan.groups)
    base = [rates[owner] for owner in owners]
    if beside:
        sets.append({"params": list(beside), "lr": BESIDE_RATE, "weight_decay": 0.0})
        owners.append(len(groups) - 1)
        base.append(BESIDE_RATE)
    return Optimizer(AdamW(sets), rates, tuple(base), tuple(owners), anchor(held, plan.anchor) if held else None)
