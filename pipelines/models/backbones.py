"""The networks that can be trained: a table of backbones, and the one wrapper that gives each of them a head.

A backbone is an entry of `BACKBONES`: how MONAI builds it, how wide its features are, which of its modules form which
group from stem to head. Code that freezes layers or sets learning rates walks the groups and knows no architecture.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from pipelines.errors import ConfigurationError
from pipelines.models.provenance import Normalisation

RESNET_GROUPS = (
    ("stem", ("conv1", "bn1")),
    ("stage1", ("layer1",)),
    ("stage2", ("layer2",)),
    ("stage3", ("layer3",)),
    ("stage4", ("layer4",)),
)


@dataclass(frozen=True)
class Backbone:
    """One architecture.

    Attributes:
        make: builds the network with random weights, at the state of torch's global generator.
        width: the number of pooled features.
        input_size: rows and columns that the published weights were trained at; others work.
        groups: the name and the modules (by path) of each layer group, from stem to the last before the head. Every
            backbone has five, one for each halving of the resolution, so that a decay per group means the same for all.
        saliency: path of the module whose output is the last feature map after its activation, (images, width, rows,
            columns): what is pooled into the features.
        removed: paths of the published classifier's modules, which the head replaces.
    """

    make: Callable[[], nn.Module]
    width: int
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    saliency: str
    removed: tuple[str, ...] = ()
    input_size: int = 224


@dataclass(frozen=True)
class LayerGroup:
    """Modules that are frozen, or learn at one rate, together."""

    name: str
    modules: tuple[nn.Module, ...]


@dataclass(frozen=True)
class Probe:
    """What a network makes of one fixed image, without its head.

    Attributes:
        reduction: the factor by which the image's side shrinks to that of the last feature map.
        fingerprint: means of eight equal runs of the pooled features.
    """

    reduction: int
    fingerprint: tuple[float, ...]


class Network(nn.Module):
    """A backbone with its normalisation in front and a head behind: dropout, then one linear layer."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, backbone: Backbone, *, outputs: int, dropout: float, normalisation: Normalisation) -> None:
        super().__init__()
        self.name, self.backbone, self.width = name, backbone, backbone.width
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).view(1, 3, 1, 1))
        self.trunk = backbone.make()
        for path in backbone.removed:
            _replace(self.trunk, path, nn.Identity())
        layers = OrderedDict[str, nn.Module](dropout=nn.Dropout(dropout), linear=nn.Linear(backbone.width, outputs))
        self.head = nn.Sequential(layers)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (images, outputs) of float images (images, 1, rows, columns) in 0…1."""
        return cast(Tensor, self.head(self.features(images)))

    def features(self, images: Tensor) -> Tensor:
        """Pooled features (images, width) of float images (images, 1, rows, columns) in 0…1, before dropout and head.

        The one channel becomes three by broadcasting against the three means and deviations.
        """
        return cast(Tensor, self.trunk((images - self.mean) / self.std))

    def groups(self) -> list[LayerGroup]:
        """The layer groups from stem to head; every parameter belongs to exactly one."""
        trunk = [
            LayerGroup(name, tuple(self.trunk.get_submodule(path) for path in paths)) for name, paths in self.backbone.groups
        ]
        return [*trunk, LayerGroup("head", (self.head,))]

    @torch.no_grad()
    def lower_logits(self, by: Tensor) -> None:
        """Take `by` (outputs,) from the bias of the head, and so from the logits of every image."""
        linear = cast(nn.Linear, self.head.get_submodule("linear"))
        linear.bias.sub_(by.to(linear.bias))

    @torch.no_grad()
    def probe(self) -> Probe:
        """Run the backbone, as in evaluation, on one fixed image of 64 rows and columns."""
        sizes: list[int] = []
        hook = self.saliency_layer.register_forward_hook(lambda _module, _inputs, maps: sizes.append(maps.shape[-1]))
        modes = [(module, module.training) for module in self.modules()]
        ramp = torch.linspace(0, 1, 64, device=self.mean.device)
        image = 0.5 + 0.5 * torch.sin(20 * torch.outer(ramp, ramp) + 6 * ramp)
        try:
            features = self.eval().features(image[None, None]).float()
        finally:
            hook.remove()
            for module, training in modes:
                module.training = training
        fingerprint = tuple(run.mean().item() for run in features.flatten().chunk(8))
        return Probe(image.shape[-1] // sizes[0], fingerprint)

    @property
    def saliency_layer(self) -> nn.Module:
        """The module that puts out the last feature map, (images, width, rows, columns), after its activation."""
        return self.trunk.get_submodule(self.backbone.saliency)

    @property
    def normalisation(self) -> Normalisation:
        red, green, blue = self.mean.flatten().tolist()
        red_std, green_std, blue_std = self.std.flatten().tolist()
        return Normalisation((red, green, blue), (red_std, green_std, blue_std))


def build(name: str, *, outputs: int, dropout: float, normalisation: Normalisation) -> Network:
    """A network with random weights, decided by torch's global generator.

    Raises:
        ConfigurationError: there is no backbone of that name.
    """
    if name not in BACKBONES:
        raise ConfigurationError(f"params.yaml train.backbone: expected one of {', '.join(BACKBONES)}, got {name!r}")
    return Network(name, BACKBONES[name], outputs=outputs, dropout=dropout, normalisation=normalisation)


def _replace(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)


def _resnet(block: str, layers: tuple[int, ...], planes: tuple[int, ...] = (64, 128, 256, 512)) -> nn.Module:
    from monai.networks.nets.resnet import ResNet

    network = ResNet(
        block,
        list(layers),
        list(planes),
        spatial_dims=2,
        n_input_channels=3,
        conv1_t_stride=2,  # MONAI's default of 1 takes the same weights and computes something else
        bias_downsample=False,
        feed_forward=False,
    )
    return cast(nn.Module, network)


def _densenet121() -> nn.Module:
    from monai.networks.nets.densenet import DenseNet121

    network = cast(nn.Module, DenseNet121(spatial_dims=2, in_channels=3, out_channels=1, pretrained=False))
    _replace(network, "class_layers.relu", nn.ReLU())  # not in place, so that hooks see the map
    return network


def _efficientnet_b0() -> nn.Module:
    """MONAI's EfficientNet as torchvision trains it: batch norm's usual constants, and symmetric padding.

    MONAI's own padding follows TensorFlow, is asymmetric, and is fixed to one image size when the network is built.
    """
    from monai.networks.nets.efficientnet import EfficientNetBN

    norm = ("batch", {"eps": 1e-5, "momentum": 0.1})
    network = cast(nn.Module, EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=2, num_classes=1, norm=norm))
    for path in [name for name, _ in network.named_modules() if name.endswith("_padding")]:
        convolution = network.get_submodule(path.removesuffix("_padding"))
        if isinstance(convolution, nn.Conv2d):
            convolution.padding = tuple(size // 2 for size in convolution.kernel_size)
        _replace(network, path, nn.Identity())
    pooling = network.get_submodule("_avg_pooling")
    _replace(network, "_avg_pooling", nn.Sequential(nn.Identity(), pooling))  # a place to see the map after its activation
    return network


def _mobilenet_v2() -> nn.Module:
    from monai.networks.nets.torchvision_fc import TorchVisionFCModel

    network = TorchVisionFCModel("mobilenet_v2", pretrained=False, pool=None, fc_name="classifier.1", dropout=0.0)
    return cast(nn.Module, network)


BACKBONES: dict[str, Backbone] = {
    "resnet10": Backbone(
        make=partial(_resnet, "basic", (1, 1, 1, 1), (16, 32, 64, 128)),
        width=128,
        groups=RESNET_GROUPS,
        saliency="layer4",
    ),
    "resnet18": Backbone(
        make=partial(_resnet, "basic", (2, 2, 2, 2)),
        width=512,
        groups=RESNET_GROUPS,
        saliency="layer4",
    ),
    "resnet50": Backbone(
        make=partial(_resnet, "bottleneck", (3, 4, 6, 3)),
        width=2048,
        groups=RESNET_GROUPS,
        saliency="layer4",
    ),
    "densenet121": Backbone(
        make=_densenet121,
        width=1024,
        groups=(
            ("stem", ("features.conv0", "features.norm0")),
            ("stage1", ("features.denseblock1", "features.transition1")),
            ("stage2", ("features.denseblock2", "features.transition2")),
            ("stage3", ("features.denseblock3", "features.transition3")),
            ("stage4", ("features.denseblock4", "features.norm5")),
        ),
        saliency="class_layers.relu",
        removed=("class_layers.out",),
    ),
    "efficientnet_b0": Backbone(
        make=_efficientnet_b0,
        width=1280,
        groups=(
            ("stem", ("_conv_stem", "_bn0", "_blocks.0")),
            ("stage1", ("_blocks.1",)),
            ("stage2", ("_blocks.2",)),
            ("stage3", ("_blocks.3", "_blocks.4")),
            ("stage4", ("_blocks.5", "_blocks.6", "_conv_head", "_bn1")),
        ),
        saliency="_avg_pooling.0",
        removed=("_dropout", "_fc"),
    ),
    "mobilenet_v2": Backbone(
        make=_mobilenet_v2,
        width=1280,
        groups=(
            ("stem", tuple(f"features.features.{index}" for index in range(2))),
            ("stage1", tuple(f"features.features.{index}" for index in range(2, 4))),
            ("stage2", tuple(f"features.features.{index}" for index in range(4, 7))),
            ("stage3", tuple(f"features.features.{index}" for index in range(7, 14))),
            ("stage4", tuple(f"features.features.{index}" for index in range(14, 19))),
        ),
        saliency="features.features.18",
        removed=("fc",),
    ),
}
