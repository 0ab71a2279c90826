"""Bring new radiographs in and version them."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task

from flows.failures import speak_plainly, worth_retrying
from pipelines import actions
from pipelines.errors import discreet
from pipelines.paths import Paths
from pipelines.stages.ingest import IngestSummary
from pipelines.versioning import DataVersion


@task(name="ingest", task_run_name="ingest", retries=2, retry_delay_seconds=10, retry_condition_fn=worth_retrying)
def ingest_source(workspace: str, source: str | None, labels: str | None) -> IngestSummary:
    with discreet():
        return actions.ingest_source(Paths(Path(workspace)), _path(source), _path(labels))


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


@task(name="version", task_run_name="version", retries=3, retry_delay_seconds=10, retry_condition_fn=worth_retrying)
def version(workspace: str, summary: IngestSummary) -> DataVersion:
    with discreet():
        return actions.version(Paths(Path(workspace)), summary)


@flow(name="ingest")
def ingest(workspace: str = ".", source: str | None = None, labels: str | None = None) -> DataVersion:
    """De-identify a source into `data/` and version it; paths default to those of params.yaml."""
    speak_plainly()
    folder = str(Path(workspace).resolve())
    return version(folder, ingest_source(folder, source, labels))
