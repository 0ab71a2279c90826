"""Batch norm that is really frozen: statistics, scale and shift stay as loaded, whatever mode the network is put in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from torch import nn


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that always normalises by its running statistics and never updates them; its state has the same keys."""

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: `network.train()` reaches every module, and must not thaw this one."""
        return super().train(False)


def batch_norms(module: nn.Module) -> Iterator[nn.BatchNorm2d]:
    """Every batch norm in a module, itself included."""
    return (inner for inner in module.modules() if isinstance(inner, nn.BatchNorm2d))


def freeze_batch_norm(module: nn.Module) -> None:
    """Put a frozen batch norm, holding the same tensors, in the place of every one inside `module`."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and not isinstance(child, FrozenBatchNorm2d):
                setattr(parent, name, _frozen(child))


def _frozen(norm: nn.BatchNorm2d) -> FrozenBatchNorm2d:
    frozen = FrozenBatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device="meta")
    for name, parameter in norm.named_parameters(recurse=False):
        setattr(frozen, name, parameter.requires_grad_(False))
    for name, buffer in norm.named_buffers(recurse=False):
        setattr(frozen, name, buffer)
    return frozen.eval()
