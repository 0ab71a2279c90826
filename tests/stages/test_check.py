from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from made_tables import made_cohort

from pipelines import files
from pipelines.config import Config, TaskSection
from pipelines.errors import ConfigurationError, MissingInputError, QualityError
from pipelines.paths import Paths
from pipelines.stages import check

CONFIG = Config(task=TaskSection(targets=("pneumonia",)))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    index, labels = made_cohort()
    return stored(tmp_path, index, labels)


def stored(folder: Path, index: pd.DataFrame, labels: pd.DataFrame) -> Paths:
    paths = Paths(folder)
    files.write_table(paths.index, index)
    files.write_table(paths.labels, labels)
    return paths


def test_good_data_pass_and_leave_a_result_and_data_docs(paths: Paths) -> None:
    summary = check.run(CONFIG, paths)
    result = json.loads(paths.quality_result.read_text())
    assert summary.passed
    assert summary.warnings == ()
    assert (summary.images, summary.prepared, summary.usable, summary.patients) == (60, 60, 60, 40)
    assert result["passed"]
    assert len(result["expectations"]) == summary.expectations
    assert result["classes"] == {
        "pneumonia": {"images_with": 18, "images_without": 42, "patients_with": 12, "patients_without": 28}
    }
    assert paths.workspace / summary.docs == paths.data_docs
    assert "Passed." in paths.data_docs.read_text()
    assert "passed" in summary.describe()


def test_a_failed_error_stops_and_everything_is_written_first(tmp_path: Path) -> None:
    index, labels = made_cohort()
    index.loc[[3, 5, 7, 9], "age_years"] = 120.0
    paths = stored(tmp_path, index, labels)
    with pytest.raises(
        QualityError,
        match=r"age in range: .* 4 of 60 rows do not fit \(2\.25\.1003, 2\.25\.1005, 2\.25\.1007 and 1 more\)",
    ):
        check.run(CONFIG, paths)
    result = json.loads(paths.quality_result.read_text())
    (failed,) = [item for item in result["expectations"] if not item["passed"]]
    assert not result["passed"]
    assert (result["errors"], result["warnings"]) == (1, 0)
    assert failed["name"] == "age in range"
    assert failed["severity"] == "error"
    assert failed["failing_rows"] == ["2.25.1003", "2.25.1005", "2.25.1007", "2.25.1009"]
    assert "Not passed" in paths.data_docs.read_text()


def test_a_failed_warning_is_recorded_and_does_not_stop(tmp_path: Path) -> None:
    index, labels = made_cohort()
    index.loc[3, "std"] = 0.001
    paths = stored(tmp_path, index, labels)
    summary = check.run(CONFIG, paths)
    result = json.loads(paths.quality_result.read_text())
    assert summary.passed
    assert summary.warnings == ("not blank",)
    assert "not blank" in summary.describe()
    assert result["passed"]
    assert result["warnings"] == 1


def test_checking_twice_gives_the_same_bytes(paths: Paths) -> None:
    check.run(CONFIG, paths)
    first = {path.name: path.read_bytes() for path in paths.quality.rglob("*") if path.is_file()}
    check.run(CONFIG, paths)
    assert {path.name: path.read_bytes() for path in paths.quality.rglob("*") if path.is_file()} == first
    assert set(first) == {"result.json", "index.html"}


def test_nothing_is_written_outside_the_workspace(
    paths: Paths, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for variable in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(elsewhere))
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    monkeypatch.chdir(elsewhere)
    check.run(CONFIG, paths)
    assert list(elsewhere.rglob("*")) == []


def test_a_task_without_targets_is_refused(paths: Paths) -> None:
    with pytest.raises(ConfigurationError, match=r"task\.targets: expected the label columns to learn"):
        check.run(Config(), paths)


def test_check_before_prepare_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="`radtransfer prepare` writes"):
        check.run(CONFIG, Paths(tmp_path))
