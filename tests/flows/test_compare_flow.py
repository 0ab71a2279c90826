"""The trainings of a comparison as Prefect tasks, wherever they run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from tiny_workspace import save_tiny, write_workspace

from flows import compare as comparing
from pipelines import config
from pipelines.config import Config
from pipelines.errors import ConfigurationError
from pipelines.metrics import comparison_plots
from pipelines.paths import Paths
from pipelines.stages import compare as comparison
from pipelines.stages.compare import CompareSummary
from pipelines.training import trial as trials

SETTINGS = {
    "task": {"kind": "binary", "targets": ["left"]},
    "train": {"backbone": "resnet10", "weights": "tiny", "epochs": 1, "batch_size": 12, "device": "cpu"},
    "compare": {"strategies": ["feature_extraction", "lora"], "seeds": [1], "bootstrap": 100, "mlflow": False},
}


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A workspace with one way to transfer that can be trained and one that cannot; no pictures, which take seconds."""
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(comparison_plots, "draw", lambda *_: {})
    save_tiny(tmp_path / "weights", seed=4)
    paths = write_workspace(tmp_path / "workspace")
    paths.params.write_text(config.render(Config.model_validate(SETTINGS)))
    return paths


def test_each_training_is_a_task_and_is_done_once(paths: Paths) -> None:
    summary = comparing.compare(str(paths.workspace))
    assert summary.trained == 2
    assert list(summary.failed) == ["resnet10@tiny lora all"]
    with get_client(sync_client=True) as client:
        names = {run.name for run in client.read_task_runs()}
    assert {"resnet10@tiny feature_extraction all seed 1", "resnet10@tiny lora all seed 1"} <= names
    assert comparing.compare(str(paths.workspace), ["compare.bootstrap=200"]).trained == 0


@pytest.mark.parametrize("runner", ["processes", "ray"])
def test_elsewhere_the_same_comes_of_it(runner: str, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = _elsewhere(runner, paths, monkeypatch)
    assert (summary.trained, len(summary.ways), len(summary.failed)) == (2, 1, 1)
    monkeypatch.setattr(trials, "_tried", lambda *_: pytest.fail("it was trained again"))
    assert comparison.run(config.load(paths.params), paths).verdicts == summary.verdicts
    monkeypatch.undo()
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path / "weights"))
    again, loaded = write_workspace(tmp_path / "again"), config.load(paths.params)
    here = comparison.train(loaded, again, comparison.outstanding(loaded, again)[0])
    assert summary.ways[0].aurocs == (pytest.approx(here.auroc),)


def _elsewhere(runner: str, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> CompareSummary:
    settings = [f"compare.runner={runner}", "compare.workers=1"]
    if runner != "ray":
        return comparing.compare(str(paths.workspace), settings)
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    try:
        return comparing.compare(str(paths.workspace), settings)
    finally:
        ray.shutdown()


def test_without_ray_the_way_to_get_it_is_said(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    with pytest.raises(ConfigurationError, match=r"compare.runner: .* not installed; `pip install 'radtransfer\[ray\]'`"):
        comparing.compare(str(paths.workspace), ["compare.runner=ray"])
