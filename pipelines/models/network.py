"""The one wrapper that gives each backbone its normalisation and its head, and knows its layer groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from pipelines.models import heads
from pipelines.models.architecture import Backbone, replace_module
from pipelines.models.first_layer import FoldedConv2d, folds, one_channel
from pipelines.models.provenance import Normalisation

PROBE_SIZES = (64, 128)


@dataclass(frozen=True)
class LayerGroup:
    """Modules, and parameters that no module of their own holds, that are frozen, or learn at one rate, together."""

    name: str
    modules: tuple[nn.Module, ...]
    own: tuple[nn.Parameter, ...] = ()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter of the group, in order."""
        yield from self.own
        for module in self.modules:
            yield from module.parameters()


@dataclass(frozen=True)
class Probe:
    """What a network makes of one fixed image, without its head.

    Attributes:
        reduction: the factor by which the image's side shrinks to that of the last feature map, rounded down.
        fingerprint: means of eight equal runs of the pooled features.
    """

    reduction: int
    fingerprint: tuple[float, ...]


class Network(nn.Module):
    """A backbone with its normalisation in front and a head behind: dropout, then one linear layer.

    Its weights take as many channels as the normalisation has values, three or one; the images have one.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, backbone: Backbone, *, outputs: int, dropout: float, normalisation: Normalisation) -> None:
        super().__init__()
        self.name, self.backbone, self.width = name, backbone, backbone.width
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).view(1, -1, 1, 1))
        self.trunk = backbone.make()
        for path in backbone.removed:
            replace_module(self.trunk, path, nn.Identity())
        self.folded = self._fold(backbone.first, normalisation)
        self.head: nn.Module = heads.linear(backbone.width, outputs, dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (images, outputs) of float images (images, 1, rows, columns) in 0…1."""
        return cast(Tensor, self.head(self.features(images)))

    def features(self, images: Tensor) -> Tensor:
        """Pooled features (images, width) of float images (images, 1, rows, columns) in 0…1, before dropout and head.

        The first convolution normalises what it sees; where it cannot be folded, the one channel becomes three by
        broadcasting against the three means and deviations.
        """
        return cast(Tensor, self.trunk(images if self.folded else (images - self.mean) / self.std))

    def groups(self) -> list[LayerGroup]:
        """The layer groups from stem to head; every parameter belongs to exactly one."""
        trunk = [self._group(name, paths) for name, paths in self.backbone.groups]
        return [*trunk, LayerGroup("head", (self.head,))]

    @torch.no_grad()
    def lower_logits(self, by: Tensor) -> None:
        """Take `by` (outputs,) from the bias of the head, and so from the logits of every image."""
        linear = cast(nn.Linear, self.head.get_submodule("linear"))
        linear.bias.sub_(by.to(linear.bias))

    @torch.no_grad()
    def probe(self) -> Probe:
        """Run the backbone, as in evaluation, on one fixed image."""
        sizes: list[int] = []

        def measure(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            sizes.append(self.maps(output, (len(image), len(image))).shape[-1])

        image = probe_image(self.backbone).to(self.mean.device)
        hook = self.saliency_layer.register_forward_hook(measure)
        modes = [(module, module.training) for module in self.modules()]
        try:
            features = self.eval().features(image[None, None]).float()
        finally:
            hook.remove()
            for module, training in modes:
                module.training = training
        return Probe(len(image) // sizes[0], fingerprint(features))

    @property
    def saliency_layer(self) -> nn.Module:
        """The last module whose output still knows where things are; `maps` makes maps of it."""
        return self.trunk.get_submodule(self.backbone.saliency)

    def maps(self, output: Tensor, shape: tuple[int, int]) -> Tensor:
        """What the saliency layer puts out for images of `shape`, or its gradient, as (images, channels, rows, columns)."""
        return self.backbone.as_maps(output, shape)

    @property
    def normalisation(self) -> Normalisation:
        return Normalisation(tuple(self.mean.flatten().tolist()), tuple(self.std.flatten().tolist()))

    def renormalise(self, normalisation: Normalisation) -> None:
        """Expect images of another normalisation, of as many channels; the weights stay."""
        self.mean.copy_(torch.tensor(normalisation.mean).view_as(self.mean))
        self.std.copy_(torch.tensor(normalisation.std).view_as(self.std))
        if self.folded and self.backbone.first:
            layer = self.trunk.get_submodule(self.backbone.first)
            folded = FoldedConv2d.of(cast(nn.Conv2d, layer), normalisation).to(self.mean.device)
            replace_module(self.trunk, self.backbone.first, folded)

    def _group(self, name: str, paths: tuple[str, ...]) -> LayerGroup:
        parameters = dict(self.trunk.named_parameters())
        own = tuple(parameters[path] for path in paths if path in parameters)
        return LayerGroup(name, tuple(self.trunk.get_submodule(path) for path in paths if path not in parameters), own)

    def _fold(self, path: str | None, normalisation: Normalisation) -> bool:
        """Let the first convolution take one channel; says whether it could be done."""
        layer = self.trunk.get_submodule(path) if path else None
        if len(normalisation.mean) == 1:
            if not isinstance(layer, nn.Conv2d) or not folds(layer):
                raise ValueError(f"{self.name}: its first layer cannot take the weights of one channel")
            layer = one_channel(layer)
        if path is None or not isinstance(layer, nn.Conv2d) or not folds(layer):
            return False
        replace_module(self.trunk, path, FoldedConv2d.of(layer, normalisation))
        return True


def probe_image(backbone: Backbone, side: int | None = None) -> Tensor:
    """The fixed test pattern (rows, columns) in 0…1, of `side`, or of a small size that the backbone can take."""
    sides = () if backbone.fixed_size else PROBE_SIZES
    fitting = next((side for side in sides if side >= backbone.least_size), backbone.input_size)
    ramp = torch.linspace(0, 1, side or fitting)
    return 0.5 + 0.5 * torch.sin(20 * torch.outer(ramp, ramp) + 6 * ramp)


def fingerprint(features: Tensor) -> tuple[float, ...]:
    """Means of eight equal runs of the features (1, width) of one image."""
    return tuple(run.mean().item() for run in features.flatten().chunk(8))
