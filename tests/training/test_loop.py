"""What the loop does to a network: which parameters move and how far, and that an interruption leaves no trace."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.config import TrainSection
from pipelines.errors import TrainingError
from pipelines.metrics.discrimination import macro_auroc
from pipelines.models.backbones import Network
from pipelines.records import Task
from pipelines.training.batches import Examples, in_order
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.learn import learn
from pipelines.training.listener import Silence
from pipelines.training.loop import Fitted
from pipelines.training.loss import probabilities
from pipelines.training.numerics import autocast, deterministic
from pipelines.transfer.batch_norm import batch_norms
from pipelines.transfer.strategies import STRATEGIES, learning_rates, plan

Make = Callable[..., Any]
Parts = tuple[Examples, Examples]
TASK = Task("binary", ("opacity",))
IN_STEPS = [name for name in STRATEGIES if name != "lora"]  # which needs a transformer: tests/training/test_learn.py


def train(
    network: Network, parts: Parts, settings: TrainSection, listener: Any = None, checkpoint: Checkpoint | None = None
) -> Fitted:
    planned = plan(network, settings.strategy)
    return learn(network, planned, TASK, *parts, settings, listener or Silence(), checkpoint)


def state(network: Network) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("strategy", ["differential", "full", "scratch"])
def test_adamws_first_step_moves_each_group_by_its_learning_rate(
    strategy: str, network: Make, parts: Parts, settings: Make
) -> None:
    own = {"learning_rate": 0.01, "decay": 0.5, "warmup_epochs": 0}
    one_step = settings(strategy, epochs=1, batch_size=64, weight_decay=0, strategy_settings=own)
    net = network()
    rates = learning_rates(6, one_step.strategy)
    before = [[parameter.clone() for module in group.modules for parameter in module.parameters()] for group in net.groups()]
    train(net, parts, one_step)
    for group, old, rate in zip(net.groups(), before, rates, strict=True):
        new = [parameter for module in group.modules for parameter in module.parameters()]
        moved = torch.cat([(now - then).abs().flatten() for now, then in zip(new, old, strict=True) if now.requires_grad])
        assert moved.median().item() == pytest.approx(rate, rel=0.02)
        assert moved.max().item() <= rate * 1.01


@pytest.mark.parametrize("strategy", ["differential", "full"])
def test_frozen_batch_norm_stays_to_the_bit_while_all_else_learns(
    strategy: str, network: Make, parts: Parts, settings: Make
) -> None:
    net = network()
    before = state(net)
    train(net, parts, settings(strategy))
    norms = {id(tensor) for norm in batch_norms(net) for tensor in (*norm.parameters(), *norm.buffers())}
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if name not in before:
            continue  # a buffer that follows from others
        untouched = id(tensor) in norms or name in ("mean", "std")
        assert torch.equal(tensor, before[name]) == untouched, name


def test_trained_batch_norm_learns_and_adapts(network: Make, parts: Parts, settings: Make) -> None:
    net = network()
    before = state(net)
    train(net, parts, settings("scratch"))
    for norm in batch_norms(net):
        assert norm.num_batches_tracked is not None
        assert norm.num_batches_tracked > 0
    assert not any(torch.equal(tensor, before[name]) for name, tensor in net.named_parameters())


def test_feature_extraction_leaves_the_backbone_to_the_bit_and_trains_the_head(
    network: Make, parts: Parts, settings: Make, recorder: Make
) -> None:
    net, listener = network(), recorder()
    before = state(net)
    train(net, parts, settings("feature_extraction"), listener)
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.linear.weight", "head.linear.bias"}
    assert listener.extracted[-1] == (40, 40)
    assert len(listener.extracted) == 3 + 2


def test_biases_and_norms_are_not_decayed_and_weights_are(network: Make, parts: Parts, settings: Make) -> None:
    from pipelines.training.optimizer import build
    from pipelines.transfer import strategies

    net = network()
    planned = plan(net, settings("scratch").strategy)
    strategies.apply(net, planned)
    groups = build(net.groups(), planned, 0.05).adamw.param_groups
    assert {(group["weight_decay"], parameter.ndim > 1) for group in groups for parameter in group["params"]} == {
        (0.05, True),
        (0.0, False),
    }
    assert sum(parameter.numel() for group in groups for parameter in group["params"]) == planned.trained


def test_the_rates_follow_warm_up_and_cosine_in_every_group(network: Make, parts: Parts, settings: Make, recorder: Make) -> None:
    listener = recorder()
    own = {"learning_rate": 0.004, "decay": 0.5, "warmup_epochs": 1}
    train(network(), parts, settings(epochs=2, strategy_settings=own), listener)
    heads = [step.learning_rates[-1] for step in listener.steps]
    assert heads == pytest.approx([0.004 * factor for factor in (1 / 3, 2 / 3, 1, 1, 0.75, 0.25)])
    for step in listener.steps:
        ratios = np.divide(step.learning_rates[:-1], step.learning_rates[1:])
        assert ratios == pytest.approx([0.5] * 5)
    assert listener.epochs[0].learning_rate_head == pytest.approx(0.004)


def test_the_listener_hears_of_every_image_and_epoch(network: Make, parts: Parts, settings: Make, recorder: Make) -> None:
    listener = recorder()
    fitted = train(network(), parts, settings(), listener)
    assert listener.started == [(1, 3, 24), (2, 3, 24), (3, 3, 24)]
    assert [step.images for step in listener.steps] == [8] * 9
    assert tuple(listener.epochs) == fitted.history
    first = np.mean([step.loss for step in listener.steps[:3]])
    assert fitted.history[0].train_loss == pytest.approx(first)


@pytest.mark.parametrize("strategy", IN_STEPS)
def test_the_same_seed_gives_the_same_weights_to_the_bit_and_another_seed_others(
    strategy: str, network: Make, parts: Parts, settings: Make
) -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        net = network()
        torch.manual_seed(np.random.default_rng().integers(1000))
        train(net, parts, settings(strategy, epochs=2, seed=seed))
        return state(net)

    assert same(weights(1), weights(1))
    assert not same(weights(1), weights(2))


@pytest.mark.parametrize("strategy", IN_STEPS)
def test_a_training_killed_in_mid_epoch_and_resumed_ends_in_the_same_weights_to_the_bit(
    strategy: str, network: Make, parts: Parts, settings: Make, recorder: Make, tmp_path: Path
) -> None:
    asked = settings(strategy, epochs=4)
    whole, interrupted, resumed = network(), network(), network()
    expected = train(whole, parts, asked)
    checkpoint = Checkpoint(tmp_path, "same")
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, parts, asked, recorder(stop_in_epoch=3), checkpoint)
    torch.manual_seed(99)
    listener = recorder()
    fitted = train(resumed, parts, asked, listener, checkpoint)
    assert same(state(whole), state(resumed))
    assert fitted.history == expected.history
    assert (fitted.best_epoch, fitted.resumed_from) == (expected.best_epoch, 2)
    assert [epoch for epoch, _, _ in listener.started] == [3, 4]
    assert listener.notes[-1] == "resumed after epoch 2"
    assert bool(listener.extracted) is False


def test_a_training_killed_after_its_last_epoch_only_takes_up_the_best_weights(
    network: Make, parts: Parts, settings: Make, recorder: Make, tmp_path: Path
) -> None:
    checkpoint, whole, again, listener = Checkpoint(tmp_path, "same"), network(), network(), recorder()
    expected = train(whole, parts, settings(), None, checkpoint)
    fitted = train(again, parts, settings(), listener, checkpoint)
    assert same(state(whole), state(again))
    assert not listener.started
    assert fitted.history == expected.history
    assert fitted.resumed_from == 3


@pytest.mark.parametrize(
    ("fingerprint", "changed"),
    [("other", {}), ("same", {"strategy_settings": {"batch_norm": "trained"}})],
    ids=["other data or configuration", "other parameters learn"],
)
def test_a_checkpoint_of_another_training_is_discarded_and_said_so(
    fingerprint: str, changed: dict[str, Any], network: Make, parts: Parts, settings: Make, recorder: Make, tmp_path: Path
) -> None:
    train(network(), parts, settings(epochs=1), None, Checkpoint(tmp_path, "same"))
    listener, fresh, expected = recorder(), network(), network()
    fitted = train(fresh, parts, settings(epochs=1, **changed), listener, Checkpoint(tmp_path, fingerprint))
    train(expected, parts, settings(epochs=1, **changed))
    assert fitted.resumed_from is None
    assert listener.notes == ["a checkpoint of another training was discarded: configuration, data or weights differ"]
    assert same(state(fresh), state(expected))


def test_the_best_epochs_weights_are_kept_not_the_last(
    network: Make, parts: Parts, settings: Make, monkeypatch: pytest.MonkeyPatch, recorder: Make, tmp_path: Path
) -> None:
    aurocs = iter([0.6, 0.9, 0.8, 0.7, 0.95])
    monkeypatch.setattr("pipelines.training.judging.macro_auroc", lambda labels, scores: next(aurocs))
    after: list[dict[str, Tensor]] = []
    net = network()

    class Watching(recorder):
        def epoch_ended(self, epoch: Any, *, best: bool) -> None:
            after.append(state(net))

    fitted = train(net, parts, settings(epochs=5, patience=2), Watching())
    assert (fitted.best_epoch, fitted.validation_auroc, len(fitted.history)) == (2, 0.9, 4)
    assert same(state(net), after[1])
    assert not same(after[1], after[3])


@pytest.mark.parametrize("strategy", ["differential", "scratch", "feature_extraction"])
def test_a_network_learns_to_see_the_blob(strategy: str, network: Make, parts: Parts, settings: Make) -> None:
    fitted = train(network(), parts, settings(strategy, epochs=6, strategy_settings={"learning_rate": 0.01, "decay": 1}))
    assert fitted.history[-1].train_loss < fitted.history[0].train_loss
    assert fitted.validation_auroc > 0.9


def test_what_class_weighting_adds_to_the_logits_is_taken_back(
    network: Make, settings: Make, examples: Callable[..., Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One positive for three negatives weighs 3 times as much, which raises a learnt logit by log 3."""
    part = examples(np.array([[1.0], [0.0], [0.0], [0.0]] * 6, np.float32))
    net, shifted = network(), network()
    with monkeypatch.context() as patch:
        patch.setattr(Network, "lower_logits", lambda network, by: None)
        train(net, (part, part), settings("full"))
    train(shifted, (part, part), settings("full"))
    difference = state(net)["head.linear.bias"] - state(shifted)["head.linear.bias"]
    assert difference.item() == pytest.approx(math.log(3), abs=1e-6)
    assert torch.equal(state(net)["head.linear.weight"], state(shifted)["head.linear.weight"])


def test_the_validation_auroc_is_that_of_the_model_as_it_answers(
    network: Make, settings: Make, examples: Callable[..., Examples]
) -> None:
    """Class weighting shifts the logits of rare classes, which ranks images otherwise under a softmax of three."""
    labels = np.eye(3, dtype=np.float32)[[0] * 9 + [1] * 5 + [2] * 2]
    part, net, asked = examples(labels), network(outputs=3), settings("full", epochs=1)
    task = Task("multiclass", ("t",), ("x", "y", "z"))
    fitted = learn(net, plan(net, asked.strategy), task, part, part, asked, Silence())
    net.eval()
    with torch.inference_mode():
        answers = probabilities(
            torch.cat([net(images) for images in part.images(in_order(16, 8), torch.device("cpu"))]), exclusive=True
        )
    assert fitted.validation_auroc == pytest.approx(macro_auroc(labels, answers.numpy()))


def test_images_with_unknown_labels_change_nothing(
    network: Make, parts: Parts, settings: Make, examples: Callable[..., Examples]
) -> None:
    train_part, validation = parts
    images = np.concatenate([train_part.store.images, np.full((6, 48, 48), 255, np.uint8)])
    labels = np.concatenate([train_part.labels, np.full((6, 1), np.nan, np.float32)])
    store = dataclasses.replace(train_part.store, images=images)
    more = Examples(store, np.zeros(30, np.int64), np.arange(30), labels)
    one, other = network(), network()
    train(one, parts, settings())
    train(other, (more, validation), settings())
    assert same(state(one), state(other))


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (Task("multilabel", ("a", "b")), [[1, 0], [0, 1], [1, np.nan], [0, 0], [np.nan, 1], [1, 1]]),
        (Task("multiclass", ("t",), ("x", "y")), [[1, 0], [0, 1], [np.nan, np.nan], [1, 0], [0, 1], [1, 0]]),
    ],
    ids=["multilabel", "multiclass"],
)
def test_other_kinds_of_task_train_with_some_labels_unknown(
    task: Task, labels: list[list[float]], network: Make, settings: Make, examples: Callable[..., Examples]
) -> None:
    part = examples(np.array(labels * 3, np.float32))
    net, asked = network(outputs=2), settings(epochs=2, strategy_settings={"learning_rate": 0.01, "decay": 1})
    before = state(net)
    fitted = learn(net, plan(net, asked.strategy), task, part, part, asked, Silence())
    assert np.isfinite([epoch.train_loss for epoch in fitted.history]).all()
    assert not torch.equal(net.state_dict()["head.linear.weight"], before["head.linear.weight"])


def test_a_loss_that_is_not_finite_stops_with_epoch_step_and_remedy(network: Make, parts: Parts, settings: Make) -> None:
    net = network()
    with torch.no_grad():
        net.groups()[0].modules[0].weight.fill_(float("inf"))
    with pytest.raises(TrainingError, match=r"epoch 1, step 1: expected a finite loss, got nan; lower train\.strategy"):
        train(net, parts, settings())


@pytest.mark.parametrize("position", [0, 1], ids=["train", "validation"])
def test_a_part_without_labels_is_refused(position: int, network: Make, parts: Parts, settings: Make) -> None:
    changed = list(parts)
    changed[position] = dataclasses.replace(parts[position], labels=np.full_like(parts[position].labels, np.nan))
    name = ("train", "validation")[position]
    with pytest.raises(TrainingError, match=f"{name} part: expected labelled images, got none"):
        train(network(), (changed[0], changed[1]), settings())


def test_a_validation_part_of_one_class_is_refused(network: Make, parts: Parts, settings: Make) -> None:
    one_class = dataclasses.replace(parts[1], labels=np.ones_like(parts[1].labels))
    with pytest.raises(TrainingError, match=r"validation part: expected a loss and an AUROC, got .* and nan"):
        train(network(), (parts[0], one_class), settings())


@pytest.mark.parametrize(("precision", "casts"), [("auto", False), ("fp32", False), ("bf16", True)])
def test_a_cpu_casts_to_bf16_only_when_told_to(precision: str, casts: bool) -> None:
    with autocast(torch.device("cpu"), precision):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert (product.dtype == torch.bfloat16) == casts


def test_bf16_trains_with_weights_kept_in_fp32(network: Make, parts: Parts, settings: Make) -> None:
    net = network()
    fitted = train(net, parts, settings(precision="bf16"))
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    assert np.isfinite(fitted.history[-1].train_loss)


def test_training_leaves_the_global_generators_as_they_were(network: Make, parts: Parts, settings: Make) -> None:
    net = network()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(net, parts, settings("feature_extraction"))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_determinism_is_put_back_after_an_error(network: Make, parts: Parts, settings: Make, recorder: Make) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(network(), parts, settings(), recorder(stop_in_epoch=1))
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_cpu_is_held_to_deterministic_algorithms() -> None:
    with deterministic(torch.device("cpu")):
        assert torch.are_deterministic_algorithms_enabled()
