"""How the tensors of published checkpoints are named in our backbones: regular expressions, as data.

Names rather than positions decide: safetensors files don't keep the order in which tensors were saved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class KeyMap:
    """The way from a checkpoint's names to a backbone's.

    Attributes:
        replace: pairs of a regular expression and its replacement, applied one after the other with `re.sub`.
        drop: regular expressions for the source's names that are left out on purpose (its classifier).
        steps: entries of `STEPS`, for tensors that the publisher's network holds in another shape.
    """

    replace: tuple[tuple[str, str], ...] = ()
    drop: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()

    def rename(self, key: str) -> str:
        for pattern, replacement in self.replace:
            key = re.sub(pattern, replacement, key)
        return key

    def drops(self, key: str) -> bool:
        return any(re.search(pattern, key) for pattern in self.drop)

    def reshaped(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of `state`, by our names, in our shapes."""
        reshaped = dict(state)
        for step in self.steps:
            reshaped = STEPS[step](reshaped)
        return reshaped

    def to_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"replace": [list(pair) for pair in self.replace], "drop": list(self.drop)}
        return {**plain, "steps": list(self.steps)} if self.steps else plain

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> KeyMap:
        """The inverse of `to_dict`.

        Raises:
            WeightsError: not lists of regular expressions, or of known steps.
        """
        try:
            replace = tuple((str(pattern), str(replacement)) for pattern, replacement in values.get("replace", ()))
            drop = tuple(str(pattern) for pattern in values.get("drop", ()))
            for pattern, replacement in (*replace, *((pattern, "") for pattern in drop)):
                re.sub(pattern, replacement, "")
            steps = tuple(str(step) for step in values.get("steps", ()))
        except (TypeError, ValueError, AttributeError, IndexError, re.error) as error:
            raise WeightsError(
                'passport key_map: expected {"replace": [[pattern, replacement], …], "drop": [pattern, …]} '
                f"of regular expressions: {error}"
            ) from error
        if unknown := sorted(set(steps) - set(STEPS)):
            raise WeightsError(f"passport key_map: expected steps of {', '.join(STEPS)}, got {', '.join(unknown)}")
        return KeyMap(replace, drop, steps)


def _class_position(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The class token's position embedding, the first of all, is added to the class token, which MONAI gives no position."""
    token, positions = state.get("cls_token"), state.get("patch_embedding.position_embeddings")
    if token is None or positions is None:
        return state
    return {**state, "cls_token": token + positions[:, :1], "patch_embedding.position_embeddings": positions[:, 1:]}


def _dense_excitation(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Squeeze and excitation by 1 × 1 convolutions is the same as by linear layers."""
    return {name: tensor.flatten(1) if ".se_layer.fc." in name and tensor.ndim == 4 else tensor for name, tensor in state.items()}


STEPS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "class_position": _class_position,
    "dense_excitation": _dense_excitation,
}


def _efficientnet(blocks: tuple[int, ...]) -> KeyMap:
    """From a stage's n-th block and a block's n-th layer (torchvision) to the n-th of all blocks and named layers (MONAI).

    The first stage has no expansion, so that its layers are numbered one lower. `blocks` are how many each stage has.
    """
    pairs = [
        (r"^features\.0\.0\.", "_conv_stem."),
        (r"^features\.0\.1\.", "_bn0."),
        (r"^features\.8\.0\.", "_conv_head."),
        (r"^features\.8\.1\.", "_bn1."),
    ]
    for stage, shift in (("1", 0), ("[2-7]", 1)):
        block = rf"^(features\.{stage}\.\d+)\.block"
        pairs += [
            (rf"{block}\.{shift}\.0\.", r"\1._depthwise_conv."),
            (rf"{block}\.{shift}\.1\.", r"\1._bn1."),
            (rf"{block}\.{shift + 1}\.fc1\.", r"\1._se_reduce."),
            (rf"{block}\.{shift + 1}\.fc2\.", r"\1._se_expand."),
            (rf"{block}\.{shift + 2}\.0\.", r"\1._project_conv."),
            (rf"{block}\.{shift + 2}\.1\.", r"\1._bn2."),
        ]
    pairs += [(rf"{block}\.0\.0\.", r"\1._expand_conv."), (rf"{block}\.0\.1\.", r"\1._bn0.")]
    places = [(stage, block) for stage, count in enumerate(blocks) for block in range(count)]
    pairs += [
        (rf"^features\.{stage + 1}\.{block}\.", f"_blocks.{stage}.{position}.") for position, (stage, block) in enumerate(places)
    ]
    return KeyMap(tuple(pairs), (r"^classifier\.",))


def _vit(position: str, patches: str, blocks: str, norm: str, layers: tuple[tuple[str, str], ...], drop: str) -> KeyMap:
    """A vision transformer whose class token has a position of its own."""
    pairs = [
        (r"^class_token$", "cls_token"),
        (position, "patch_embedding.position_embeddings"),
        (patches, "patch_embedding.patch_embeddings."),
        (blocks, r"blocks.\1."),
        (norm, "norm."),
    ]
    pairs += [(rf"^(blocks\.\d+)\.{theirs}", rf"\1.{ours}") for theirs, ours in layers]
    return KeyMap(tuple(pairs), (drop,), ("class_position",))


def _by_position(children: str) -> KeyMap:
    """RadImageNet's layout: `backbone.i` is the i-th of torchvision's named children; our adapter's names for those."""
    names = list(enumerate(children.split()))
    pairs = [(rf"^(?:backbone\.)?{index}\.", f"{name}.") for index, name in names if name not in ("-", "AuxLogits")]
    drop = tuple(rf"^(?:backbone\.)?{index}\." for index, name in names if name == "AuxLogits")
    return KeyMap((*pairs, (r"^(Conv2d|Mixed)_", r"features.\1_")), drop)


# the published files still carry the names of before torch 0.4: denselayer1.norm.1, not denselayer1.norm1
_DENSE_LAYERS = (r"(\.denselayer\d+)\.(norm|conv)\.?([12])\.", r"\1.layers.\2\3.")

KEY_MAPS: dict[str, KeyMap] = {
    "radtransfer": KeyMap(),
    "monai": KeyMap(
        drop=(
            r"^(fc|class_layers\.out|_fc|last_linear|classification_head)\.",
            r"\.(norm_)?cross_attn\.",
            r"^features\.AuxLogits\.",
        )
    ),
    "torchvision-resnet": KeyMap(drop=(r"^fc\.",)),
    "torchvision-densenet": KeyMap(replace=(_DENSE_LAYERS,), drop=(r"^classifier\.",)),
    "torchvision-efficientnet_b0": _efficientnet((1, 2, 2, 3, 3, 4, 1)),
    "torchvision-efficientnet_b1": _efficientnet((2, 3, 3, 4, 4, 5, 2)),
    "torchvision-efficientnet_b2": _efficientnet((2, 3, 3, 4, 4, 5, 2)),
    "torchvision-efficientnet_b3": _efficientnet((2, 3, 3, 5, 5, 6, 2)),
    "torchvision-efficientnet_b4": _efficientnet((2, 4, 4, 6, 6, 8, 2)),
    "torchvision-mobilenet_v2": KeyMap(replace=((r"^features\.", "features.features."),), drop=(r"^classifier\.",)),
    "torchvision-vgg16": KeyMap(replace=((r"^(features|classifier)\.", r"features.\1."),), drop=(r"^classifier\.6\.",)),
    "torchvision-inception_v3": KeyMap(replace=((r"^", "features."),), drop=(r"^fc\.", r"^AuxLogits\.")),
    "torchvision-vit": _vit(
        r"^encoder\.pos_embedding$",
        r"^conv_proj\.",
        r"^encoder\.layers\.encoder_layer_(\d+)\.",
        r"^encoder\.ln\.",
        (
            (r"ln_([12])\.", r"norm\2."),
            (r"self_attention\.in_proj_", "attn.qkv."),
            (r"self_attention\.out_proj\.", "attn.out_proj."),
            (r"mlp\.(?:0|linear_1)\.", "mlp.linear1."),
            (r"mlp\.(?:3|linear_2)\.", "mlp.linear2."),
        ),
        r"^heads\.",
    ),
    "timm-vit": _vit(
        r"^pos_embed$",
        r"^patch_embed\.proj\.",
        r"^blocks\.(\d+)\.",
        r"^norm\.",
        ((r"attn\.proj\.", "attn.out_proj."), (r"mlp\.fc([12])\.", r"mlp.linear\2.")),
        r"^head\.",
    ),
    "timm-seresnet50": KeyMap(
        replace=(
            (r"^(layer[1-4]\.\d+\.conv[1-3])\.", r"\1.conv."),
            (r"^(layer[1-4]\.\d+)\.bn([1-3])\.", r"\1.conv\2.adn.N."),
            (r"^(layer[1-4]\.\d+)\.se_module\.fc1\.", r"\1.se_layer.fc.0."),
            (r"^(layer[1-4]\.\d+)\.se_module\.fc2\.", r"\1.se_layer.fc.2."),
            (r"^(layer[1-4]\.\d+)\.downsample\.0\.", r"\1.project.conv."),
            (r"^(layer[1-4]\.\d+)\.downsample\.1\.", r"\1.project.adn.N."),
        ),
        drop=(r"^last_linear\.",),
        steps=("dense_excitation",),
    ),
    "radimagenet-resnet50": _by_position("conv1 bn1 - - layer1 layer2 layer3 layer4"),
    "radimagenet-densenet121": KeyMap(replace=((r"^(?:backbone\.)?0\.", "features."), _DENSE_LAYERS)),
    "radimagenet-inception_v3": _by_position(
        "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 - Conv2d_3b_1x1 Conv2d_4a_3x3 - Mixed_5b Mixed_5c Mixed_5d "
        "Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b Mixed_7c"
    ),
    "radimagenet-inception_v3-aux": _by_position(
        "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 - Conv2d_3b_1x1 Conv2d_4a_3x3 - Mixed_5b Mixed_5c Mixed_5d "
        "Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e AuxLogits Mixed_7a Mixed_7b Mixed_7c"
    ),
    "torchxrayvision-densenet121": KeyMap(replace=(_DENSE_LAYERS,), drop=(r"^classifier\.", r"^op_threshs$")),
    "torchxrayvision-resnet50": KeyMap(replace=((r"^model\.", ""),), drop=(r"^model\.fc\.", r"^op_threshs$")),
}
