"""Bring new radiographs in and version them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import Task, flow, task
from prefect.client.schemas.objects import State, TaskRun

from pipelines import actions
from pipelines.errors import UsageError, discreet
from pipelines.paths import Paths
from pipelines.stages.ingest import IngestSummary
from pipelines.versioning import DataVersion


def worth_retrying(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a second try may end otherwise: not where the configuration or the usage is wrong."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, UsageError)


@task(name="ingest", task_run_name="ingest", retries=2, retry_delay_seconds=10, retry_condition_fn=worth_retrying)
def ingest_source(workspace: str, source: str | None, labels: str | None) -> IngestSummary:
    with discreet():
        return actions.ingest_source(Paths(Path(workspace)), _path(source), _path(labels))


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


@task(name="version", task_run_name="version", retries=3, retry_delay_seconds=10)
def version(workspace: str, summary: IngestSummary) -> DataVersion:
    with discreet():
        return actions.version(Paths(Path(workspace)), summary)


@flow(name="ingest")
def ingest(workspace: str = ".", source: str | None = None, labels: str | None = None) -> DataVersion:
    """De-identify a source into `data/` and version it; paths default to those of params.yaml."""
    folder = str(Path(workspace).resolve())
    return version(folder, ingest_source(folder, source, labels))
