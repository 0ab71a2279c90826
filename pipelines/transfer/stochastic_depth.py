"""Stochastic depth (Huang et al., ECCV 2016) in the networks that have places for it."""

from __future__ import annotations

from torch import nn

from pipelines.errors import ConfigurationError
from pipelines.models.backbones import Network

_SLOTS = ("drop_path", "drop_path1", "drop_path2")  # where timm's blocks keep it, an identity while it is off


def set_stochastic_depth(network: Network, chance: float) -> None:
    """Let the blocks of the backbone be skipped in training, the n-th of N (from 0) with chance × n / (N − 1).

    Raises:
        ConfigurationError: the network has no place for it, and the chance is not 0.
    """
    blocks = [module for module in network.trunk.modules() if _places(module)]
    if not blocks and chance:
        raise ConfigurationError(
            f"params.yaml train.stochastic_depth: expected null or 0 for {network.name}, whose blocks cannot be skipped, got "
            f"{chance:g}; EfficientNets and timm's ConvNeXts and transformers have it"
        )
    for number, block in enumerate(blocks):
        _set(block, chance * number / max(1, len(blocks) - 1))


def _places(module: nn.Module) -> bool:
    return hasattr(module, "id_skip") or any(name in _SLOTS for name, _ in module.named_children())


def _set(block: nn.Module, chance: float) -> None:
    if hasattr(block, "id_skip"):  # MONAI's EfficientNet block
        setattr(block, "drop_connect_rate", chance)  # noqa: B010 a plain number, which torch's types do not foresee
        return
    from timm.layers.drop import DropPath

    for name in [name for name, _ in block.named_children() if name in _SLOTS]:
        setattr(block, name, DropPath(chance) if chance else nn.Identity())
