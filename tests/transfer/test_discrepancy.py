"""Discrepancies by hand, and their gradients, which must pull the two hospitals together."""

import math

import pytest
import torch
from torch import nn

from pipelines.transfer.discrepancy import (
    BANDWIDTHS,
    DomainCritic,
    coral,
    mmd,
    reversal_strength,
    reverse_gradient,
    standardised,
)


def hospitals(offset: float = 0.0, scale: float = 1.0, images: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(images, 6, generator=generator), offset + scale * torch.randn(images, 6, generator=generator)


def test_coral_by_hand():
    # Variances 2 and 8 in one feature: (2 − 8)² / 4.
    source, target = torch.tensor([[-1.0], [1.0]]), torch.tensor([[-2.0], [2.0]])
    assert coral(source, target).item() == pytest.approx(9.0)
    # A second feature that never varies: the same distance over 4 × 2².
    assert coral(*(nn.functional.pad(each, (0, 1)) for each in (source, target))).item() == pytest.approx(36 / 16)


def test_coral_sees_spread_and_not_position():
    source, _ = hospitals()
    assert coral(source, source + 5).item() == pytest.approx(0, abs=1e-9)
    assert coral(source, 3 * source).item() > 0.1


def test_mmd_by_hand():
    # One image each, at distance 1: mean squared distance 1, so k = mean over bandwidths of exp(−1 / bandwidth).
    kernel = sum(math.exp(-1 / bandwidth) for bandwidth in BANDWIDTHS) / len(BANDWIDTHS)
    assert mmd(torch.tensor([[0.0]]), torch.tensor([[1.0]])).item() == pytest.approx(2 - 2 * kernel)


def test_mmd_is_zero_of_equal_sets_and_grows_with_the_shift():
    source, target = hospitals()
    assert mmd(source, source).item() == pytest.approx(0, abs=1e-6)
    shifts = [mmd(source, target + offset).item() for offset in (0.0, 0.5, 2.0)]
    assert shifts == sorted(shifts)


@pytest.mark.parametrize("measure", [coral, mmd])
def test_the_number_of_images_need_not_be_equal_and_a_single_one_does_no_harm(measure):
    source, target = hospitals(offset=1.0)
    assert torch.isfinite(measure(source, target[:7]))
    assert torch.isfinite(measure(source[:1], target[:1]))


@pytest.mark.parametrize("measure", [coral, mmd])
def test_descending_a_measure_brings_the_target_to_the_source(measure):
    source, target = hospitals(offset=2.0, scale=3.0)
    shift, scale = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.ones(6))
    optimizer = torch.optim.Adam([shift, scale], lr=0.05)
    first = measure(source, target).item()
    for _ in range(200):
        optimizer.zero_grad()
        measure(source, shift + scale * target).backward()
        optimizer.step()
    assert measure(source, shift + scale * target).item() < 0.05 * first


def test_reversal_changes_nothing_forwards_and_the_sign_backwards():
    features = torch.tensor([1.0, 2.0], requires_grad=True)
    reversed_ = reverse_gradient(features, 0.25)
    assert torch.equal(reversed_, features)
    (reversed_ * torch.tensor([3.0, -4.0])).sum().backward()
    assert features.grad is not None
    assert features.grad.tolist() == [-0.75, 1.0]


def test_the_reversal_grows_from_nothing():
    assert [reversal_strength(progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx([0.0, 0.98661, 0.99991], abs=1e-5)


def test_a_critic_that_knows_nothing_loses_log_2_and_one_that_learns_less():
    source, target = hospitals(offset=2.0)
    critic = DomainCritic(6)
    nn.init.zeros_(critic.layers[2].weight)
    nn.init.zeros_(critic.layers[2].bias)
    assert critic.loss(source, target[:3]).item() == pytest.approx(math.log(2))
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        critic.loss(source, target).backward()
        optimizer.step()
    assert critic.loss(source, target).item() < 0.2


def test_standardised_features_have_no_unit_and_no_origin_of_their_own() -> None:
    source, target = hospitals(offset=2.0)
    first, second = standardised(source, target)
    assert first.mean(dim=0).abs().max().item() == pytest.approx(0, abs=1e-6)
    assert first.square().mean().item() == pytest.approx(1, rel=1e-5)
    for moved in (standardised(10 * source, 10 * target), standardised(source + 3, target + 3)):
        assert torch.allclose(moved[0], first, atol=1e-4)
        assert torch.allclose(moved[1], second, atol=1e-4)
    assert all(torch.isfinite(each).all() for each in standardised(source[:1], target[:1]))
