"""Mixup: pairs of training images, and of their labels, in one (Zhang et al., ICLR 2018)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor


def mixed(batches: Iterable[tuple[Tensor, Tensor]], alpha: float, seed: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Mix each batch with itself in another order: λ x + (1 − λ) x′ and λ y + (1 − λ) y′, with λ from Beta(alpha, alpha).

    A label that is unknown (NaN) in one of a pair is unknown in the mixture, and does not count in the loss.

    Args:
        batches: inputs (images, …) and labels (images, outputs).
        alpha: 0 leaves the batches as they are.
        seed: decides λ and the order of every batch.
    """
    generator = np.random.default_rng(seed)
    for inputs, labels in batches:
        if not alpha:
            yield inputs, labels
            continue
        share = float(generator.beta(alpha, alpha))
        order = torch.from_numpy(generator.permutation(len(inputs))).to(inputs.device)
        yield blend(inputs, inputs[order], share), blend(labels, labels[order], share)


def blend(one: Tensor, other: Tensor, share: float) -> Tensor:
    """One of both in this share, and the other in the rest; NaN wherever one of them is."""
    return share * one + (1 - share) * other
