"""Batch norm that is really frozen: statistics, scale and shift stay as they are, whatever mode the network is put in.

What they are may be what was loaded, or statistics of the target's own images (`adapt`).
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable, Iterator
from functools import lru_cache
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm


class FrozenBatchNorm(BatchNorm):
    """Batch norm that always normalises by its running statistics and never updates them; its state has the same keys."""

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: `network.train()` reaches every module, and must not thaw this one."""
        return super().train(False)


def batch_norms(module: nn.Module) -> Iterator[BatchNorm]:
    """Every batch norm in a module, itself included, of whatever dimensions: some of timm's networks norm rows of tokens."""
    return (inner for inner in module.modules() if isinstance(inner, BatchNorm))


def freeze_batch_norm(module: nn.Module, only: Container[int] | None = None) -> None:
    """Put a frozen batch norm, holding the same tensors, in the place of every one inside `module`, or of those in `only`.

    Args:
        module: searched at every depth; a batch norm itself cannot be replaced.
        only: identities (`id`) of the batch norms to freeze; None freezes all.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            wanted = only is None or id(child) in only
            if wanted and isinstance(child, BatchNorm) and not isinstance(child, FrozenBatchNorm):
                setattr(parent, name, _frozen(child))


@torch.no_grad()
def adapt(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Estimate the statistics of every batch norm anew from `batches`, as the mean over them; scale and shift stay.

    Each layer sees the images as the layers before it normalise them by the batch's own statistics (Li et al., AdaBN, 2017).
    Everything but batch norm is in evaluation mode meanwhile; each module's own mode comes back.

    Args:
        module: takes a batch (images, 1, rows, columns).
        batches: of about equal sizes, since each counts alike; images of 0…1.
    """
    norms, modes = list(batch_norms(module)), [(inner, inner.training) for inner in module.modules()]
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's way to ask for the mean over all batches
        nn.Module.train(norm, True)  # also one that is frozen
    try:
        for images in batches:
            module(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for inner, training in modes:
            inner.training = training


def _frozen(norm: BatchNorm) -> BatchNorm:
    frozen = copy.copy(norm)
    frozen.__class__ = _frozen_kind(type(norm))  # type: ignore[arg-type]
    for parameter in frozen.parameters(recurse=False):
        parameter.requires_grad_(False)
    return frozen.eval()


@lru_cache
def _frozen_kind(kind: type[BatchNorm]) -> type[FrozenBatchNorm]:
    """A frozen batch norm that computes what `kind` does: timm's holds its activation, too."""
    return type(f"Frozen{kind.__name__}", (FrozenBatchNorm, kind), {})
