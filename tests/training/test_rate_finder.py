from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_networks import resnet, same, state

from pipelines.errors import ConfigurationError, TrainingError
from pipelines.records import Task
from pipelines.training import rate_finder
from pipelines.training.batches import Examples
from pipelines.training.learn import prepare
from pipelines.training.listener import Silence
from pipelines.training.rate_finder import HIGHEST, LOWEST, Sweep, sweep
from pipelines.transfer.strategies import plan

Make = Callable[..., Any]
TASK = Task("binary", ("opacity",))


def swept(parts: tuple[Examples, Examples], settings: Any, steps: int = 60, **more: Any) -> tuple[Any, Any, Sweep]:
    network = resnet()
    planned = plan(network, settings.strategy)
    ready = prepare(network, planned, TASK, *parts, settings, Silence())
    before = state(network)
    found = sweep(network, planned, ready.train, ready.loss, settings, steps=steps, **more)
    return network, before, found


@pytest.mark.parametrize("strategy", ["differential", "feature_extraction", "gradual"])
def test_the_network_is_as_it_was_and_the_rates_grow_by_a_factor(
    strategy: str, parts: tuple[Examples, Examples], settings: Make
) -> None:
    network, before, found = swept(parts, settings(strategy))
    assert same(state(network), before)
    assert np.diff(np.log(found.rates)) == pytest.approx(np.log(HIGHEST / LOWEST) / 59)
    assert len(found.rates) == len(found.losses) == len(found.smoothed)
    assert LOWEST < found.suggestion < HIGHEST


def test_every_group_keeps_its_rate_relative_to_the_heads(
    parts: tuple[Examples, Examples], settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.training.optimizer import Optimizer

    told: list[tuple[float, ...]] = []
    set_rates = Optimizer.set_rates

    def watched(self: Optimizer, factor: float, scales: Any = None) -> tuple[float, ...]:
        told.append(set_rates(self, factor, scales))
        return told[-1]

    monkeypatch.setattr(Optimizer, "set_rates", watched)
    _, _, found = swept(parts, settings("differential", strategy_settings={"decay": 0.5}), steps=30)
    assert [rates[-1] for rates in told[: len(found.rates)]] == pytest.approx(found.rates.tolist())
    assert np.divide(told[3][:-1], told[3][1:]) == pytest.approx([0.5] * 5)


def test_relative_gradient_norms_scale_the_rates_of_the_sweep_as_those_of_a_training(
    parts: tuple[Examples, Examples], settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.training.optimizer import Optimizer

    told: list[Any] = []
    set_rates = Optimizer.set_rates

    def watched(self: Optimizer, factor: float, scales: Any = None) -> tuple[float, ...]:
        told.append(scales)
        return set_rates(self, factor, scales)

    monkeypatch.setattr(Optimizer, "set_rates", watched)
    network, before, _ = swept(parts, settings("auto_rgn"), steps=30)
    assert same(state(network), before)
    assert len(told[0]) == 6
    assert 0 < min(told[0]) < max(told[0]) == 1
    assert all(scales == told[0] for scales in told)


def test_a_loss_that_only_grows_gives_no_suggestion() -> None:
    with pytest.raises(
        TrainingError, match=r"learning rates 1\.0e-04 to 1\.0e-01: expected a loss that falls, got one that only"
    ):
        rate_finder._seen(np.geomspace(1e-5, 1e-1, 41), np.linspace(0.3, 0.9, 41))


def test_the_same_seed_sees_the_same_losses(parts: tuple[Examples, Examples], settings: Make) -> None:
    one, again, other = (swept(parts, settings("full", seed=seed), steps=25)[2].losses for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_the_suggestion_is_read_from_the_curve_by_hand() -> None:
    """Flat at 1, then falling by 0.1 a step, by 0.3 once, then growing: the running mean follows behind."""
    rates = np.geomspace(1e-5, 1e-1, 41)
    losses = np.concatenate([np.full(20, 1.0), np.full(10, 0.2), np.full(11, 3.0)])
    found = rate_finder._seen(rates, losses)
    assert found.smoothed[:20] == pytest.approx([1.0] * 20)
    lowest = int(found.smoothed.argmin())
    assert lowest == 29
    assert found.decade_below == pytest.approx(rates[29] / 10)
    assert found.steepest == pytest.approx(rates[20])  # the first step down is the largest of the running mean
    assert found.suggestion == found.decade_below < found.steepest
    assert found.rule == "a decade below the lowest loss"


def test_a_loss_that_diverges_ends_the_sweep(
    parts: tuple[Examples, Examples], settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_finder, "DIVERGED", 1.2)
    _, _, found = swept(parts, settings("full"), steps=60)
    assert len(found.rates) == len(found.losses) < 60
    diverged = found.smoothed > 1.2 * np.minimum.accumulate(found.smoothed)
    assert np.flatnonzero(diverged[rate_finder.SETTLED :]).tolist() == [len(diverged) - rate_finder.SETTLED - 1]


def test_a_loss_that_is_never_finite_is_refused(parts: tuple[Examples, Examples], settings: Make) -> None:
    network, asked = resnet(), settings("full")
    planned = plan(network, asked.strategy)
    ready = prepare(network, planned, TASK, *parts, asked, Silence())
    with torch.no_grad():
        next(network.groups()[0].parameters()).fill_(float("inf"))
    with pytest.raises(TrainingError, match=r"expected a loss that is finite and does not diverge over 20 steps, got one over 0"):
        sweep(network, planned, ready.train, ready.loss, asked, steps=30)


def test_a_classifier_without_a_rate_is_refused(parts: tuple[Examples, Examples], settings: Make) -> None:
    asked = settings("feature_extraction", strategy_settings={"classifier": "knn"})
    with pytest.raises(ConfigurationError, match=r"classifier: expected one that learns in steps, got knn, which a solver finds"):
        swept(parts, asked)
