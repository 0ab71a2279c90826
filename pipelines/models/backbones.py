"""The networks that can be trained: a table of backbones, and any encoder of timm's by name.

A backbone says how it is built, how wide its features are, and which of its modules form which group from stem to head.
Code that freezes layers or sets learning rates walks the groups and knows no architecture.
"""

from __future__ import annotations

from pipelines.errors import ConfigurationError
from pipelines.models.architecture import Backbone
from pipelines.models.families import monai_nets as monai
from pipelines.models.families import timm_nets as timm
from pipelines.models.families import torchvision_nets as torchvision
from pipelines.models.network import LayerGroup, Network, Probe
from pipelines.models.provenance import Normalisation

__all__ = ["BACKBONES", "Backbone", "LayerGroup", "Network", "Probe", "build", "check_size", "resolve"]

KEY = "params.yaml train.backbone"

BACKBONES: dict[str, Backbone] = {
    "resnet10": monai.resnet("basic", (1, 1, 1, 1), (16, 32, 64, 128)),
    "resnet18": monai.resnet("basic", (2, 2, 2, 2)),
    "resnet34": monai.resnet("basic", (3, 4, 6, 3)),
    "resnet50": monai.resnet("bottleneck", (3, 4, 6, 3)),
    "resnet101": monai.resnet("bottleneck", (3, 4, 23, 3)),
    "seresnet50": monai.seresnet50(),
    "densenet121": monai.densenet((6, 12, 24, 16), 1024),
    "densenet169": monai.densenet((6, 12, 32, 32), 1664),
    "densenet201": monai.densenet((6, 12, 48, 32), 1920),
    "efficientnet_b0": monai.efficientnet("b0", 1280, 224),
    "efficientnet_b1": monai.efficientnet("b1", 1280, 240),
    "efficientnet_b2": monai.efficientnet("b2", 1408, 288),
    "efficientnet_b3": monai.efficientnet("b3", 1536, 300),
    "efficientnet_b4": monai.efficientnet("b4", 1792, 380),
    "vit_b16": monai.vit_b16(),
    "vgg16": torchvision.vgg16(),
    "inception_v3": torchvision.inception_v3(),
    "mobilenet_v2": torchvision.mobilenet_v2(),
}


def resolve(name: str, key: str = KEY) -> Backbone:
    """The entry of a backbone: of the table, or of `timm:NAME`; `key` is where the user named it, for messages.

    Raises:
        ConfigurationError: there is no backbone of that name.
    """
    if name.startswith(timm.PREFIX):
        try:
            return timm.entry(name.removeprefix(timm.PREFIX))
        except ConfigurationError as error:
            raise ConfigurationError(f"{key}: {error}") from error
    if name not in BACKBONES:
        known = f"{', '.join(BACKBONES)}, or {timm.PREFIX}NAME"
        raise ConfigurationError(f"{key}: expected one of {known}, got {name!r}")
    return BACKBONES[name]


def check_size(name: str, size: int, key: str = KEY) -> None:
    """See that a backbone can take images of `size` rows and columns; `key` as for `resolve`.

    Raises:
        ConfigurationError: it cannot, or there is no such backbone.
    """
    backbone = resolve(name, key)
    if (backbone.fixed_size and size != backbone.input_size) or size < backbone.least_size:
        expected = str(backbone.input_size) if backbone.fixed_size else f"at least {backbone.least_size}"
        raise ConfigurationError(f"params.yaml prepare.size: expected {expected} for {name}, got {size}")


def build(name: str, *, outputs: int, dropout: float, normalisation: Normalisation) -> Network:
    """A network with random weights, decided by torch's global generator; one channel or three, as the normalisation has.

    Raises:
        ConfigurationError: there is no backbone of that name.
    """
    return Network(name, resolve(name), outputs=outputs, dropout=dropout, normalisation=normalisation)
