"""What a trial takes of the settings of `train`: what its strategy has a use for, whatever `train` is about."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_networks import resnet, vit

from pipelines.config import TrainSection
from pipelines.records import Task
from pipelines.training.batches import Examples
from pipelines.training.learn import _check
from pipelines.training.trial import Trial, fitting
from pipelines.transfer.checks import check_settings
from pipelines.transfer.strategies import plan
from pipelines.transfer.table import STRATEGIES

BINARY = Task("binary", ("finding",))
LABELS = (np.arange(40) % 2).astype(np.float32)[:, None]
TRAIN = Examples(None, np.zeros(40, np.int64), np.arange(40), LABELS)  # type: ignore[arg-type]
# each is refused by most strategies
TOLD: list[dict[str, Any]] = [
    {"strategy": {"name": "last_groups", "groups": 2, "rates": {"stem": 0.1}, "learning_rate": 0.5, "batch_norm": "trained"}},
    {"strategy": {"name": "feature_extraction", "classifier": "knn", "neighbours": 3, "batch_norm": "adaptive"}},
    {"strategy": {"name": "feature_extraction", "classifier": "mlp", "hidden": 8}},
    {"strategy": {"name": "lora", "rank": 2}, "label_smoothing": 0.1, "mixup": 0.2, "ema": 0.9},
    {"strategy": {"name": "scratch", "batch_norm": "trained"}},
    {"strategy": {"name": "lp_ft", "regularisation": 1.0, "anchor": 0.2}},
    {"strategy": {"name": "gradual", "unfreeze_every": 2, "decay": 0.9}},
]


def fitted(strategy: str, told: dict[str, Any], weights: str = "tiny") -> TrainSection:
    settings, _ = fitting(Trial(f"resnet10@{weights}", strategy, None, 5), TrainSection.model_validate(told), TRAIN, BINARY)
    return settings


@pytest.mark.parametrize("told", TOLD, ids=lambda told: told["strategy"]["name"])
@pytest.mark.parametrize("strategy", [*STRATEGIES, "recommended"])
def test_settings_of_another_strategy_do_not_make_one_fail(strategy: str, told: dict[str, Any]) -> None:
    if strategy == told["strategy"]["name"]:
        told = {**told, "label_smoothing": 0.0, "mixup": 0.0, "ema": None}
    settings = fitted(strategy, told)
    check_settings(settings.strategy)
    planned = plan(vit() if strategy == "lora" else resnet(), settings.strategy)
    _check(planned, settings, BINARY)


def test_the_strategy_that_train_names_is_taken_as_it_is_told() -> None:
    told = TrainSection.model_validate(TOLD[0])
    assert fitted("last_groups", TOLD[0]).strategy == told.strategy


@pytest.mark.parametrize(
    ("strategy", "told", "taken"),
    [
        ("full", {"name": "differential", "learning_rate": 0.5, "rates": {"stem": 0}}, {"learning_rate": None, "rates": {}}),
        ("full", {"name": "differential", "batch_norm": "trained", "anchor": 0.3}, {"batch_norm": "trained", "anchor": 0.3}),
        ("gradual", {"name": "differential", "decay": 0.7}, {"decay": 0.7}),
        ("full", {"name": "differential", "decay": 0.7}, {"decay": 0.3}),
        ("lp_ft", {"name": "feature_extraction", "classifier": "linear_svm"}, {"classifier": "linear_svm"}),
        ("lp_ft", {"name": "feature_extraction", "classifier": "knn"}, {"classifier": None}),
        (
            "full",
            {"name": "recommended", "learning_rate": 0.5, "batch_norm": "trained"},
            {"learning_rate": None, "batch_norm": "trained"},
        ),
        ("head_only", {"name": "full", "batch_norm": "trained", "warmup_epochs": 3}, {"batch_norm": None, "warmup_epochs": 3}),
    ],
)
def test_of_another_strategy_it_takes_its_options_but_not_its_rates(
    strategy: str, told: dict[str, Any], taken: dict[str, Any]
) -> None:
    found = fitted(strategy, {"strategy": told}).strategy
    assert found.name == strategy
    assert {name: getattr(found, name) for name in taken} == taken


def test_network_weights_and_seed_are_those_of_the_trial() -> None:
    settings = fitted("full", {"epochs": 9, "seed": 1, "backbone": "vit_b16"}, weights="other")
    assert (settings.backbone, settings.weights, settings.seed, settings.epochs) == ("resnet10", "other", 5, 9)


@pytest.mark.parametrize("size", [None, 16])
def test_a_trial_has_a_name_that_can_be_a_file(size: int | None) -> None:
    name = Trial("timm:convnext_tiny.in12k@imagenet", "full", size, 3).name
    assert name == f"timm-convnext_tiny.in12k@imagenet full {size or 'all'} seed 3"
