"""How the tensors of published checkpoints are named in our backbones: regular expressions, as data.

Names rather than positions decide: safetensors files don't keep the order in which tensors were saved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.errors import WeightsError


@dataclass(frozen=True)
class KeyMap:
    """The way from a checkpoint's names to a backbone's.

    Attributes:
        replace: pairs of a regular expression and its replacement, applied one after the other with `re.sub`.
        drop: regular expressions for the source's names that are left out on purpose (its classifier).
    """

    replace: tuple[tuple[str, str], ...] = ()
    drop: tuple[str, ...] = ()

    def rename(self, key: str) -> str:
        for pattern, replacement in self.replace:
            key = re.sub(pattern, replacement, key)
        return key

    def drops(self, key: str) -> bool:
        return any(re.search(pattern, key) for pattern in self.drop)

    def to_dict(self) -> dict[str, Any]:
        return {"replace": [list(pair) for pair in self.replace], "drop": list(self.drop)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> KeyMap:
        """The inverse of `to_dict`.

        Raises:
            WeightsError: not lists of regular expressions.
        """
        try:
            replace = tuple((str(pattern), str(replacement)) for pattern, replacement in values.get("replace", ()))
            drop = tuple(str(pattern) for pattern in values.get("drop", ()))
            for pattern in (*(pair[0] for pair in replace), *drop):
                re.compile(pattern)
        except (TypeError, ValueError, AttributeError, re.error) as error:
            raise WeightsError(
                'passport key_map: expected {"replace": [[pattern, replacement], …], "drop": [pattern, …]} '
                f"of regular expressions: {error}"
            ) from error
        return KeyMap(replace, drop)


def _efficientnet_b0() -> tuple[tuple[str, str], ...]:
    """From a stage's n-th block and a block's n-th layer (torchvision) to the n-th of all blocks and named layers (MONAI).

    The first stage has no expansion, so that its layers are numbered one lower.
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
    blocks = [(stage, block) for stage, count in enumerate((1, 2, 2, 3, 3, 4, 1)) for block in range(count)]
    pairs += [
        (rf"^features\.{stage + 1}\.{block}\.", f"_blocks.{stage}.{position}.") for position, (stage, block) in enumerate(blocks)
    ]
    return tuple(pairs)


KEY_MAPS: dict[str, KeyMap] = {
    "radtransfer": KeyMap(),
    "torchvision-resnet": KeyMap(drop=(r"^fc\.",)),
    "torchvision-densenet": KeyMap(
        # the published files still carry the names of before torch 0.4: denselayer1.norm.1, not denselayer1.norm1
        replace=((r"(\.denselayer\d+)\.(norm|conv)\.?([12])\.", r"\1.layers.\2\3."),),
        drop=(r"^classifier\.",),
    ),
    "torchvision-efficientnet_b0": KeyMap(replace=_efficientnet_b0(), drop=(r"^classifier\.",)),
    "torchvision-mobilenet_v2": KeyMap(replace=((r"^features\.", "features.features."),), drop=(r"^classifier\.",)),
}
