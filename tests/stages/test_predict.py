"""Which model answers, and what it says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trained_workspace
from hostile_paths import Deadly, Locked
from mlflow import MlflowClient

from pipelines import tracking_store
from pipelines.config import Config
from pipelines.errors import MissingInputError, SourceError
from pipelines.paths import Paths
from pipelines.stages import predict, register

Workspace = tuple[Config, Paths]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two models registered; the second is the challenger and the one in artifacts/model."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    config, paths = trained_workspace.make(tmp_path_factory.mktemp("predict"))
    register.run(config, paths)
    trained_workspace.write_model(paths.model, seed=2)
    trained_workspace.write_metrics(paths, auroc_low=0.8)
    register.run(config, paths)
    return config, paths


@pytest.fixture
def champion(workspace: Workspace) -> object:
    """Version 1, promoted as a person does it in the MLflow UI."""
    client = MlflowClient(tracking_uri=tracking_store.local_uri(workspace[1]))
    client.set_registered_model_alias("chest-opacity", "champion", "1")
    yield
    client.delete_registered_model_alias("chest-opacity", "champion")


@pytest.fixture
def radiographs(tmp_path: Path) -> Path:
    """A folder with two radiographs (one without an extension, in a folder below), a cut-off one and a text file."""
    folder = tmp_path / "Doe^Jane"
    (folder / "below").mkdir(parents=True)
    (folder / "a.dcm").write_bytes(trained_workspace.radiograph(1))
    (folder / "below" / "IM0001").write_bytes(trained_workspace.radiograph(2))
    (folder / "cut.dcm").write_bytes(trained_workspace.radiograph(3)[:900])
    (folder / "notes.txt").write_text("a note " * 100)
    return folder


def probability(seed: int, folder: Path) -> float:
    """What the network of a seed says of the first radiograph."""
    return float(trained_workspace.write_model(folder, seed).predict([trained_workspace.radiograph(1)])["p_opacity"][0])


@pytest.mark.usefixtures("champion")
def test_the_champion_answers_even_where_a_newer_model_lies_in_the_workspace(
    workspace: Workspace, radiographs: Path, tmp_path: Path
) -> None:
    summary = predict.run(*workspace, [radiographs / "a.dcm"])
    assert summary.answered_by == "chest-opacity version 1 (champion)"
    assert summary.reviewed
    assert summary.predictions[0].probabilities["opacity"] == pytest.approx(probability(1, tmp_path / "one"), abs=1e-6)
    assert probability(1, tmp_path / "one") != pytest.approx(probability(2, tmp_path / "two"), abs=1e-3)


def test_without_a_champion_the_workspaces_model_answers_and_says_that_nobody_reviewed_it(
    workspace: Workspace, radiographs: Path, tmp_path: Path
) -> None:
    summary = predict.run(*workspace, [radiographs / "a.dcm"])
    assert summary.answered_by == "chest-opacity version 2 (challenger: not reviewed; there is no champion)"
    assert not summary.reviewed
    assert summary.predictions[0].probabilities["opacity"] == pytest.approx(probability(2, tmp_path / "two"), abs=1e-6)


def test_a_model_that_is_not_registered_says_so_and_makes_no_store(radiographs: Path, tmp_path: Path) -> None:
    config, paths = trained_workspace.make(tmp_path / "workspace", store=False)
    summary = predict.run(config, paths, [radiographs / "a.dcm"])
    assert summary.answered_by == "artifacts/model (not registered, not reviewed; there is no champion)"
    assert not paths.mlflow.exists()


def test_a_rejected_model_says_so(workspace: Workspace, radiographs: Path) -> None:
    config, paths = workspace
    client = MlflowClient(tracking_uri=tracking_store.local_uri(paths))
    client.set_model_version_tag("chest-opacity", "1", "review.status", "rejected")
    trained_workspace.write_model(paths.model, seed=1)
    try:
        assert "version 1 (review.status rejected; there is no champion)" in predict.run(config, paths, [radiographs]).answered_by
    finally:
        trained_workspace.write_model(paths.model, seed=2)


def test_a_folder_is_searched_and_what_is_not_dicom_is_passed_over_and_counted(workspace: Workspace, radiographs: Path) -> None:
    summary = predict.run(*workspace, [radiographs])
    assert {Path(item.source).name: item.refused for item in summary.predictions} == {
        "a.dcm": None,
        "IM0001": None,
        "cut.dcm": "truncated",
    }
    assert summary.not_dicom == 1
    assert summary.answered
    for item in summary.predictions:
        if item.refused is None:
            assert item.positive["opacity"] == (item.probabilities["opacity"] >= summary.thresholds["opacity"] == 0.4)
    text = summary.describe()
    assert "2 predicted, 1 refused, 1 not DICOM and passed over" in text
    assert "refused: truncated" in text


def test_a_file_that_was_named_is_refused_aloud_whatever_it_is(workspace: Workspace, radiographs: Path) -> None:
    summary = predict.run(*workspace, [radiographs / "notes.txt"])
    assert [item.refused for item in summary.predictions] == ["not_dicom"]
    assert not summary.answered


def test_a_file_that_crashes_its_decoder_or_may_not_be_read_costs_itself_alone(workspace: Workspace, radiographs: Path) -> None:
    good = radiographs / "a.dcm"
    summary = predict.run(*workspace, [good, Deadly(good), Locked(good), good])
    assert [item.refused for item in summary.predictions] == [None, "undecodable_pixels", "unreadable_header", None]
    first, last = (summary.predictions[n].probabilities["opacity"] for n in (0, 3))
    assert first == pytest.approx(last, abs=1e-6)


def test_a_pipe_is_no_source(workspace: Workspace, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="PATH number 1: expected a DICOM file or a folder"):
        predict.run(*workspace, [tmp_path / "pipe"])


def test_markup_in_a_name_is_shown_as_it_is(workspace: Workspace, radiographs: Path) -> None:
    odd = radiographs / "[bold]x.dcm"
    odd.write_bytes(trained_workspace.radiograph(4))
    assert r"\[bold]x.dcm" in predict.run(*workspace, [odd]).describe()


def test_nothing_is_written(workspace: Workspace, radiographs: Path) -> None:
    config, paths = workspace
    before = {path: path.stat().st_mtime_ns for path in paths.workspace.rglob("*") if path.is_file()}
    predict.run(config, paths, [radiographs])
    after = {path: path.stat().st_mtime_ns for path in paths.workspace.rglob("*") if path.is_file()}
    assert after == before


def test_a_source_that_is_not_there_is_named_by_its_position_only(workspace: Workspace, radiographs: Path) -> None:
    with pytest.raises(SourceError, match="PATH number 2: expected a DICOM file or a folder") as caught:
        predict.run(*workspace, [radiographs, radiographs / "Roe^Richard"])
    assert "Roe" not in str(caught.value)


def test_an_empty_folder_is_an_error(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="found empty folders"):
        predict.run(*workspace, [tmp_path])


def test_without_any_model_the_remedy_is_named(radiographs: Path, tmp_path: Path) -> None:
    config, paths = trained_workspace.make(tmp_path / "workspace")
    (paths.model / "model.safetensors").unlink()
    with pytest.raises(MissingInputError, match="found neither; run `radtransfer run`"):
        predict.run(config, paths, [radiographs])
