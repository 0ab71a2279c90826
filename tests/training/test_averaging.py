from __future__ import annotations

import pytest
import torch
from tiny_networks import same, state
from torch import nn

from pipelines.training.averaging import average


def weight(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def test_the_average_by_hand_with_its_warm_up() -> None:
    """From 0, after steps to 1, 2 and 3: with d = 1/10, then 2/11, then 0.2 (the decay, below 3/12)."""
    layer = weight(0.0)
    running = average(layer, 0.2)
    assert running is not None
    expected, values = 0.0, []
    for value, decay in ((1.0, 1 / 10), (2.0, 2 / 11), (3.0, 0.2)):
        nn.init.constant_(layer.weight, value)
        running.update(layer)
        expected = decay * expected + (1 - decay) * value
        values.append(expected)
    assert values == pytest.approx([0.9, 0.9 * 2 / 11 + 2 * 9 / 11, 0.2 * values[1] + 0.8 * 3])
    assert running.tensors["weight"].item() == pytest.approx(expected)


def test_statistics_are_averaged_and_counters_are_taken_as_they_are() -> None:
    norm = nn.BatchNorm1d(1)
    running = average(norm, 0.9)
    assert running is not None
    norm(torch.tensor([[0.0], [20.0]]))
    running.update(norm)
    assert running.tensors["running_mean"].item() == pytest.approx(0.9 * 1.0)
    assert running.tensors["num_batches_tracked"].item() == 1


def test_the_averaged_weights_are_in_the_module_for_a_while_only() -> None:
    layer = weight(0.0)
    running = average(layer, 0.2)
    assert running is not None
    nn.init.constant_(layer.weight, 1.0)
    running.update(layer)
    before = state(layer)
    with running.applied(layer):
        assert layer.weight.item() == pytest.approx(0.9)
    assert same(state(layer), before)


def test_what_was_kept_goes_on_as_if_nothing_had_happened() -> None:
    layer = weight(0.0)
    whole, first = average(layer, 0.5), average(layer, 0.5)
    again = average(layer, 0.5)
    assert whole is not None
    assert first is not None
    assert again is not None
    for value in (1.0, 2.0):
        nn.init.constant_(layer.weight, value)
        whole.update(layer)
        first.update(layer)
    again.restore(first.tensors, first.updates)
    nn.init.constant_(layer.weight, 3.0)
    for running in (whole, again):
        running.update(layer)
    assert torch.equal(whole.tensors["weight"], again.tensors["weight"])


def test_without_a_decay_there_is_none() -> None:
    assert average(weight(0.0), None) is None
