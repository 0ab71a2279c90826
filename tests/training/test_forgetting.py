"""What is forgotten of the source, as the source's own classifier sees it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_networks import resnet
from trained_workspace import PASSPORT

from pipelines.config import StrategySection
from pipelines.imaging.radiograph import Recipe
from pipelines.imaging.store import ArrayStore, open_for_adding, table, write_shard
from pipelines.models.starting import Start
from pipelines.training import forgetting
from pipelines.training.batches import Examples
from pipelines.training.forgetting import Forgetting, forgotten, remember
from pipelines.transfer.strategies import Plan, plan

CLASSES = 7


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    recipe, images = Recipe(32, "uint8", (0.5, 99.5)), np.random.default_rng(1).integers(0, 256, (20, 32, 32)).astype(np.uint8)
    open_for_adding(tmp_path, recipe)
    write_shard(tmp_path, 0, images, lambda: table([]), recipe)
    return Examples(ArrayStore(tmp_path), np.zeros(20, np.int64), np.arange(20), np.zeros((20, 1), np.float32))


@pytest.fixture(autouse=True)
def classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    head = (random.normal(size=(CLASSES, 128)), random.normal(size=CLASSES))
    monkeypatch.setattr(forgetting, "source_head", lambda found, width: head)


def begun(strategy: str, **changes: object) -> tuple[Start, Plan]:
    network = resnet()
    passport = None if strategy == "scratch" else replace(PASSPORT, **changes)
    return Start(network, passport, None), plan(network, StrategySection.model_validate({"name": strategy}))


def test_a_backbone_that_did_not_change_agrees_with_itself(examples: Examples) -> None:
    start, planned = begun("full")
    found = forgotten(remember(start, planned, examples, 8), start.network, examples, 8)
    assert found.agreement == 1
    assert found.divergence == pytest.approx(0, abs=1e-6)


def test_the_further_the_weights_go_the_less_is_kept(examples: Examples) -> None:
    start, planned = begun("full")
    memory = remember(start, planned, examples, 8)
    torch.manual_seed(3)
    kept = []
    for _ in range(2):
        with torch.no_grad():
            for parameter in start.network.trunk.parameters():
                parameter.add_(0.5 * parameter.std() * torch.randn_like(parameter) if parameter.numel() > 1 else 0)
        kept.append(forgotten(memory, start.network, examples, 8))
    assert kept[0].divergence > 0
    assert kept[1].divergence > kept[0].divergence
    assert kept[1].agreement < 1


def test_a_frozen_backbone_forgets_nothing_by_construction(examples: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "_answers", lambda *_: pytest.fail("it was measured"))
    assert remember(*begun("feature_extraction"), examples, 8) == Forgetting(1.0, 0.0)


def test_adapted_batch_norm_moves_a_frozen_backbone() -> None:
    network = resnet()
    settings = StrategySection.model_validate({"name": "head_only", "batch_norm": "adaptive"})
    assert forgetting.moves(plan(network, settings))


@pytest.mark.parametrize(
    ("strategy", "changes", "head", "reason"),
    [
        ("scratch", {}, True, forgetting.NO_SOURCE),
        ("full", {"multi_label": True}, True, forgetting.SEVERAL),
        ("full", {}, False, forgetting.NO_CLASSIFIER),
    ],
)
def test_where_it_cannot_be_measured_the_reason_is_given(
    strategy: str, changes: dict[str, object], head: bool, reason: str, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not head:
        monkeypatch.setattr(forgetting, "source_head", lambda found, width: None)
    assert remember(*begun(strategy, **changes), examples, 8) == Forgetting(None, None, reason)
