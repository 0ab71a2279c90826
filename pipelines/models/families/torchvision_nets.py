"""torchvision's networks that MONAI lacks, through MONAI's `TorchVisionFCModel`, and their layer groups."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from torch import nn

from pipelines.models.architecture import Backbone, Groups

PREFIX = "features."  # where the adapter keeps torchvision's network


def vgg16() -> Backbone:
    """VGG-16 with its two hidden fully connected layers, which belong to the last stage."""
    blocks = (("stem", range(5)), ("stage1", range(5, 10)), ("stage2", range(10, 17)), ("stage3", range(17, 24)))
    groups = (
        *((name, tuple(f"{PREFIX}features.{index}" for index in layers)) for name, layers in blocks),
        ("stage4", (*(f"{PREFIX}features.{index}" for index in range(24, 31)), f"{PREFIX}classifier")),
    )
    return Backbone(
        partial(_adapted, "vgg16", "classifier.6"),
        4096,
        groups,
        saliency=f"{PREFIX}features.30",
        first=f"{PREFIX}features.0",
        removed=("fc",),
    )


def inception_v3() -> Backbone:
    """Inception-v3 without its auxiliary classifier; `transform_input` is left to the passport's mean and deviation."""
    layers: Groups = (
        ("stem", ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3")),
        ("stage1", ("Conv2d_3b_1x1", "Conv2d_4a_3x3")),
        ("stage2", ("Mixed_5b", "Mixed_5c", "Mixed_5d")),
        ("stage3", ("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e")),
        ("stage4", ("Mixed_7a", "Mixed_7b", "Mixed_7c")),
    )
    return Backbone(
        partial(_adapted, "inception_v3", "fc", aux_logits=False, transform_input=False, init_weights=False, dropout=0.0),
        2048,
        tuple((name, tuple(PREFIX + path for path in paths)) for name, paths in layers),
        saliency=f"{PREFIX}Mixed_7c",
        first=f"{PREFIX}Conv2d_1a_3x3.conv",
        removed=("fc",),
        input_size=299,
        least_size=75,
    )


def mobilenet_v2() -> Backbone:
    """MobileNetV2 of width 1."""
    stages = (("stem", range(2)), ("stage1", range(2, 4)), ("stage2", range(4, 7)), ("stage3", range(7, 14)))
    return Backbone(
        partial(_adapted, "mobilenet_v2", "classifier.1", dropout=0.0),
        1280,
        tuple((name, _blocks(layers)) for name, layers in (*stages, ("stage4", range(14, 19)))),
        saliency=f"{PREFIX}features.18",
        first=f"{PREFIX}features.0.0",
        removed=("fc",),
    )


def _blocks(indices: range) -> tuple[str, ...]:
    return tuple(f"{PREFIX}features.{index}" for index in indices)


def _adapted(name: str, classifier: str, **options: Any) -> nn.Module:
    from monai.networks.nets.torchvision_fc import TorchVisionFCModel

    network = TorchVisionFCModel(name, pretrained=False, pool=None, fc_name=classifier, **options)
    return cast(nn.Module, network)
