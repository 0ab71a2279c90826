"""MONAI's networks, built as the published weights for them want it, and their layer groups."""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.models.architecture import Backbone, Groups, replace_module

RESNET_GROUPS: Groups = (
    ("stem", ("conv1", "bn1")),
    ("stage1", ("layer1",)),
    ("stage2", ("layer2",)),
    ("stage3", ("layer3",)),
    ("stage4", ("layer4",)),
)
DENSENET_GROUPS: Groups = (
    ("stem", ("features.conv0", "features.norm0")),
    ("stage1", ("features.denseblock1", "features.transition1")),
    ("stage2", ("features.denseblock2", "features.transition2")),
    ("stage3", ("features.denseblock3", "features.transition3")),
    ("stage4", ("features.denseblock4", "features.norm5")),
)
EFFICIENTNET_GROUPS: Groups = (
    ("stem", ("_conv_stem", "_bn0", "_blocks.0")),
    ("stage1", ("_blocks.1",)),
    ("stage2", ("_blocks.2",)),
    ("stage3", ("_blocks.3", "_blocks.4")),
    ("stage4", ("_blocks.5", "_blocks.6", "_conv_head", "_bn1")),
)
VIT_GROUPS: Groups = (
    ("stem", ("cls_token", "patch_embedding")),
    ("stage1", ("blocks.0", "blocks.1", "blocks.2")),
    ("stage2", ("blocks.3", "blocks.4", "blocks.5")),
    ("stage3", ("blocks.6", "blocks.7", "blocks.8")),
    ("stage4", ("blocks.9", "blocks.10", "blocks.11", "norm")),
)


def resnet(block: str, layers: tuple[int, ...], planes: tuple[int, ...] = (64, 128, 256, 512)) -> Backbone:
    """A ResNet of `basic` or `bottleneck` blocks."""
    width = planes[-1] * (4 if block == "bottleneck" else 1)
    return Backbone(partial(_resnet, block, layers, planes), width, RESNET_GROUPS, saliency="layer4", first="conv1")


def densenet(layers: tuple[int, ...], width: int) -> Backbone:
    """A DenseNet with growth 32 and 64 features in its stem."""
    return Backbone(
        partial(_densenet, layers),
        width,
        DENSENET_GROUPS,
        saliency="class_layers.relu",
        first="features.conv0",
        removed=("class_layers.out",),
    )


def efficientnet(name: str, width: int, input_size: int) -> Backbone:
    """An EfficientNet, `b0` to `b7`."""
    return Backbone(
        partial(_efficientnet, f"efficientnet-{name}"),
        width,
        EFFICIENTNET_GROUPS,
        saliency="_avg_pooling.0",
        first="_conv_stem",
        removed=("_dropout", "_fc"),
        input_size=input_size,
    )


def seresnet50() -> Backbone:
    """Squeeze-and-excitation ResNet-50, in Caffe's manner: the stride is in a block's first convolution."""
    groups = (("stem", ("layer0",)), *RESNET_GROUPS[1:])
    return Backbone(_seresnet50, 2048, groups, saliency="layer4", first="layer0.conv1", removed=("last_linear",))


def vit_b16() -> Backbone:
    """The base vision transformer with patches of 16 × 16; stages are every three of its twelve blocks."""
    return Backbone(
        VisionTransformer,
        768,
        VIT_GROUPS,
        saliency="blocks.11.norm1",
        first="patch_embedding.patch_embeddings",
        layout="tokens",
        prefix_tokens=1,
    )


class VisionTransformer(nn.Module):
    """MONAI's ViT with patches of 16 × 16, ViT-B if not told otherwise, up to the class token.

    It takes images of any size: position embeddings are resampled to their patches.
    """

    GRID = 14

    def __init__(self, *, width: int = 768, hidden: int = 3072, layers: int = 12, heads: int = 12) -> None:
        super().__init__()
        from monai.networks.nets.vit import ViT

        whole = ViT(
            in_channels=3,
            img_size=224,
            patch_size=16,
            hidden_size=width,
            mlp_dim=hidden,
            num_layers=layers,
            num_heads=heads,
            proj_type="conv",
            classification=True,
            post_activation="none",
            qkv_bias=True,
            spatial_dims=2,
        )
        self.cls_token = whole.cls_token
        self.patch_embedding, self.blocks, self.norm = whole.patch_embedding, whole.blocks, whole.norm
        for block in self.blocks:
            block.norm_cross_attn = nn.Identity()  # holds weights that no image reaches
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-6

    def forward(self, images: Tensor) -> Tensor:
        """Features (images, width) of images (images, 3, rows, columns), multiples of 16 (what is over is cut off)."""
        patches = self.patch_embedding.patch_embeddings(images)
        tokens = patches.flatten(2).transpose(1, 2) + self._positions(patches.shape[2], patches.shape[3])
        tokens = self.patch_embedding.dropout(tokens)
        tokens = torch.cat((self.cls_token.expand(len(tokens), -1, -1), tokens), dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return cast(Tensor, self.norm(tokens)[:, 0])

    def _positions(self, rows: int, columns: int) -> Tensor:
        learnt = cast(Tensor, self.patch_embedding.position_embeddings)
        if (rows, columns) == (self.GRID, self.GRID):
            return learnt
        grid = learnt.transpose(1, 2).reshape(1, -1, self.GRID, self.GRID)
        resampled = functional.interpolate(grid.float(), size=(rows, columns), mode="bicubic", antialias=True)
        return resampled.to(learnt.dtype).flatten(2).transpose(1, 2)


def _resnet(block: str, layers: tuple[int, ...], planes: tuple[int, ...]) -> nn.Module:
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


def _densenet(layers: tuple[int, ...]) -> nn.Module:
    from monai.networks.nets.densenet import DenseNet

    network = cast(nn.Module, DenseNet(2, 3, 1, init_features=64, growth_rate=32, block_config=layers))
    replace_module(network, "class_layers.relu", nn.ReLU())  # not in place, so that hooks see the map
    return network


def _efficientnet(name: str) -> nn.Module:
    """MONAI's EfficientNet as torchvision trains it: batch norm's usual constants, and symmetric padding.

    MONAI's own padding follows TensorFlow, is asymmetric, and is fixed to one image size when the network is built.
    """
    from monai.networks.nets.efficientnet import EfficientNetBN

    norm = ("batch", {"eps": 1e-5, "momentum": 0.1})
    network = cast(nn.Module, EfficientNetBN(name, pretrained=False, spatial_dims=2, num_classes=1, norm=norm))
    for path in [name for name, _ in network.named_modules() if name.endswith("_padding")]:
        convolution = network.get_submodule(path.removesuffix("_padding"))
        if isinstance(convolution, nn.Conv2d):
            convolution.padding = tuple(size // 2 for size in convolution.kernel_size)
        replace_module(network, path, nn.Identity())
    pooling = network.get_submodule("_avg_pooling")
    replace_module(network, "_avg_pooling", nn.Sequential(nn.Identity(), pooling))  # a place to see the map after its activation
    return network


def _seresnet50() -> nn.Module:
    from monai.networks.nets.senet import SEResNet50

    return cast(nn.Module, SEResNet50(spatial_dims=2, in_channels=3, num_classes=1, pretrained=False))
