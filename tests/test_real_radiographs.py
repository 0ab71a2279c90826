"""The whole job on real chest radiographs with real ImageNet weights, stage by stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import actions, config, files, workspace
from pipelines.config import Config
from pipelines.paths import Paths
from pipelines.stages import check, evaluate, ingest, predict, prepare, register, split, train

pytestmark = pytest.mark.real

SETTINGS = (
    "prepare.size=128",
    "train.backbone=mobilenet_v2",
    "train.weights=imagenet",
    "train.epochs=2",
    "train.batch_size=32",
    "check.max_left_out=0.2",
    "evaluate.bootstrap=300",
    "evaluate.worst=2",
)


@pytest.fixture(scope="module")
def hospital(shared: Path) -> Path:
    return shared / "data" / "paediatric_cxr"


@pytest.fixture(scope="module")
def prepared(hospital: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A workspace in which everything up to the split has run."""
    home = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADTRANSFER_PSEUDONYM_KEY", "a-key-for-tests-only-0123456789abcdef")
        patch.setenv("RADTRANSFER_QUARANTINE", str(home / "quarantine"))
        paths = Paths(home / "ws")
        workspace.create(paths)
        workspace.set_params(paths, SETTINGS)
        actions.ingest_source(paths, hospital, hospital / "labels.csv")
    for stage in (prepare, check, split):
        stage.run(config.load(paths.params), paths)
    return paths


def settings(paths: Paths, *overrides: str) -> Config:
    return config.load(paths.params, overrides)


def test_every_file_is_accounted_for(prepared: Paths) -> None:
    flow = files.read_json(prepared.flow, made_by="ingest")
    assert flow["found"] == 800
    assert flow["set_aside"] == {"burned_in_annotation": 23}
    assert flow["images"] == 777
    index = files.read_table(prepared.index, made_by="prepare")
    assert len(index) == flow["images"]
    assert index["left_out"].isna().all()


def test_the_only_binary_column_was_declared(prepared: Paths) -> None:
    task = settings(prepared).task
    assert (task.kind, task.targets) == ("binary", ("pneumonia",))


@pytest.mark.parametrize("strategy", ["feature_extraction", "differential"])
def test_transfer_from_imagenet_ends_in_a_registered_model(
    strategy: str, prepared: Paths, shared: Path, hospital: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(shared / "weights"))
    chosen = settings(prepared, f"train.strategy.name={strategy}")
    trained = train.run(chosen, prepared)
    assert trained.weights == "mobilenet_v2-imagenet1k"
    summary = evaluate.run(chosen, prepared)
    auroc = summary.macro["auroc"]
    assert auroc["low"] is not None
    assert auroc["low"] > 0.85
    assert auroc["low"] < auroc["value"] <= auroc["high"] <= 1
    version = register.run(chosen, prepared)
    assert version.passed, version.reasons
    assert version.aliases == ("challenger",)
    assert not version.already
    answer = predict.run(chosen, prepared, sorted((hospital / "dicom").rglob("*.dcm"))[:3])
    assert len(answer.predictions) == 3


def test_nothing_new_comes_in_twice(prepared: Paths, hospital: Path, monkeypatch: pytest.MonkeyPatch, pseudonym_key: str) -> None:
    monkeypatch.setenv("RADTRANSFER_QUARANTINE", str(prepared.workspace.parent / "quarantine"))
    before = {path: path.stat().st_mtime_ns for path in prepared.dicom.rglob("*.dcm")}
    summary = ingest.run(settings(prepared), prepared, hospital, hospital / "labels.csv")
    assert summary.new == 0
    assert summary.already == len(before)
    assert {path: path.stat().st_mtime_ns for path in prepared.dicom.rglob("*.dcm")} == before
