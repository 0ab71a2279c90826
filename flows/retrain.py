"""The whole job: ingest → version → every stage that changed → register."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.client.schemas.schedules import CronSchedule
from pydantic import SecretStr

from flows.failures import speak_plainly, worth_retrying
from flows.ingest import ingest_source, version
from flows.stage import TASKS
from pipelines import config, versioning, workspace
from pipelines.errors import ConfigurationError, discreet
from pipelines.paths import Paths
from pipelines.stages import register as registration
from pipelines.stages.register import RegisterSummary


@dataclass(frozen=True)
class RetrainSummary:
    """What the flow did.

    Attributes:
        trained: whether any stage ran; False where neither data, parameters nor code had changed.
        passed: whether the registered version passed the gates.
    """

    trained: bool
    passed: bool
    register: RegisterSummary

    def describe(self) -> str:
        unchanged = "neither data, parameters nor code changed since the last run: training was skipped\n"
        return ("" if self.trained else unchanged) + self.register.describe()


@task(name="register", task_run_name="register", retries=2, retry_delay_seconds=10, retry_condition_fn=worth_retrying)
def register(folder: str) -> RegisterSummary:
    with discreet():
        paths = Paths(Path(folder))
        return registration.run(config.load(paths.params), paths)


@flow(name="retrain", flow_run_name="retrain")
def retrain(workspace: str = ".", source: SecretStr | None = None, labels: SecretStr | None = None) -> RetrainSummary:
    """Ingest (where a source is given or configured), version, run the stages that changed, and register the model.

    Source and labels are secrets for the reason that `flows.ingest.ingest` gives.
    """
    speak_plainly()
    with discreet():
        paths = Paths(Path(workspace).resolve())
        settings = config.load(paths.params)
    if source or settings.ingest.has_source:
        version(str(paths.workspace), ingest_source(str(paths.workspace), source, labels))
    trained = _reproduce(paths)
    summary = register(str(paths.workspace))
    _publish(paths, summary)
    return RetrainSummary(trained, summary.passed, summary)


def _reproduce(paths: Paths) -> bool:
    """Run the stages and commit what they record; say whether there was anything to run."""
    workspace.refresh_code(paths)
    if versioning.is_current(paths):
        get_run_logger().info("neither data, parameters nor code changed since the last run: training is skipped")
        return False
    for name, reproduce in TASKS.items():
        reproduce(str(paths.workspace), name)
    versioning.commit(
        paths, [paths.lock, paths.metrics, paths.params, paths.code], "Retrain: record the run's parameters, lock and metrics"
    )
    return True


def _publish(paths: Paths, summary: RegisterSummary) -> None:
    """Show the verdicts in the Prefect UI."""
    quality = json.loads(paths.quality_result.read_text())
    failed = [f"- {item['severity']}: {item['name']}" for item in quality["expectations"] if not item["passed"]]
    verdict = "passed" if quality["passed"] else "failed"
    create_markdown_artifact(
        "\n".join([f"# Data quality: {verdict}", f"{quality['images']} images checked.", "", *failed]), key="quality"
    )
    metrics = json.loads(paths.metrics.read_text())["macro"]
    rows = [{"metric": name, **{key: _rounded(value) for key, value in interval.items()}} for name, interval in metrics.items()]
    create_table_artifact(rows, key="metrics", description="Test part, with patient-level bootstrap 95% intervals")
    create_link_artifact(paths.packet.as_uri(), key="packet", link_text="Review packet")
    create_link_artifact(summary.link, key="mlflow-run", link_text=f"{summary.model} version {summary.version} in MLflow")


def _rounded(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def check_cron(cron: str) -> None:
    """Check a schedule before anything is started for it.

    Raises:
        ConfigurationError: it is not a cron expression.
    """
    try:
        CronSchedule(cron=cron)
    except ValueError as error:
        raise ConfigurationError(f'--cron: expected five fields such as "0 2 * * *", got {cron!r}') from error


def serve(paths: Paths, cron: str) -> None:
    """Serve the retraining deployment on a schedule (UTC), one run at a time, until stopped; stopping pauses the schedule."""
    retrain.serve(
        name="scheduled", cron=cron, parameters={"workspace": str(paths.workspace)}, limit=1, print_starting_message=False
    )
