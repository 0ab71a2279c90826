from __future__ import annotations

import pytest

from pipelines.config import StrategySection
from pipelines.errors import ConfigurationError
from pipelines.models import backbones
from pipelines.models.backbones import BACKBONES, Network
from pipelines.models.provenance import Normalisation
from pipelines.transfer import strategies
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
        ("differential", (0.1, 0.2, 0.4, 0.8)),
        ("full", (0.8, 0.8, 0.8, 0.8)),
        ("scratch", (0.8, 0.8, 0.8, 0.8)),
    ],
)
def test_learning_rates_from_stem_to_head(name: str, expected: tuple[float, ...]) -> None:
    assert learning_rates(4, section(name, learning_rate=0.8, decay=0.5)) == pytest.approx(expected)


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_learning_rate_in_the_configuration_means_that_of_the_table(name: str) -> None:
    assert learning_rates(6, section(name))[-1] == STRATEGIES[name].learning_rate


def test_the_table_and_the_schema_name_the_same_strategies() -> None:
    assert set(STRATEGIES) == set(StrategySection.model_fields["name"].annotation.__args__)


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
    with pytest.raises(ConfigurationError, match=r"train\.strategy\.batch_norm: expected frozen or null for feature_extraction"):
        plan(make(), section("feature_extraction", batch_norm="trained"))


def test_batch_norm_cannot_be_frozen_in_a_network_that_knows_no_statistics_yet() -> None:
    with pytest.raises(ConfigurationError, match=r"train\.strategy\.batch_norm: expected trained or null for scratch"):
        plan(make(), section("scratch", batch_norm="frozen"))
