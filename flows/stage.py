"""The one task for a stage: DVC decides whether it has to run, Prefect shows that it did."""

from __future__ import annotations

from pathlib import Path

from prefect import Task, task

from pipelines import versioning
from pipelines.paths import Paths
from pipelines.stages import STAGES


def _reproduce(workspace: str, stage: str) -> None:
    versioning.reproduce(Paths(Path(workspace)), stage)


# no retries: the same inputs give the same outcome
TASKS: dict[str, Task[[str, str], None]] = {
    stage.name: task(name=stage.name, task_run_name=stage.name)(_reproduce) for stage in STAGES
}
