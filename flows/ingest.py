"""Bring new radiographs in and version them."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task
from pydantic import SecretStr

from flows.failures import speak_plainly, worth_retrying
from pipelines import actions
from pipelines.errors import discreet
from pipelines.ingest_summary import IngestSummary
from pipelines.paths import Paths
from pipelines.versioning import DataVersion


@task(name="ingest", task_run_name="ingest", retries=2, retry_delay_seconds=10, retry_condition_fn=worth_retrying)
def ingest_source(workspace: str, source: SecretStr | None, labels: SecretStr | None) -> IngestSummary:
    with discreet():
        return actions.ingest_source(Paths(Path(workspace)), _path(source), _path(labels))


def _path(text: SecretStr | None) -> Path | None:
    return Path(text.get_secret_value()) if text else None


@task(name="version", task_run_name="version", retries=3, retry_delay_seconds=10, retry_condition_fn=worth_retrying)
def version(workspace: str, summary: IngestSummary) -> DataVersion:
    with discreet():
        return actions.version(Paths(Path(workspace)), summary)


@flow(name="ingest")
def ingest(workspace: str = ".", source: SecretStr | None = None, labels: SecretStr | None = None) -> DataVersion:
    """De-identify a source into `data/` and version it; paths default to those of params.yaml.

    Prefect keeps the parameters of a run: source and labels are secrets, since folders are named after patients.
    """
    speak_plainly()
    folder = str(Path(workspace).resolve())
    return version(folder, ingest_source(folder, source, labels))
