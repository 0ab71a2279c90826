"""Statistics of the target's own images, worked out by hand."""

from __future__ import annotations

import torch
from torch import nn

from pipelines.transfer.batch_norm import FrozenBatchNorm, adapt, batch_norms, freeze_batch_norm


def images(*values: float) -> torch.Tensor:
    """One image of one channel and two pixels, 0 and 2 × value, for each value: its mean is the value."""
    return torch.tensor([[[[0.0, 2 * value]]] for value in values])


def test_the_statistics_are_the_mean_over_the_batches() -> None:
    norm = nn.BatchNorm2d(1)
    adapt(nn.Sequential(norm), [images(1.0, 1.0), images(3.0, 3.0)])
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.running_mean.item() == 2.0
    # pixels 0, 2, 0, 2 have the unbiased variance 4/3, and 0, 6, 0, 6 have 12
    assert norm.running_var.item() == torch.tensor((4 / 3 + 12) / 2).item()


def test_scale_and_shift_stay_and_so_do_modes_and_momentum() -> None:
    norm, dropout = nn.BatchNorm2d(1, momentum=0.3), nn.Dropout(0.5)
    nn.init.constant_(norm.weight, 3.0)
    network = nn.Sequential(norm, dropout)
    norm.eval()
    adapt(network, [images(1.0, 2.0)])
    assert (norm.weight.item(), norm.bias.item(), norm.momentum) == (3.0, 0.0, 0.3)
    assert (norm.training, dropout.training) == (False, True)


def test_a_frozen_batch_norm_can_be_adapted_and_is_frozen_again() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1))
    freeze_batch_norm(network)
    adapt(network, [images(1.0, 1.0)])
    (norm,) = batch_norms(network)
    assert isinstance(norm, FrozenBatchNorm)
    before = norm.running_mean.clone()
    network.train()(images(9.0, 9.0))
    assert before.item() == norm.running_mean.item() == 1.0


def test_only_the_batch_norms_that_are_named_are_frozen() -> None:
    first, second = nn.BatchNorm2d(1), nn.BatchNorm2d(1)
    network = nn.Sequential(first, second)
    freeze_batch_norm(network, only={id(second)})
    assert [isinstance(norm, FrozenBatchNorm) for norm in batch_norms(network)] == [False, True]
