from __future__ import annotations

import json

import pytest

from pipelines.config import StrategySection
from pipelines.errors import ConfigurationError
from pipelines.models import backbones
from pipelines.models.backbones import BACKBONES, Network
from pipelines.models.provenance import Normalisation
from pipelines.transfer import recommendation, strategies
from pipelines.transfer.batch_norm import batch_norms
from pipelines.transfer.strategies import STRATEGIES, learning_rates, plan


def make(name: str = "resnet10") -> Network:
    normalisation = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return backbones.build(name, outputs=2, dropout=0.1, normalisation=normalisation)


def section(name: str, **changes: object) -> StrategySection:
    return StrategySection.model_validate({"name": name, **changes})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("feature_extraction", (0.0, 0.0, 0.0, 0.8)),
        ("head_only", (0.0, 0.0, 0.0, 0.8)),
        ("last_groups", (0.0, 0.0, 0.4, 0.8)),
        ("gradual", (0.1, 0.2, 0.4, 0.8)),
        ("lp_ft", (0.8, 0.8, 0.8, 0.8)),
        ("full", (0.8, 0.8, 0.8, 0.8)),
        ("differential", (0.1, 0.2, 0.4, 0.8)),
        ("auto_rgn", (0.8, 0.8, 0.8, 0.8)),
        ("lora", (0.8, 0.8, 0.8, 0.8)),
        ("l2_sp", (0.8, 0.8, 0.8, 0.8)),
        ("scratch", (0.8, 0.8, 0.8, 0.8)),
    ],
)
def test_learning_rates_from_stem_to_head(name: str, expected: tuple[float, ...]) -> None:
    assert name in STRATEGIES
    assert learning_rates(4, section(name, learning_rate=0.8, decay=0.5)) == pytest.approx(expected)


def test_as_many_groups_learn_as_are_asked_for() -> None:
    asked = section("last_groups", groups=2, learning_rate=0.8, decay=0.5)
    assert learning_rates(6, asked) == pytest.approx((0, 0, 0, 0.2, 0.4, 0.8))


def test_a_rate_that_is_named_takes_the_place_of_the_strategys() -> None:
    worked_out = plan(make(), section("differential", learning_rate=0.8, decay=0.5, rates={"stem": 0, "stage4": 0.07}))
    assert [group.learning_rate for group in worked_out.groups] == pytest.approx([0, 0.05, 0.1, 0.2, 0.07, 0.8])
    assert worked_out.groups[0].trained == 0


def test_groups_are_unfrozen_from_head_to_stem_every_so_many_epochs() -> None:
    worked_out = plan(make(), section("gradual", unfreeze_every=3))
    assert [group.from_epoch for group in worked_out.groups] == [16, 13, 10, 7, 4, 1]


def test_groups_whose_turn_had_not_come_in_the_epoch_that_was_kept_did_not_learn() -> None:
    worked_out = plan(make(), section("gradual", unfreeze_every=3, batch_norm="trained"))
    ended = worked_out.until(4)
    assert [bool(group.trained) for group in ended.groups] == [bool(group.learning_rate) for group in ended.groups]
    assert [bool(group.trained) for group in ended.groups] == [False] * 4 + [True] * 2
    assert [group.batch_norm for group in ended.groups] == ["frozen"] * 4 + ["trained", None]
    assert ended.trained == sum(group.trained for group in worked_out.groups[-2:])
    assert worked_out.until(16) == worked_out
    probe = plan(make(), section("lp_ft")).until(0)
    assert [bool(group.trained) for group in probe.groups] == [False] * 5 + [True]
    assert not any(group.learning_rate for group in probe.groups)


def test_a_batch_norm_in_a_group_that_does_not_learn_is_frozen_whatever_is_said() -> None:
    worked_out = plan(make(), section("last_groups", groups=2, batch_norm="trained"))
    assert [group.batch_norm for group in worked_out.groups] == ["frozen"] * 3 + ["trained"] * 2 + [None]


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_learning_rate_in_the_configuration_means_that_of_the_table(name: str) -> None:
    assert learning_rates(6, section(name))[-1] == STRATEGIES[name].learning_rate


def test_the_table_and_the_schema_name_the_same_strategies() -> None:
    assert {*STRATEGIES, recommendation.RECOMMENDED} == set(StrategySection.model_fields["name"].annotation.__args__)


def test_every_option_that_is_optional_is_some_strategys() -> None:
    for_all = {"name", "learning_rate", "decay", "warmup_epochs", "batch_norm"}
    used = {option for strategy in STRATEGIES.values() for option in strategy.options}
    assert used == {*StrategySection.model_fields} - for_all


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_plan_counts_every_parameter_of_a_backbone_once(backbone: str) -> None:
    network = make(backbone)
    worked_out = plan(network, section("differential", batch_norm="trained"))
    assert worked_out.parameters == worked_out.trained == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "batch_norm"),
    [("differential", "frozen"), ("differential", "trained"), ("full", "frozen"), ("full", "trained"), ("scratch", "trained")],
)
def test_the_plan_says_what_learns_once_it_is_applied(name: str, batch_norm: str) -> None:
    network = make()
    worked_out = plan(network, section(name, batch_norm=batch_norm))
    strategies.apply(network, worked_out)
    learning = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    in_norms = sum(parameter.numel() for norm in batch_norms(network) for parameter in norm.parameters())
    assert worked_out.trained == learning == worked_out.parameters - (in_norms if batch_norm == "frozen" else 0)
    assert [group.batch_norm for group in worked_out.groups] == [batch_norm] * 5 + [None]


def test_only_the_head_learns_in_feature_extraction() -> None:
    network = make()
    worked_out = plan(network, section("feature_extraction"))
    strategies.apply(network, worked_out)
    assert {name for name, parameter in network.named_parameters() if parameter.requires_grad} == {
        "head.linear.weight",
        "head.linear.bias",
    }
    assert [group.trained for group in worked_out.groups] == [0, 0, 0, 0, 0, 128 * 2 + 2]
    assert worked_out.cached


@pytest.mark.parametrize(
    ("name", "batch_norm"),
    [("feature_extraction", "frozen"), ("differential", "frozen"), ("full", "frozen"), ("scratch", "trained")],
)
def test_pretrained_batch_norm_is_frozen_unless_told_otherwise(name: str, batch_norm: str) -> None:
    assert plan(make(), section(name)).batch_norm == batch_norm


def test_planning_changes_nothing() -> None:
    network = make()
    plan(network, section("feature_extraction"))
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_batch_norm_cannot_be_trained_in_a_backbone_that_does_not_learn() -> None:
    with pytest.raises(ConfigurationError, match=r"train\.strategy\.batch_norm: expected frozen, adaptive or null for feature"):
        plan(make(), section("feature_extraction", batch_norm="trained"))


def test_batch_norm_cannot_be_frozen_in_a_network_that_knows_no_statistics_yet() -> None:
    with pytest.raises(ConfigurationError, match=r"train\.strategy\.batch_norm: expected trained or null for scratch"):
        plan(make(), section("scratch", batch_norm="frozen"))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("full", {"groups": 2}, r"groups: expected null for full, which has no use for it, got 2; it is for last_groups$"),
        ("differential", {"unfreeze_every": 2}, r"unfreeze_every: expected null for differential, .* it is for gradual$"),
        ("full", {"classifier": "knn"}, r"classifier: expected null for full, .*it is for feature_extraction, lp_ft$"),
        ("feature_extraction", {"anchor": 0.1}, r"anchor: expected null for feature_extraction, .* it is for last_groups, "),
        ("scratch", {"anchor": 0.1}, r"anchor: expected null for scratch, which has no use for it, got 0.1"),
        ("head_only", {"rates": {"stem": 0.1}}, r"rates: expected \{\} for head_only, which has no use for it"),
        ("full", {"rank": 4}, r"rank: expected null for full, .* it is for lora$"),
        ("lp_ft", {"classifier": "knn"}, r"classifier: expected logistic_regression or linear_svm for lp_ft, got knn"),
        ("feature_extraction", {"hidden": 9}, r"hidden: expected null for the classifier linear, got 9; it is for mlp"),
        ("feature_extraction", {"neighbours": 9, "classifier": "mlp"}, r"neighbours: expected null for .* mlp, got 9; .* knn"),
        (
            "feature_extraction",
            {"classifier": "knn", "learning_rate": 0.1},
            r"learning_rate: expected null for the classifier knn, which a solver finds, got 0.1; choose linear or mlp",
        ),
        ("head_only", {"batch_norm": "trained"}, r"batch_norm: expected frozen, adaptive or null for head_only"),
        ("scratch", {"batch_norm": "adaptive"}, r"batch_norm: expected trained or null for scratch, .* got adaptive"),
        ("full", {"rates": {"stage9": 0.1}}, r"rates: expected layer groups of resnet10 \(stem, .*, head\), got stage9"),
        (
            "full",
            {"rates": {"head": 0}},
            r"rates: expected a rate above 0 for head, which begins at random numbers for full, got 0",
        ),
        (
            "lp_ft",
            {"rates": dict.fromkeys(("stem", "stage1", "stage2", "stage3", "stage4", "head"), 0)},
            r"rates: expected a layer group that learns, got 0 for all; choose the strategy feature_extraction",
        ),
        ("last_groups", {"groups": 6}, r"groups: expected at most 5, the layer groups of resnet10, got 6"),
        ("lora", {}, r"name: lora puts adapters into attention, and resnet10 has none; choose a transformer"),
        ("recommended", {}, r"name: recommended depends on the data, which are not known here; choose one of feature_extr"),
    ],
)
def test_what_a_strategy_cannot_be_is_refused_with_the_remedy(name: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=r"params.yaml train\.strategy\." + message):
        plan(make(), section(name, **changes))


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "lora"])
def test_a_plan_is_plain_values_for_the_model_card(name: str) -> None:
    card = plan(make(), section(name)).to_dict()
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert card["name"] == name


def test_a_head_that_a_probe_has_found_may_stay() -> None:
    assert plan(make(), section("lp_ft", rates={"head": 0})).groups[-1].trained == 0
