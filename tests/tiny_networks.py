"""Networks small enough to train in a test."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from pipelines.models import backbones
from pipelines.models.architecture import Backbone
from pipelines.models.families import monai_nets
from pipelines.models.network import Network
from pipelines.models.provenance import Normalisation

HALF = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def resnet(outputs: int = 1, dropout: float = 0.2, seed: int = 3) -> Network:
    torch.manual_seed(seed)
    return backbones.build("resnet10", outputs=outputs, dropout=dropout, normalisation=HALF)


def vit(outputs: int = 1, seed: int = 3) -> Network:
    """A transformer of two blocks of width 32 for images of 48 pixels, as timm builds one."""
    torch.manual_seed(seed)
    groups = (
        ("stem", ("patch_embed", "cls_token", "pos_embed")),
        ("stage1", ("blocks.0",)),
        ("stage2", ("blocks.1", "norm")),
    )
    backbone = Backbone(
        _vit,
        width=32,
        groups=groups,
        saliency="blocks.1.norm1",
        first="patch_embed.proj",
        input_size=48,
        layout="tokens",
        prefix_tokens=1,
    )
    return Network("tiny_vit", backbone, outputs=outputs, dropout=0.1, normalisation=HALF)


def monai_vit(outputs: int = 1, seed: int = 3) -> Network:
    """The ViT-B/16 of the table, shrunken to two blocks of width 48 with three heads."""
    torch.manual_seed(seed)
    groups = (
        ("stem", ("cls_token", "patch_embedding")),
        ("stage1", ("blocks.0",)),
        ("stage2", ("blocks.1", "norm")),
    )
    made = partial(monai_nets.VisionTransformer, width=48, hidden=96, layers=2, heads=3)
    backbone = replace(monai_nets.vit_b16(), make=made, width=48, groups=groups, saliency="blocks.1.norm1")
    return Network("tiny_monai_vit", backbone, outputs=outputs, dropout=0.1, normalisation=HALF)


def _vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=48, patch_size=16, embed_dim=32, depth=2, num_heads=2, num_classes=0)


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)
