"""Auto-RGN: rates by how large each group's gradient is, relative to its weights (Lee et al., ICLR 2023)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

BATCHES = 5  # of an epoch, over which the ratio is averaged


def scales(
    module: nn.Module,
    groups: Sequence[Sequence[nn.Parameter]],
    loss: Callable[[Tensor, Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
) -> tuple[float, ...]:
    """What to multiply each group's rate by: ‖gradient‖ / ‖weights‖, averaged over the batches, by the largest of the groups.

    The module is in evaluation mode meanwhile, each module's own mode comes back, and no gradient is left behind.

    Args:
        module: from inputs to logits.
        groups: the parameters of each layer group that learn; () for one that does not, which gets 0.
        loss: of logits and labels.
        batches: inputs and labels.

    Returns:
        One number in 0…1 for each group; all 1 where no group has a gradient.
    """
    modes = [(inner, inner.training) for inner in module.modules()]
    ratios = []
    try:
        for inputs, labels in batches:
            module.eval()  # each time: it clears what some of timm's networks keep of a batch, with its graph
            ratios.append(_ratios(groups, loss(module(inputs), labels)))
    finally:
        for inner, training in modes:
            inner.training = training
    means = [sum(of_group) / len(ratios) for of_group in zip(*ratios, strict=True)]
    largest = max(means, default=0.0)
    return tuple(mean / largest for mean in means) if largest else (1.0,) * len(groups)


def _ratios(groups: Sequence[Sequence[nn.Parameter]], loss: Tensor) -> list[float]:
    learning = [parameter for group in groups for parameter in group]
    gradients = dict(zip(map(id, learning), torch.autograd.grad(loss, learning, allow_unused=True), strict=True))
    return [_ratio(group, [gradients[id(parameter)] for parameter in group]) for group in groups]


def _ratio(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> float:
    weights = sum(parameter.detach().square().sum().item() for parameter in parameters)
    gradient = sum(own.square().sum().item() for own in gradients if own is not None)
    return float((gradient / weights) ** 0.5) if weights else 0.0
