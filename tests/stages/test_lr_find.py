"""`radtransfer lr-find` on a tiny workspace: a picture, a suggestion, and params.yaml with its comments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_workspace import save_tiny, write_workspace
from typer.testing import CliRunner

from pipelines import __main__, config, workspace
from pipelines.config import Config
from pipelines.errors import ConfigurationError, MissingInputError
from pipelines.paths import Paths
from pipelines.stages import lr_find


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(lr_find, "STEPS", 40)
    save_tiny(tmp_path / "weights", seed=4)
    return write_workspace(tmp_path / "workspace")


def settings(**changes: Any) -> Config:
    train = {"backbone": "resnet10", "weights": "tiny", "batch_size": 12, "device": "cpu", **changes}
    return Config.model_validate({"task": {"kind": "binary", "targets": ["left"]}, "train": train})


def test_it_draws_and_suggests_and_leaves_nothing_else(paths: Paths) -> None:
    before = {path for path in paths.workspace.rglob("*") if path.is_file()}
    summary = lr_find.run(settings(), paths)
    assert {path for path in paths.workspace.rglob("*") if path.is_file()} - before == {paths.lr_find}
    assert paths.lr_find.read_bytes().startswith(b"\x89PNG")
    assert summary.suggestion == min(summary.steepest, summary.decade_below)
    assert summary.setting in summary.describe()
    assert "a decade below its lowest is" in summary.describe()


def test_what_is_suggested_can_be_set(paths: Paths) -> None:
    summary = lr_find.run(settings(), paths)
    found = config.overridden(settings(), [summary.setting]).train.strategy.learning_rate
    assert found == pytest.approx(summary.suggestion, rel=0.05)


@pytest.mark.parametrize(("rate", "text"), [(0.000123, "0.00012"), (2.5e-6, "0.0000025"), (0.5, "0.5"), (1e-7, "0.0000001")])
def test_a_rate_is_spelled_without_an_exponent(rate: float, text: str) -> None:
    assert lr_find.spelled(rate) == text


def test_write_keeps_what_the_rate_was_found_with(paths: Paths) -> None:
    paths.params.write_text(config.render(settings()))
    paths.pipeline.write_text(workspace.pipeline_text())
    command = ["lr-find", "--write", "--set", "train.strategy.name=full", "--workspace", str(paths.workspace)]
    result = CliRunner().invoke(__main__.app, command)
    assert result.exit_code == 0, result.output
    kept = config.load(paths.params).train.strategy
    assert kept.name == "full"
    assert kept.learning_rate is not None


def test_write_keeps_the_suggestion_and_the_comments(paths: Paths) -> None:
    paths.params.write_text(config.render(settings()))
    paths.pipeline.write_text(workspace.pipeline_text())
    result = CliRunner().invoke(__main__.app, ["lr-find", "--write", "--json", "--workspace", str(paths.workspace)])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    value = answer["setting"].partition("=")[2]
    line = next(line for line in paths.params.read_text().splitlines() if line.strip().startswith("learning_rate:"))
    assert value in paths.params.read_text()
    assert "# " in line
    kept = config.load(paths.params).train.strategy
    assert kept.learning_rate == pytest.approx(answer["suggestion"], rel=0.05)
    assert kept.name == answer["strategy"] != settings().train.strategy.name == "recommended"


def test_without_prepared_images_the_stage_before_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="radtransfer"):
        lr_find.run(settings(), Paths(tmp_path))


def test_a_classifier_without_a_rate_is_refused_before_anything_is_computed(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lr_find, "prepare", lambda *_: pytest.fail("computed"))
    with pytest.raises(ConfigurationError, match=r"classifier: expected one that learns in steps, got knn"):
        lr_find.run(settings(strategy={"name": "feature_extraction", "classifier": "knn"}), paths)
