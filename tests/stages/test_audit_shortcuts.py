"""The shortcut audit as a stage: what it writes, what it says, and what becomes of it in the evaluation and at the gates."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import evaluated_workspace
import numpy as np
import pandas as pd
import pytest
from rich.text import Text

from pipelines import files
from pipelines.config import Config
from pipelines.errors import MissingInputError
from pipelines.paths import Paths
from pipelines.quality.leakage import split_sha256
from pipelines.quality.shortcuts import SHORTCUTS
from pipelines.stages import STAGES, audit_shortcuts, evaluate

Workspace = tuple[Config, Paths]


@pytest.fixture(scope="module", params=evaluated_workspace.TASKS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def workspace(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return evaluated_workspace.make(tmp_path_factory.mktemp(kind), kind)


def result(paths: Paths) -> dict:
    return json.loads(paths.shortcuts.read_text())


def with_border(paths: Paths, outputs: str = "opacity") -> None:
    """Plant a shortcut: the images with the finding get a white frame."""
    labels = pd.read_parquet(paths.labels).set_index("image")[outputs]
    index = pd.read_parquet(paths.index)
    shard = next(paths.prepared.glob("shard-*.npy"))
    arrays = np.load(shard)
    for image, row in zip(index["image"], index["row"], strict=True):
        if row >= 0 and labels.get(image) == 1:
            arrays[row, :3], arrays[row, -3:] = 255, 255
    np.save(shard, arrays)


def test_every_declared_output_is_written(workspace: Workspace) -> None:
    stage = next(stage for stage in STAGES if stage.name == "audit_shortcuts")
    assert stage.command == "audit-shortcuts"
    for path in stage.outs:
        assert (workspace[1].workspace / path).is_file(), path


def test_every_shortcut_is_asked_for_every_output(workspace: Workspace) -> None:
    settings, paths = workspace
    outputs = settings.task.declared().outputs
    found = result(paths)
    assert set(found["shortcuts"]) == set(SHORTCUTS)
    assert found["split_sha256"] == split_sha256(pd.read_parquet(paths.split))
    for shortcut in found["shortcuts"].values():
        assert set(shortcut["outputs"]) == set(outputs)
    scores = pd.read_parquet(paths.shortcut_scores)
    assert set(scores.columns) == {"image", "patient", *(f"{name}/{output}" for name in SHORTCUTS for output in outputs)}
    split = pd.read_parquet(paths.split)
    assert set(scores["image"]) == set(split.loc[split["part"] == "test", "image"])


def test_running_twice_gives_the_same_bytes(workspace: Workspace) -> None:
    settings, paths = workspace
    before = paths.shortcuts.read_bytes(), paths.shortcut_scores.read_bytes()
    audit_shortcuts.run(settings, paths)
    assert (paths.shortcuts.read_bytes(), paths.shortcut_scores.read_bytes()) == before


def test_the_summary_is_plain_and_names_no_patient(workspace: Workspace) -> None:
    settings, paths = workspace
    summary = audit_shortcuts.run(settings, paths)
    text = json.dumps(asdict(summary), allow_nan=False)
    words = Text.from_markup(summary.describe()).plain
    assert "patient1" not in text + words
    assert "no alarm: no shortcut that cannot see findings is known to tell the label" in words
    assert all(shortcut.title in words for shortcut in SHORTCUTS.values())


def test_a_planted_shortcut_is_told_of_by_the_summary_the_metrics_and_the_evaluation(tmp_path: Path) -> None:
    settings, paths = evaluated_workspace.make(tmp_path)
    with_border(paths)
    summary = audit_shortcuts.run(settings, paths)
    assert summary.alarms == {"border": ("opacity",), "surroundings": ("opacity",)}
    words = Text.from_markup(summary.describe()).plain
    assert "alarm (✗): the label can be told without seeing a finding, by border (opacity), surroundings (opacity)" in words
    judged = evaluate.run(settings, paths)
    found = json.loads(paths.metrics.read_text())["shortcuts"]
    assert found == judged.shortcuts
    assert found["alarm"]
    assert found["alarms"] == "border (opacity), surroundings (opacity)"
    assert found["auroc"]["value"] == 1.0
    assert found["gain"]["value"] == pytest.approx(judged.macro["auroc"]["value"] - 1.0)
    assert found["gain"]["high"] < 0
    told = Text.from_markup(judged.describe()).plain.replace("\n", " ")
    assert f"AUROC beyond the best shortcut, {found['best']}: -" in told
    assert "shortcut alarm: border (opacity)" in told


def test_the_best_shortcut_is_that_of_the_test_part(tmp_path: Path) -> None:
    settings, paths = evaluated_workspace.make(tmp_path, "multilabel")
    evaluate.run(settings, paths)
    told, shortcuts = json.loads(paths.metrics.read_text())["shortcuts"], result(paths)["shortcuts"]
    areas = {name: shortcut["macro"]["test"]["value"] for name, shortcut in shortcuts.items()}
    assert areas[told["best"]] == max(areas.values()) == told["auroc"]["value"]
    for output in ("opacity", "effusion"):
        areas = {name: shortcut["outputs"][output]["test"]["value"] for name, shortcut in shortcuts.items()}
        found, model = told["outputs"][output], json.loads(paths.metrics.read_text())["outputs"][output]["auroc"]["value"]
        assert areas[found["best"]] == max(areas.values()) == found["auroc"]["value"]
        assert found["gain"]["value"] == pytest.approx(model - max(areas.values()))
        assert f"{found['gain']['value']:+.3f}".replace("-", "−") in paths.packet.read_text()


def test_an_output_that_nothing_can_be_learned_of_is_null(tmp_path: Path) -> None:
    settings, paths = evaluated_workspace.make(tmp_path)
    labels = pd.read_parquet(paths.labels)
    files.write_table(paths.labels, labels.assign(opacity=0.0))
    audit_shortcuts.run(settings, paths)
    found = result(paths)
    assert not found["alarm"]
    for shortcut in found["shortcuts"].values():
        assert shortcut["macro"]["everyone"] == shortcut["macro"]["test"] == {"value": None, "low": None, "high": None}
    evaluate.run(settings, paths)
    told = json.loads(paths.metrics.read_text())["shortcuts"]
    assert (told["best"], told["gain"]["value"]) == (None, None)
    assert "too few patients with, or without, a finding for a shortcut to learn from" in paths.packet.read_text()


def test_an_evaluation_without_an_audit_or_with_one_of_another_split_or_task_is_refused(tmp_path: Path) -> None:
    settings, paths = evaluated_workspace.make(tmp_path)
    found = result(paths)
    other = {
        name: {**shortcut, "outputs": {"mass": shortcut["outputs"]["opacity"]}} for name, shortcut in found["shortcuts"].items()
    }
    files.write_json(paths.shortcuts, {**found, "shortcuts": other})
    with pytest.raises(MissingInputError, match=r"audit of opacity, got that of mass; run `radtransfer audit-shortcuts`"):
        evaluate.run(settings, paths)
    files.write_json(paths.shortcuts, {**found, "split_sha256": "0" * 64})
    with pytest.raises(MissingInputError, match=r"audit of split .*, got that of 0{12}; run `radtransfer audit-shortcuts`"):
        evaluate.run(settings, paths)
    paths.shortcuts.unlink()
    with pytest.raises(MissingInputError, match=r"shortcuts.json: expected what `radtransfer audit-shortcuts` writes"):
        evaluate.run(settings, paths)
