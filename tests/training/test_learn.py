"""Each strategy on a tiny network: which parameters move, by how much, and that a kill leaves no trace."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_networks import monai_vit, resnet, same, state, vit
from torch import Tensor

from pipelines.config import TrainSection
from pipelines.errors import ConfigurationError
from pipelines.models import heads
from pipelines.models.network import Network
from pipelines.records import Task
from pipelines.training.batches import Examples
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.learn import learn
from pipelines.training.listener import Silence
from pipelines.training.loop import Fitted
from pipelines.transfer.batch_norm import batch_norms
from pipelines.transfer.strategies import plan
from pipelines.transfer.table import SOLVED

Make = Callable[..., Any]
Parts = tuple[Examples, Examples]
TASK = Task("binary", ("opacity",))


def train(network: Network, parts: Parts, settings: TrainSection, listener: Any = None, checkpoint: Any = None) -> Fitted:
    return learn(network, plan(network, settings.strategy), TASK, *parts, settings, listener or Silence(), checkpoint)


def moved(network: Network, before: dict[str, Tensor]) -> set[str]:
    """The layer groups in which a parameter is not as it was."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        group.name
        for group in network.groups()
        for parameter in group.parameters()
        if not torch.equal(parameter, before.get(names[id(parameter)], torch.empty(0)))
    }


def the_last_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch seems better than the one before."""
    better = itertools.count(1)
    monkeypatch.setattr("pipelines.training.judging.macro_auroc", lambda labels, scores: 1 - 0.5 / next(better))


ALL = {"stem", "stage1", "stage2", "stage3", "stage4", "head"}


@pytest.mark.parametrize(
    ("strategy", "own", "expected"),
    [
        ("feature_extraction", {}, {"head"}),
        ("feature_extraction", {"classifier": "mlp"}, {"head"}),
        ("feature_extraction", {"classifier": "logistic_regression"}, {"head"}),
        ("feature_extraction", {"classifier": "linear_svm"}, {"head"}),
        ("feature_extraction", {"classifier": "knn"}, set()),  # whose head has no parameters
        ("head_only", {}, {"head"}),
        ("last_groups", {}, {"stage4", "head"}),
        ("last_groups", {"groups": 3}, {"stage2", "stage3", "stage4", "head"}),
        ("gradual", {"unfreeze_every": 2}, {"stage4", "head"}),  # in three epochs
        ("gradual", {}, {"stage3", "stage4", "head"}),
        ("lp_ft", {}, ALL),
        ("full", {}, ALL),
        ("full", {"rates": {"stem": 0, "stage2": 0}}, ALL - {"stem", "stage2"}),
        ("differential", {}, ALL),
        ("auto_rgn", {}, ALL),
        ("l2_sp", {}, ALL),
        ("scratch", {}, ALL),
    ],
)
def test_exactly_these_groups_move(
    strategy: str,
    own: dict[str, Any],
    expected: set[str],
    parts: Parts,
    settings: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    the_last_epoch_is_kept(monkeypatch)
    network = resnet()
    before = state(network)
    train(network, parts, settings(strategy, epochs=3, strategy_settings=own))
    assert moved(network, before) == expected
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in ("mean", "std"))


@pytest.mark.parametrize(
    ("strategy", "own", "rates"),
    [
        ("head_only", {}, (0, 0, 0, 0, 0, 0.01)),
        ("last_groups", {"groups": 2, "decay": 0.5}, (0, 0, 0, 0.0025, 0.005, 0.01)),
        ("gradual", {"decay": 0.5}, (0, 0, 0, 0, 0, 0.01)),
        ("full", {}, (0.01,) * 6),
        ("differential", {"decay": 0.5}, (0.0003125, 0.000625, 0.00125, 0.0025, 0.005, 0.01)),
        ("differential", {"decay": 1, "rates": {"stem": 0, "stage3": 0.002}}, (0, 0.01, 0.01, 0.002, 0.01, 0.01)),
        ("l2_sp", {}, (0.01,) * 6),
        ("lp_ft", {}, (0.01,) * 5 + (None,)),  # whose head the solver has put elsewhere
        ("scratch", {}, (0.01,) * 6),
    ],
)
def test_the_first_step_moves_each_group_by_its_rate(
    strategy: str,
    own: dict[str, Any],
    rates: tuple[float | None, ...],
    parts: Parts,
    settings: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    the_last_epoch_is_kept(monkeypatch)
    network = resnet()
    before = [[parameter.detach().clone() for parameter in group.parameters()] for group in network.groups()]
    one_step = {"epochs": 1, "batch_size": 64, "weight_decay": 0}
    train(network, parts, settings(strategy, **one_step, strategy_settings={"learning_rate": 0.01, "warmup_epochs": 0, **own}))
    for group, old, rate in zip(network.groups(), before, rates, strict=True):
        ways = [(now - then).abs().flatten() for now, then in zip(group.parameters(), old, strict=True) if now.requires_grad]
        if rate is not None and rate == 0:
            assert all(torch.equal(now, then) for now, then in zip(group.parameters(), old, strict=True)), group.name
        elif rate is not None:
            assert torch.cat(ways).median().item() == pytest.approx(rate, rel=0.02), group.name
            assert torch.cat(ways).max().item() <= rate * 1.01


@pytest.mark.parametrize(("strategy", "batch_norm", "frozen"), [("head_only", None, 5), ("last_groups", "trained", 4)])
def test_a_group_that_does_not_learn_does_not_adapt_either(
    strategy: str, batch_norm: str | None, frozen: int, parts: Parts, settings: Make
) -> None:
    network = resnet()
    before = state(network)
    train(network, parts, settings(strategy, strategy_settings={"batch_norm": batch_norm}))
    for number, group in enumerate(network.groups()[:-1]):
        norms = {id(buffer) for module in group.modules for norm in batch_norms(module) for buffer in norm.buffers()}
        changed = [
            name for name, buffer in network.named_buffers() if id(buffer) in norms and not torch.equal(buffer, before[name])
        ]
        assert bool(changed) == (number >= frozen), group.name


def test_batch_norm_that_is_trained_stands_still_until_its_group_learns(parts: Parts, settings: Make, recorder: Make) -> None:
    """In the first epoch of gradual unfreezing only the head learns, whatever batch norm is told."""
    network = resnet()
    before = state(network)
    train(network, parts, settings("gradual", epochs=1, strategy_settings={"batch_norm": "trained"}))
    assert moved(network, before) == {"head"}
    for norm in batch_norms(network):
        assert norm.num_batches_tracked is not None
        assert norm.num_batches_tracked == 0


def test_adaptive_batch_norm_takes_the_statistics_of_the_training_images_and_nothing_else(parts: Parts, settings: Make) -> None:
    network = resnet()
    before = state(network)
    train(network, parts, settings("head_only", epochs=1, batch_size=24, strategy_settings={"batch_norm": "adaptive"}))
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.rpartition(".")[2] for name in changed if name.startswith("trunk")} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    images = next(parts[0].images([np.arange(24)], torch.device("cpu")))
    stem = next(batch_norms(network))
    with torch.no_grad():
        convolved = network.trunk.get_submodule("conv1")(images if network.folded else (images - network.mean) / network.std)
    assert stem.running_mean is not None
    assert torch.allclose(stem.running_mean, convolved.mean(dim=(0, 2, 3)), atol=1e-4)


@pytest.mark.parametrize("kind", SOLVED)
def test_a_solved_classifier_is_one_epoch_and_says_how_it_was_found(
    kind: str, parts: Parts, settings: Make, recorder: Make
) -> None:
    network, listener = resnet(), recorder()
    fitted = train(network, parts, settings("feature_extraction", strategy_settings={"classifier": kind}), listener)
    assert (len(fitted.history), fitted.best_epoch) == (1, 1)
    assert fitted.details["classifier"]["chosen_by"] == "cross-validation over patients, 5 folds"
    assert fitted.history[0].train_loss == pytest.approx(
        fitted.details["classifier"]["cross_entropy_on_held_out_patients"], abs=1e-6
    )
    assert listener.notes[0].startswith(f"{kind}: ")
    assert heads.describe(network.head)["kind"] == ("knn" if kind == "knn" else "linear")


def test_lp_ft_begins_at_the_probe_and_moves_all_by_its_rate(
    parts: Parts, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of AdamW moves every parameter by the rate; the head stands where the solver put it but for that."""
    the_last_epoch_is_kept(monkeypatch)
    probe, tuned = resnet(), resnet()
    before = state(tuned)
    own = {"learning_rate": 1e-4, "warmup_epochs": 0, "regularisation": 10.0}
    settled = {"classifier": "logistic_regression", "regularisation": 10.0}
    train(probe, parts, settings("feature_extraction", class_weighting="none", strategy_settings=settled))
    one_step = settings("lp_ft", epochs=1, batch_size=64, weight_decay=0, class_weighting="none", strategy_settings=own)
    fitted = train(tuned, parts, one_step)
    head = (tuned.state_dict()["head.linear.weight"] - probe.state_dict()["head.linear.weight"]).abs()
    assert head.median().item() == pytest.approx(1e-4, rel=0.02)
    stem = (tuned.state_dict()["trunk.conv1.weight"] - before["trunk.conv1.weight"]).abs()
    assert stem.median().item() == pytest.approx(1e-4, rel=0.02)
    assert fitted.details["classifier"]["regularisation"] == 10.0


def test_lp_ft_keeps_the_probe_that_no_epoch_betters(
    parts: Parts, settings: Make, recorder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    aurocs = iter([0.9, 0.8, 0.7, 0.6])
    monkeypatch.setattr("pipelines.training.judging.macro_auroc", lambda labels, scores: next(aurocs))
    network, listener = resnet(), recorder()
    before = state(network)
    fitted = train(network, parts, settings("lp_ft", epochs=20, patience=2), listener)
    assert [(epoch.epoch, epoch.validation_auroc) for epoch in fitted.history] == [(0, 0.9), (1, 0.8), (2, 0.7)]
    assert (fitted.best_epoch, fitted.validation_auroc) == (0, 0.9)
    assert moved(network, before) == {"head"}
    assert fitted.history[0].train_loss == pytest.approx(
        fitted.details["classifier"]["cross_entropy_on_held_out_patients"], abs=1e-6
    )
    assert listener.notes[-1] == (
        "no epoch was better on validation than the logistic_regression that training began at, which is kept"
    )
    assert tuple(listener.epochs) == fitted.history
    assert [started[0] for started in listener.started] == [1, 2]


def test_epoch_0_of_lp_ft_is_what_the_probe_alone_comes_to(parts: Parts, settings: Make) -> None:
    probe = train(resnet(), parts, settings("feature_extraction", strategy_settings={"classifier": "logistic_regression"}))
    tuned = train(resnet(), parts, settings("lp_ft", epochs=1))
    assert tuned.history[0].validation_loss == pytest.approx(probe.history[0].validation_loss, rel=1e-4)
    assert tuned.history[0].validation_auroc == probe.validation_auroc


def test_a_head_that_a_solver_found_is_fine_tuned_without_dropout(parts: Parts, settings: Make) -> None:
    network = resnet(dropout=0.5)
    train(network, parts, settings("lp_ft", epochs=1, dropout=0.5))
    assert [module.p for module in network.head.modules() if isinstance(module, torch.nn.Dropout)] == [0.0]


@pytest.mark.parametrize("killed_in", [1, 2])
def test_lp_ft_leaves_no_trace_of_an_interruption(
    killed_in: int, parts: Parts, settings: Make, recorder: Make, tmp_path: Path
) -> None:
    asked = settings("lp_ft", epochs=3, strategy_settings={"learning_rate": 1e-3})
    whole, interrupted, resumed = resnet(), resnet(), resnet()
    expected = train(whole, parts, asked)
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, parts, asked, recorder(stop_in_epoch=killed_in), Checkpoint(tmp_path, "same"))
    torch.manual_seed(99)
    listener = recorder()
    fitted = train(resumed, parts, asked, listener, Checkpoint(tmp_path, "same"))
    assert fitted.resumed_from == (1 if killed_in == 2 else None)
    assert [epoch.epoch for epoch in listener.epochs] == [0, 1, 2, 3][(2 if killed_in == 2 else 0) :]
    assert same(state(whole), state(resumed))
    assert (fitted.history, fitted.details) == (expected.history, expected.details)


UNUSED = [
    ("full", {}, {}, None),
    ("full", {"decay": 0.5}, {}, "full has no use for train.strategy.decay (its rates do not fall from group to group)"),
    ("feature_extraction", {}, {"augment": {"rotate_degrees": 0, "shift": 0, "scale": 0, "brightness": 0, "contrast": 0}}, None),
    (
        "feature_extraction",
        {},
        {},
        "feature_extraction with linear has no use for train.augment (features are computed once, from images as they are)",
    ),
    (
        "feature_extraction",
        {"classifier": "knn"},
        {},
        "feature_extraction with knn has no use for train.augment (features are computed once, from images as they are); "
        "train.epochs, train.patience, train.weight_decay, train.strategy.warmup_epochs (a solver finds it in one go); "
        "train.dropout (the head that a solver finds has none); train.class_weighting (neighbours vote as they are)",
    ),
    (
        "lp_ft",
        {},
        {},
        "lp_ft with logistic_regression has no use for train.dropout (the head that a solver finds has none)",
    ),
]


@pytest.mark.parametrize(("strategy", "own", "changes", "expected"), UNUSED)
def test_settings_that_come_to_nothing_are_told_once(
    strategy: str,
    own: dict[str, Any],
    changes: dict[str, Any],
    expected: str | None,
    parts: Parts,
    settings: Make,
    recorder: Make,
) -> None:
    listener = recorder()
    train(resnet(), parts, settings(strategy, epochs=1, strategy_settings=own, **changes), listener)
    assert [note for note in listener.notes if "has no use for" in note] == ([expected] if expected else [])


def test_auto_rgn_scales_each_groups_rate_and_reports_it(parts: Parts, settings: Make, recorder: Make) -> None:
    network, listener = resnet(), recorder()
    own = {"learning_rate": 0.01, "warmup_epochs": 0}
    fitted = train(network, parts, settings("auto_rgn", epochs=1, batch_size=64, strategy_settings=own), listener)
    scales = fitted.details["rate_scales"]
    assert list(scales) == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    assert max(scales.values()) == 1
    assert min(scales.values()) > 0
    assert listener.steps[0].learning_rates == pytest.approx([0.01 * scale for scale in scales.values()])


def test_auto_rgn_moves_each_group_by_its_scaled_rate(parts: Parts, settings: Make) -> None:
    network = resnet()
    before = [[parameter.detach().clone() for parameter in group.parameters()] for group in network.groups()]
    own = {"learning_rate": 0.01, "warmup_epochs": 0}
    fitted = train(network, parts, settings("auto_rgn", epochs=1, batch_size=64, weight_decay=0, strategy_settings=own))
    for group, old in zip(network.groups(), before, strict=True):
        learning = [(now, then) for now, then in zip(group.parameters(), old, strict=True) if now.requires_grad]
        way = torch.cat([(now - then).abs().flatten() for now, then in learning])
        assert way.median().item() == pytest.approx(0.01 * fitted.details["rate_scales"][group.name], rel=0.05)


@pytest.mark.parametrize("strategy", ["l2_sp", "differential"])
def test_an_anchor_holds_the_backbone_near_its_source(strategy: str, parts: Parts, settings: Make) -> None:
    def distance(strength: float) -> float:
        own = {"learning_rate": 0.003, "decay": 1, "anchor": strength}
        return train(resnet(), parts, settings(strategy, epochs=4, strategy_settings=own)).details["distance_from_source"]

    assert 0 < distance(30.0) < 0.6 * distance(1e-6)


def test_what_is_anchored_is_not_decayed_towards_zero_and_the_head_is(settings: Make) -> None:
    from pipelines.training.optimizer import build
    from pipelines.transfer import strategies

    network = resnet()
    planned = plan(network, settings("l2_sp").strategy)
    strategies.apply(network, planned)
    optimizer = build(network.groups(), planned, 0.05)
    decays = {owner: group["weight_decay"] for owner, group in zip(optimizer.owners, optimizer.adamw.param_groups, strict=True)}
    assert optimizer.anchor is not None
    assert optimizer.anchor.strength == 0.1
    assert {owner: decay for owner, decay in decays.items() if owner < 5} == dict.fromkeys(range(5), 0.0)
    head = [
        group["weight_decay"] for owner, group in zip(optimizer.owners, optimizer.adamw.param_groups, strict=True) if owner == 5
    ]
    assert head == [0.05, 0.0]
    held = {id(parameter) for parameter in optimizer.anchor.parameters}
    assert held == {id(p) for group in network.groups()[:-1] for p in group.parameters() if p.requires_grad}


@pytest.mark.parametrize(("make", "width", "out"), [(vit, 32, "proj"), (monai_vit, 48, "out_proj")], ids=["timm", "MONAI"])
def test_lora_moves_only_what_its_adapters_reach_and_leaves_a_plain_network(
    make: Make, width: int, out: str, parts: Parts, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    the_last_epoch_is_kept(monkeypatch)
    network = make()
    before, asked = state(network), settings("lora", epochs=2, strategy_settings={"rank": 2, "learning_rate": 0.01})
    planned = plan(network, asked.strategy)
    assert [group.trained for group in planned.groups] == [0, 2 * 6 * width, 2 * 6 * width, width + 1]
    train(network, parts, asked)
    assert list(network.state_dict()) == list(before)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    attention = {f"trunk.blocks.{block}.attn.{layer}.weight" for block in (0, 1) for layer in ("qkv", out)}
    assert changed == attention | {"head.linear.weight", "head.linear.bias"}
    difference = network.state_dict()["trunk.blocks.0.attn.qkv.weight"] - before["trunk.blocks.0.attn.qkv.weight"]
    assert torch.linalg.matrix_rank(difference, rtol=1e-3) <= 2


RESUMED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("lora", {}, {}),
    ("feature_extraction", {"classifier": "mlp"}, {}),
    ("gradual", {"batch_norm": "trained"}, {"ema": 0.9}),
    ("differential", {"batch_norm": "adaptive", "anchor": 0.5}, {"mixup": 0.4, "label_smoothing": 0.1}),
]


@pytest.mark.parametrize(("strategy", "own", "changes"), RESUMED, ids=lambda value: value if isinstance(value, str) else "")
def test_options_leave_no_trace_of_an_interruption_either(
    strategy: str, own: dict[str, Any], changes: dict[str, Any], parts: Parts, settings: Make, recorder: Make, tmp_path: Path
) -> None:
    make = vit if strategy == "lora" else resnet
    asked = settings(strategy, epochs=3, strategy_settings=own, **changes)
    whole, interrupted, resumed = make(), make(), make()
    expected = train(whole, parts, asked)
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, parts, asked, recorder(stop_in_epoch=2), Checkpoint(tmp_path, "same"))
    torch.manual_seed(99)
    fitted = train(resumed, parts, asked, None, Checkpoint(tmp_path, "same"))
    assert fitted.resumed_from == 1
    assert same(state(whole), state(resumed))
    assert (fitted.history, fitted.details) == (expected.history, expected.details)


def test_the_average_is_what_is_judged_and_kept(parts: Parts, settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a decay of 0.9 and three steps the average is what these updates give, and not the last weights."""
    from pipelines.training import averaging

    seen: list[dict[str, Tensor]] = []
    update = averaging.Average.update

    def watched(self: averaging.Average, module: torch.nn.Module) -> None:
        seen.append(state(module))
        update(self, module)

    monkeypatch.setattr(averaging.Average, "update", watched)
    network = resnet()
    start = network.state_dict()["head.linear.weight"].clone()
    train(network, parts, settings("full", epochs=1, ema=0.9, class_weighting="none"))
    expected = start
    for number, weights in enumerate(seen):
        decay = min(0.9, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * weights["head.linear.weight"]
    assert len(seen) == 3
    assert torch.allclose(network.state_dict()["head.linear.weight"], expected, atol=1e-7)
    assert not torch.equal(network.state_dict()["head.linear.weight"], seen[-1]["head.linear.weight"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mixup": 0.4},
            r"train\.mixup: expected 0 for the classifier knn, which a solver finds in one go, got 0.4; choose linear",
        ),
        ({"label_smoothing": 0.1}, r"train\.label_smoothing: expected 0 for the classifier knn"),
        ({"ema": 0.9}, r"train\.ema: expected null for the classifier knn"),
        ({"stochastic_depth": 0.1}, r"train\.stochastic_depth: expected null or 0 for feature_extraction, whose backbone"),
    ],
)
def test_a_regulariser_without_a_use_is_refused(changes: dict[str, Any], message: str, parts: Parts, settings: Make) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train(resnet(), parts, settings("feature_extraction", strategy_settings={"classifier": "knn"}, **changes))


def test_stochastic_depth_is_refused_where_the_network_has_no_place_for_it(parts: Parts, settings: Make) -> None:
    with pytest.raises(ConfigurationError, match=r"train\.stochastic_depth: expected null or 0 for resnet10, whose blocks"):
        train(resnet(), parts, settings("full", stochastic_depth=0.1))


def test_stochastic_depth_skips_blocks_in_training_and_follows_from_the_seed(parts: Parts, settings: Make) -> None:
    def trained(chance: float | None) -> dict[str, Tensor]:
        network = vit()
        train(network, parts, settings("full", epochs=1, stochastic_depth=chance))
        return state(network)

    assert same(trained(0.9), trained(0.9))
    assert not same(trained(0.9), trained(0.0))


def test_too_few_epochs_for_the_last_group_to_learn_are_told(parts: Parts, settings: Make, recorder: Make) -> None:
    listener = recorder()
    train(resnet(), parts, settings("gradual", epochs=1, strategy_settings={"unfreeze_every": 2}), listener)
    assert listener.notes == [
        "train.epochs: 1, too few for stem, stage1, stage2, stage3, stage4 to learn; raise it, or lower "
        "train.strategy.unfreeze_every"
    ]


def test_a_feature_that_is_silent_in_training_does_not_drown_the_others_of_an_mlp(settings: Make) -> None:
    from pipelines.training import learn as module
    from pipelines.training.loss import Loss
    from pipelines.training.material import Features

    network, asked = resnet(), settings("feature_extraction", strategy_settings={"classifier": "mlp"})
    labels = torch.tensor([[0.0], [1.0]] * 8)
    features = torch.randn(16, network.width, generator=torch.Generator().manual_seed(1))
    features[:, 3] = 0.0
    awake = features.clone()
    awake[:, 3] = 0.5
    given = [Features(features, labels), Features(awake, labels)]
    ready = module._stepwise(network, plan(network, asked.strategy), given, Loss(exclusive=False), 0.0)
    assert ready.validation.features[:, 3].abs().max() < 10


def test_a_group_that_never_learns_is_not_missed(parts: Parts, settings: Make, recorder: Make) -> None:
    listener, own = recorder(), {"rates": dict.fromkeys(("stem", "stage1", "stage2", "stage3"), 0.0)}
    train(resnet(), parts, settings("gradual", epochs=2, strategy_settings=own), listener)
    assert listener.notes == []


def test_gradual_unfreezing_does_not_stop_before_every_group_has_had_its_turn(
    parts: Parts, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The AUROC never grows after the first epoch: with a patience of 2 that counts from the sixth, when the stem learns."""
    aurocs = iter([0.9, *[0.8] * 19])
    monkeypatch.setattr("pipelines.training.judging.macro_auroc", lambda labels, scores: next(aurocs))
    fitted = train(resnet(), parts, settings("gradual", epochs=20, patience=2))
    assert (len(fitted.history), fitted.best_epoch) == (7, 1)


@pytest.mark.parametrize("strategy", ["lp_ft", "feature_extraction"])
def test_what_begins_at_a_probe_or_is_one_is_precise_unless_told_otherwise(strategy: str, settings: Make) -> None:
    from pipelines.training.numerics import precision_for

    network = resnet()
    for precision, expected in (("auto", "fp32"), ("bf16", "bf16"), ("fp32", "fp32")):
        asked = settings(strategy, precision=precision)
        assert precision_for(plan(network, asked.strategy), asked) == expected
    asked = settings("full")
    assert precision_for(plan(network, asked.strategy), asked) == "auto"
