"""How this package speaks to MLflow: quietly, without telemetry, within the limits of every server, and with its own errors."""

from __future__ import annotations

import csv
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.telemetry import set_telemetry_client
from sqlalchemy.exc import SQLAlchemyError

from pipelines import tracking_store
from pipelines.errors import ServiceError
from pipelines.paths import Paths

# the least that a server of any age accepts
LONGEST_PARAMETER = 500
BATCH = 100

# MLflow would otherwise record the user's name and the path of the command
NEUTRAL = {"mlflow.user": "radtransfer", "mlflow.source.name": "radtransfer", "mlflow.source.type": "JOB"}
# the pages of the UI that suit a trained network
CLASSIC = {"mlflow.experimentKind": "custom_model_development"}


def record(
    client: MlflowClient,
    run: str,
    parameters: Mapping[str, Any],
    metrics: Mapping[str, float | None],
    curves: Iterator[Metric],
    moment: int,
) -> None:
    """Log parameters, curves and final metrics; a metric that is None (undefined) is left out.

    MLflow keeps one of two points that are alike, `moment` and all, so that a log that was cut short may be written again.
    """
    said = [Param(key, shortened(value)) for key, value in parameters.items()]
    for start in range(0, len(said), BATCH):
        client.log_batch(run, params=said[start : start + BATCH])
    final = [Metric(metric_name(key), value, moment, 0) for key, value in metrics.items() if value is not None]
    points = [*curves, *final]
    for start in range(0, len(points), BATCH):
        client.log_batch(run, metrics=points[start : start + BATCH])


def now() -> int:
    """Milliseconds, as MLflow counts time."""
    return int(time.time() * 1000)


def experiment_of(client: MlflowClient, paths: Paths, name: str) -> str:
    known = client.get_experiment_by_name(name)
    if known is None:
        local = tracking_store.tracking_uri(paths) == tracking_store.local_uri(paths)
        made: str = client.create_experiment(name, tracking_store.artifacts(paths) if local else None, tags=CLASSIC)
        return made
    if known.lifecycle_stage != "active":
        raise ServiceError(f"MLflow experiment {name!r} was deleted; restore it there, or name another (register.experiment)")
    identifier: str = known.experiment_id
    return identifier


def curves_of(history: Path, score: str, moment: int) -> Iterator[Metric]:
    """A metric point for each number in the table of epochs; cells that are empty or NaN have none.

    Args:
        history: a CSV file with a column `epoch`.
        score: what its column `validation_auroc` holds (`records.Task.score_name`).
        moment: of every point.
    """
    with history.open(newline="") as stream:
        for row in csv.DictReader(stream):
            step = int(row.pop("epoch"))
            for name, text in row.items():
                if text and math.isfinite(float(text)):
                    title = score if name == "validation_auroc" else name
                    yield Metric(metric_name(title), float(text), moment, step)


def metric_name(key: str) -> str:
    """A metric's name in the characters that MLflow takes."""
    return re.sub(r"[^\w./ :-]", "_", key)


def shortened(value: Any) -> str:
    text = str(value)
    more = f"… ({len(text)} characters; the whole is in params.yaml)"
    return text if len(text) <= LONGEST_PARAMETER else text[: LONGEST_PARAMETER - len(more)] + more


def plain(error: Exception) -> str:
    """The first line of an error without credentials."""
    return tracking_store.without_credentials(str(error).strip().split("\n")[0])[:300] or type(error).__name__


@contextmanager
def speaking(paths: Paths) -> Iterator[MlflowClient]:
    """A client of the store, quiet and without telemetry; parts of MLflow read the address from the process only.

    Raises:
        ServiceError: in the place of any error of MLflow's.
    """
    settings = {
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # it prints the address with its credentials
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        # by default a server that is down is asked for minutes
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
    }
    uri, before = tracking_store.tracking_uri(paths), {name: os.environ.get(name) for name in (*settings, "MLFLOW_TRACKING_URI")}
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    os.environ.update(settings)
    # lets go of the client that importing MLflow has made, unless the environment forbade it
    set_telemetry_client()  # type: ignore[no-untyped-call]
    mlflow.set_tracking_uri(uri)
    try:
        yield MlflowClient(tracking_uri=uri)
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        raise ServiceError(f"MLflow at {tracking_store.public_uri(paths)}: {plain(error)}") from error
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        logger.setLevel(level)
