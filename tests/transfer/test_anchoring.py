from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.transfer.anchoring import anchor


def test_the_pull_is_strength_times_the_way_from_the_source_added_to_the_gradient() -> None:
    weight = nn.Parameter(torch.tensor([0.5, -1.0]))
    held = anchor([weight], 0.1)
    with torch.no_grad():
        weight.copy_(torch.tensor([2.0, -1.0]))
    weight.grad = torch.tensor([0.3, 0.3])
    held.pull()
    assert weight.grad.tolist() == pytest.approx([0.3 + 0.1 * 1.5, 0.3])


def test_the_pull_is_the_gradient_of_the_papers_penalty() -> None:
    weight = nn.Parameter(torch.randn(4, 3))
    held = anchor([weight], 0.7)
    source = weight.detach().clone()
    with torch.no_grad():
        weight.add_(torch.randn(4, 3))
    (expected,) = torch.autograd.grad(0.7 / 2 * (weight - source).square().sum(), weight)
    weight.grad = torch.zeros_like(weight)
    held.pull()
    assert torch.allclose(weight.grad, expected)


def test_what_does_not_learn_at_present_is_not_pulled() -> None:
    weight = nn.Parameter(torch.ones(1))
    anchor([weight], 0.1).pull()
    assert weight.grad is None


def test_the_distance_is_relative_to_the_source() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    held = anchor([weight], 0.1)
    assert held.distance() == 0
    with torch.no_grad():
        weight.add_(torch.tensor([0.0, 1.0]))
    assert held.distance() == pytest.approx(1 / 5)
