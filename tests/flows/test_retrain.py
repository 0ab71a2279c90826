from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from pydantic import SecretStr

from flows import ingest as ingesting
from flows import retrain as retraining
from flows.stage import TASKS
from pipelines import actions, versioning
from pipelines.errors import LabelError, ServiceError, SourceError
from pipelines.paths import Paths
from pipelines.stages import STAGES
from pipelines.stages import register as registration
from pipelines.stages.register import RegisterSummary
from pipelines.versioning import DataVersion

ORDER = [stage.name for stage in STAGES]


def registered(*, passed: bool) -> RegisterSummary:
    return RegisterSummary(
        model="chest-opacity",
        version="3",
        run_id="r",
        passed=passed,
        reasons=() if passed else ("AUROC too low",),
        status="pending" if passed else "rejected",
        aliases=("challenger",) if passed else (),
        already=False,
        tracking_uri="sqlite",
        link="http://127.0.0.1:5000/#/models/chest-opacity/versions/3",
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The effects of the flow in order, with the work behind them replaced."""
    done: list[str] = []

    def record(name: str, result: Any = None) -> Callable[..., Any]:
        def call(*_: Any, **__: Any) -> Any:
            done.append(name)
            return result

        return call

    monkeypatch.setattr(actions, "ingest_source", record("ingest", "summary"))
    monkeypatch.setattr(actions, "version", record("version", DataVersion("d", "c", True, False)))
    monkeypatch.setattr(versioning, "is_current", lambda paths: False)
    monkeypatch.setattr(versioning, "reproduce", lambda paths, stage: done.append(stage))
    monkeypatch.setattr(versioning, "commit", record("commit"))
    monkeypatch.setattr(registration, "run", record("register", registered(passed=True)))
    return done


def test_there_is_one_task_for_each_stage_of_dvc_yaml() -> None:
    assert list(TASKS) == ORDER
    assert [task.name for task in TASKS.values()] == ORDER


def test_the_whole_job_runs_in_order(paths: Paths, calls: list[str], tmp_path: Path) -> None:
    summary = retraining.retrain(str(paths.workspace), SecretStr(str(tmp_path)), SecretStr(str(tmp_path / "labels.csv")))
    assert calls == ["ingest", "version", *ORDER, "commit", "register"]
    assert summary.trained
    assert summary.passed


def test_prefect_does_not_record_where_the_radiographs_came_from(paths: Paths, calls: list[str], tmp_path: Path) -> None:
    retraining.retrain(str(paths.workspace), SecretStr(str(tmp_path / "DOE^JANE")), SecretStr(str(tmp_path / "doe.csv")))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs()
    recorded = [run.parameters for run in runs if run.parameters.get("workspace") == str(paths.workspace)]
    assert recorded == [{"workspace": str(paths.workspace), "source": "**********", "labels": "**********"}]


def test_without_a_source_nothing_is_ingested(paths: Paths, calls: list[str]) -> None:
    retraining.retrain(str(paths.workspace))
    assert calls == [*ORDER, "commit", "register"]


def test_training_is_skipped_and_said_so_when_nothing_changed(
    paths: Paths, calls: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(versioning, "is_current", lambda paths: True)
    with caplog.at_level("INFO", logger="prefect.flow_runs"):
        summary = retraining.retrain(str(paths.workspace))
    assert calls == ["register"]
    assert not summary.trained
    assert "training was skipped" in summary.describe()
    assert "training is skipped" in caplog.text


def test_a_failing_stage_stops_the_flow_and_is_not_retried(
    paths: Paths, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(paths: Paths, stage: str) -> None:
        calls.append(stage)
        if stage == "check":
            raise ServiceError("stage check failed")

    monkeypatch.setattr(versioning, "reproduce", fail)
    with pytest.raises(ServiceError, match="stage check failed"):
        retraining.retrain(str(paths.workspace))
    assert calls == ["prepare", "check"]


def test_no_traceback_buries_the_message_of_a_failure(
    paths: Paths, calls: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(paths: Paths, stage: str) -> None:
        raise ServiceError("stage prepare failed")

    monkeypatch.setattr(versioning, "reproduce", fail)
    with pytest.raises(ServiceError):
        retraining.retrain(str(paths.workspace))
    assert "stage prepare failed" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_version_that_fails_a_gate_is_not_passed(paths: Paths, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "run", lambda config, paths: registered(passed=False))
    assert not retraining.retrain(str(paths.workspace)).passed


def test_the_verdicts_are_shown_in_prefect(paths: Paths, calls: list[str]) -> None:
    from prefect.artifacts import Artifact

    retraining.retrain(str(paths.workspace))
    shown = {key: Artifact.get(key) for key in ("quality", "metrics", "packet", "mlflow-run")}
    assert all(shown.values())
    assert "warning: few views" in str(shown["quality"].data)  # type: ignore[union-attr]
    assert "0.900" in str(shown["metrics"].data)  # type: ignore[union-attr]
    assert "packet.html" in str(shown["packet"].data)  # type: ignore[union-attr]
    assert "version 3" in str(shown["mlflow-run"].data)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("error", "tries"), [(ServiceError("PACS away"), 3), (SourceError("no such folder"), 1), (LabelError("neither 0 nor 1"), 1)]
)
def test_ingest_is_retried_where_that_can_help(
    error: Exception, tries: int, paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[int] = []

    def fail(*_: Any) -> None:
        seen.append(1)
        raise error

    monkeypatch.setattr(actions, "ingest_source", fail)
    monkeypatch.setattr(ingesting.ingest_source, "retry_delay_seconds", 0)
    with pytest.raises(type(error), match=str(error)):
        ingesting.ingest(str(paths.workspace), SecretStr(str(tmp_path)))
    assert len(seen) == tries


def test_the_text_of_an_unforeseen_error_reaches_no_log(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def quote(*_: Any) -> None:
        raise ValueError("cannot parse DOE^JANE")

    monkeypatch.setattr(actions, "ingest_source", quote)
    monkeypatch.setattr(ingesting.ingest_source, "retries", 0)
    with pytest.raises(Exception, match="its text is withheld"):
        ingesting.ingest(str(paths.workspace), SecretStr(str(tmp_path)))
    assert "DOE" not in caplog.text
