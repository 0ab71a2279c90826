"""What stands behind a backbone: a linear layer, a small perceptron, or the nearest neighbours of a bank of features.

A head is a module from features (images, width) to logits (images, outputs). Its description goes into the model card, so
that a model is rebuilt from there; every tensor that it needs is in its state.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.errors import WeightsError

if TYPE_CHECKING:
    from pipelines.models.network import Network

LINEAR: Mapping[str, Any] = {"kind": "linear"}
HIDDEN = 128  # units of an MLP's hidden layer
TEMPERATURE = 0.07  # of the votes of neighbours by cosine similarity (Wu et al., CVPR 2018)
LEAST_SPREAD = 0.1  # of a feature, in root mean squares of all features' deviations
AT_ONCE = 256  # images whose neighbours are looked for, so that memory grows with the bank and not with its square
PRIOR = 1.0  # weight of the prevalence in a vote, in neighbours as near as the nearest


class Neighbours(nn.Module):
    """The k nearest of a bank of labelled features vote on each output.

    Near is meant as cosine similarity of standardised features; a vote weighs exp((similarity − the nearest's) / 0.07)
    (Wu et al., CVPR 2018), and the prevalence in the bank votes too, with the weight of the nearest, so that no probability
    is 0 or 1. What a bank does not know of an output has no vote on it.
    """

    mean: Tensor
    scale: Tensor
    bank: Tensor
    labels: Tensor

    def __init__(self, images: int, width: int, outputs: int, *, neighbours: int, exclusive: bool) -> None:
        super().__init__()
        self.neighbours, self.exclusive = neighbours, exclusive
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("bank", torch.zeros(images, width))
        self.register_buffer("labels", torch.zeros(images, outputs))

    @torch.no_grad()
    def remember(self, features: Tensor, labels: Tensor) -> Neighbours:
        """Take features (images, width) with labels (images, outputs) of 0, 1 or NaN as the bank."""
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_(spread(features))
        self.bank.copy_(functional.normalize((features - self.mean) / self.scale, dim=1))
        self.labels.copy_(labels)
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Logits (images, outputs), whose sigmoid, or softmax for exclusive outputs, is the share of the votes."""
        shares = torch.cat([self._shares(some) for some in torch.split(features, AT_ONCE)])
        return shares.log() if self.exclusive else shares.logit()

    def _shares(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            similarity = functional.normalize((features.float() - self.mean) / self.scale, dim=1) @ self.bank.T
        return torch.stack([self._share(similarity, output) for output in range(self.labels.shape[1])], dim=1)

    def _share(self, similarity: Tensor, output: int) -> Tensor:
        known = self.labels[:, output].isnan().logical_not()
        labels, near = self.labels[known, output], similarity if known.all() else similarity[:, known]
        best, places = near.topk(min(self.neighbours, near.shape[1]), dim=1)
        votes = ((best - best[:, :1]) / TEMPERATURE).exp()
        return ((votes * labels[places]).sum(dim=1) + PRIOR * labels.mean()) / (votes.sum(dim=1) + PRIOR)


def build(description: Mapping[str, Any], width: int, outputs: int, dropout: float) -> nn.Module:
    """The head that `describe` described, without its tensors.

    Raises:
        WeightsError: there is no such kind.
    """
    kind = description["kind"]
    if kind == "linear":
        return linear(width, outputs, dropout)
    if kind == "mlp":
        return _perceptron(width, description["hidden"], outputs, dropout)
    if kind == "knn":
        exclusive, neighbours = description["exclusive"], description["neighbours"]
        return Neighbours(description["images"], width, outputs, neighbours=neighbours, exclusive=exclusive)
    raise WeightsError(f"head: expected linear, mlp or knn, got {kind!r}; a later radtransfer may have written this model")


def describe(head: nn.Module) -> dict[str, Any]:
    """What `build` needs to make this head again."""
    if isinstance(head, Neighbours):
        images = len(head.bank)
        return {"kind": "knn", "images": images, "neighbours": head.neighbours, "exclusive": head.exclusive}
    layers = dict(head.named_children())
    if "hidden" in layers:
        return {"kind": "mlp", "hidden": cast(nn.Linear, layers["hidden"]).out_features}
    return dict(LINEAR)


def linear(width: int, outputs: int, dropout: float) -> nn.Sequential:
    """Dropout, then one linear layer."""
    return nn.Sequential(OrderedDict[str, nn.Module](dropout=nn.Dropout(dropout), linear=nn.Linear(width, outputs)))


def perceptron(network: Network, hidden: int, seed: int) -> nn.Module:
    """A head with one hidden layer for `network`, on its device, from random numbers that `seed` decides."""
    last = last_layer(network.head)
    dropout = cast(nn.Dropout, network.head.get_submodule("dropout"))
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        made = _perceptron(network.width, hidden, last.out_features, dropout.p)
    return made.to(last.weight.device)


def perceptron_size(network: Network, hidden: int) -> int:
    """How many numbers `perceptron` would hold."""
    return (network.width + 1) * hidden + (hidden + 1) * last_layer(network.head).out_features


def spread(features: Tensor) -> Tensor:
    """By what to divide features (images, width) to standardise them: their deviations, but a tenth of a usual one at least.

    A feature that is silent in all of a few training images would else drown every other one where it speaks.
    """
    deviations = features.std(dim=0, unbiased=False)
    return deviations.clamp(min=max(LEAST_SPREAD * deviations.square().mean().sqrt().item(), 1e-6))


@torch.no_grad()
def standardise(head: nn.Module, mean: Tensor, scale: Tensor) -> None:
    """Let a head that learnt from (features − mean) / scale answer to the features themselves, by its first linear layer."""
    first = next(module for module in head.modules() if isinstance(module, nn.Linear))
    first.weight.div_(scale.to(first.weight))
    first.bias.sub_(first.weight @ mean.to(first.weight))


def last_layer(head: nn.Module) -> nn.Linear:
    """The layer that puts out the logits of a linear head or an MLP."""
    return cast(nn.Linear, head.get_submodule("linear"))


def _perceptron(width: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            dropout=nn.Dropout(dropout),
            hidden=nn.Linear(width, hidden),
            activation=nn.ReLU(),
            linear=nn.Linear(hidden, outputs),
        )
    )
