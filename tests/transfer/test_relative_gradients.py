from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipelines.transfer.relative_gradients import scales


class Product(nn.Module):
    """inputs · a · b, with a dropout that must not be at work."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor([a])), nn.Parameter(torch.tensor([b]))
        self.dropout = nn.Dropout(0.9)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.dropout(inputs * self.a * self.b)


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits - labels).mean()


def batches(*values: float) -> list[tuple[Tensor, Tensor]]:
    return [(torch.tensor([[value]]), torch.zeros(1, 1)) for value in values]


def test_the_ratio_of_gradient_to_weights_by_hand() -> None:
    """d/da = x b and d/db = x a: at x = 1, a = 2, b = 4 the ratios are 4/2 and 2/4, which by the largest are 1 and 1/4."""
    module = Product(2.0, 4.0)
    assert scales(module, [[module.a], [module.b]], loss, batches(1.0)) == pytest.approx((1.0, 0.25))


def test_ratios_are_averaged_over_the_batches_before_they_are_compared() -> None:
    """Ratios 2 and 0.5 at x = 1, and 6 and 1.5 at x = 3: on average 4 and 1."""
    module = Product(2.0, 4.0)
    assert scales(module, [[module.a], [module.b]], loss, batches(1.0, 3.0)) == pytest.approx((1.0, 0.25))


def test_what_a_network_keeps_while_it_is_judged_does_not_hold_on_to_the_last_batch() -> None:
    """Some of timm's transformers keep position biases in evaluation mode, until they change their mode."""

    class Keeping(Product):
        kept: Tensor | None = None

        def train(self, mode: bool = True) -> Keeping:
            self.kept = None
            return super().train(mode)

        def forward(self, inputs: Tensor) -> Tensor:
            self.kept = self.a * self.b if self.kept is None else self.kept
            return inputs * self.kept

    module = Keeping(2.0, 4.0)
    assert scales(module, [[module.a], [module.b]], loss, batches(1.0, 3.0)) == pytest.approx((1.0, 0.25))


def test_a_group_that_does_not_learn_has_no_rate() -> None:
    module = Product(2.0, 4.0)
    assert scales(module, [[], [module.b]], loss, batches(1.0)) == (0.0, 1.0)


def test_without_any_gradient_all_groups_keep_their_rates() -> None:
    module = Product(2.0, 4.0)
    assert scales(module, [[module.a], [module.b]], loss, batches(0.0)) == (1.0, 1.0)


def test_modes_and_gradients_are_left_as_they_were() -> None:
    module = Product(2.0, 4.0)
    scales(module, [[module.a]], loss, batches(1.0))
    assert module.dropout.training
    assert module.a.grad is None
