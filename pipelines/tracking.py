"""MLflow, and the only module that imports it: runs, model versions, aliases, and the pyfunc that a version is.

A version is models-from-code: a three-line script, this package's sources, `model.safetensors` and `model.json`. Nothing
in it is a pickle, nothing in it names a machine, and loading it needs neither this project installed nor a network.
"""

from __future__ import annotations

import csv
import logging
import math
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Metric, Param
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model as Packaging
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.telemetry import set_telemetry_client
from mlflow.types.schema import AnyType, ColSpec, Schema, TensorSpec
from sqlalchemy.exc import SQLAlchemyError

from pipelines import files, tracking_store
from pipelines.errors import ServiceError
from pipelines.paths import Paths
from pipelines.records import Task, probability_column

CHALLENGER = "challenger"
CHAMPION = "champion"
STATUS = "review.status"
REASON = "review.reason."
MODEL_HASH = "model.sha256"

# what loading a version and predicting with it imports
REQUIREMENTS = (
    "imagecodecs", "monai", "numpy", "opencv-python-headless", "pandas", "pillow", "pydantic", "pydicom", "pyyaml", "safetensors",
    "scipy", "torch", "torchvision",
)  # fmt: skip
# the least that a server of any age accepts
LONGEST_PARAMETER = 500
BATCH = 100

# MLflow would otherwise record the user's name and the path of the command
_NEUTRAL = {"mlflow.user": "radtransfer", "mlflow.source.name": "radtransfer", "mlflow.source.type": "JOB"}
# the pages of the UI that suit a trained network
_CLASSIC = {"mlflow.experimentKind": "custom_model_development"}
# loading a version does not need these
_NOT_PACKAGED = ("__pycache__", "dicom", "phantom", "quality", "stages")
_SCRIPT = """\
from mlflow.models import set_model

from pipelines.tracking import RadiographModel

set_model(RadiographModel())
"""


@dataclass(frozen=True)
class Submission:
    """Everything that a registration hands to MLflow.

    Attributes:
        experiment: name of the experiment.
        model: name of the registered model.
        parameters: settings by dotted key.
        history: CSV file with a column `epoch`; every other column becomes a curve.
        metrics: final metrics; None (undefined) is left out.
        attachments: folder whose content becomes the run's artifacts.
        weights: folder of `model.safetensors` and `model.json`.
        task: what the network says.
        tags: of the run and of the version.
        description: Markdown shown with the version.
    """

    experiment: str
    model: str
    parameters: Mapping[str, Any]
    history: Path
    metrics: Mapping[str, float | None]
    attachments: Path
    weights: Path
    task: Task
    tags: Mapping[str, str]
    description: str


@dataclass(frozen=True)
class Version:
    """A registered model version, and what the review of it has come to."""

    model: str
    number: str
    run: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]

    @property
    def status(self) -> str:
        return self.tags.get(STATUS, "unknown")

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the gates rejected it, in order; empty for one that passed."""
        numbered = sorted((int(key.removeprefix(REASON)), value) for key, value in self.tags.items() if key.startswith(REASON))
        return tuple(reason for _, reason in numbered)


class RadiographModel(PythonModel):
    """The pyfunc of a version: DICOM files in, a table of probabilities out."""

    def load_context(self, context: Any) -> None:
        from pipelines.inference import Model

        self._model = Model.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predict for DICOM files.

        Args:
            context: MLflow's; not used.
            model_input: paths (text), or the files' bytes, mixed at will, in the first column; MLflow also takes one of them, a
                list or an array, and makes them this table.
            params: not used.

        Returns:
            Data frame, one row per file in the order given: `source` (position), `left_out` (why a file was refused, or
            None), for each output NAME `p_NAME` (probability) and `positive_NAME` (whether it reaches the threshold), and
            `class` (the most probable one) for a multiclass target.
        """
        return self._model.predict([_source(item) for item in _flat(model_input.iloc[:, 0])])


def reachable(paths: Paths) -> str | None:
    """What is wrong with the tracking store, or None where it answers; the local store is not made by asking."""
    if tracking_store.absent(paths):
        return None
    try:
        with _speaking(paths) as client:
            client.search_experiments(max_results=1)
    except ServiceError as error:
        return str(error)
    return None


def find(paths: Paths, model: str, tags: Mapping[str, str]) -> Version | None:
    """The newest version of `model` that carries all of `tags`, or None; makes no store where there is none.

    Raises:
        ServiceError: MLflow does not answer, or refuses.
    """
    if tracking_store.absent(paths):
        return None
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    with _speaking(paths) as client:
        found = client.search_model_versions(f"name = '{model}' and {wanted}", max_results=BATCH)
        newest = max(found, key=lambda version: int(version.version), default=None)
        # a search does not tell aliases
        return _version(client.get_model_version(model, newest.version)) if newest else None


def by_alias(paths: Paths, model: str, alias: str) -> Version | None:
    """The version of `model` that carries an alias, or None; errors as for `find`."""
    if tracking_store.absent(paths):
        return None
    with _speaking(paths) as client:
        try:
            return _version(client.get_model_version_by_alias(model, alias))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def set_alias(paths: Paths, version: Version, alias: str) -> None:
    """Move an alias of the model to `version`; errors as for `find`."""
    with _speaking(paths) as client:
        client.set_registered_model_alias(version.model, alias, version.number)


@contextmanager
def fetched(paths: Paths, version: Version) -> Iterator[Path]:
    """Give a folder with the weights and card of a version, checked against the hash that it was registered with.

    Raises:
        ServiceError: MLflow does not answer, or the weights are not the registered ones.
    """
    with tempfile.TemporaryDirectory(prefix="radtransfer-") as scratch:
        with _speaking(paths) as client:
            where = client.get_model_version_download_uri(version.model, version.number)
            uri = tracking_store.tracking_uri(paths)
            mlflow.artifacts.download_artifacts(f"{where}/artifacts/model", dst_path=scratch, tracking_uri=uri)
        folder = Path(scratch) / "model"
        expected, actual = version.tags.get(MODEL_HASH), files.sha256(folder / "model.safetensors")
        if actual != expected:
            raise ServiceError(f"{version.model} version {version.number}: expected weights {expected}, MLflow holds {actual}")
        yield folder


def submit(paths: Paths, submission: Submission) -> Version:
    """Log a run and register its model as a new version; a run that cannot be finished is marked as failed.

    Raises:
        ServiceError: MLflow does not answer, or refuses.
    """
    paths.mlflow.mkdir(parents=True, exist_ok=True)
    with _speaking(paths) as client:
        experiment = _experiment(client, paths, submission.experiment)
        run = client.create_run(experiment, run_name=f"{submission.model} {submission.tags[MODEL_HASH][:8]}", tags=_NEUTRAL)
        try:
            _log(client, run.info.run_id, submission)
            version = _register(client, experiment, run.info.run_id, submission)
        except BaseException:
            client.set_terminated(run.info.run_id, "FAILED")
            raise
        client.set_terminated(run.info.run_id)
    return version


def _log(client: MlflowClient, run: str, submission: Submission) -> None:
    parameters = [Param(key, _shortened(value)) for key, value in submission.parameters.items()]
    for start in range(0, len(parameters), BATCH):
        client.log_batch(run, params=parameters[start : start + BATCH])
    now = int(time.time() * 1000)
    final = [Metric(_name(key), value, now, 0) for key, value in submission.metrics.items() if value is not None]
    points = [*_curves(submission.history, now), *final]
    for start in range(0, len(points), BATCH):
        client.log_batch(run, metrics=points[start : start + BATCH])
    for key, value in {**submission.tags, "mlflow.note.content": submission.description}.items():
        client.set_tag(run, key, value)
    client.log_artifacts(run, str(submission.attachments))


def _register(client: MlflowClient, experiment: str, run: str, submission: Submission) -> Version:
    logged = client.create_logged_model(
        experiment, name=submission.model, source_run_id=run, tags={**_NEUTRAL, **submission.tags}, model_type="radiographs"
    )
    with tempfile.TemporaryDirectory(prefix="radtransfer-") as scratch:
        package = _package(Path(scratch), submission, Packaging(run_id=run, model_id=logged.model_id, model_uuid=logged.model_id))
        client.log_model_artifacts(logged.model_id, str(package))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run, [LoggedModelOutput(logged.model_id, 0)])
    try:
        client.create_registered_model(submission.model, description=_REGISTERED)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return _version(
        client.create_model_version(
            submission.model,
            source=logged.model_uri,
            run_id=run,
            model_id=logged.model_id,
            tags=dict(submission.tags),
            description=submission.description,
        )
    )


_REGISTERED = (
    f"Radiograph classifier. A version that passes the gates gets the alias `{CHALLENGER}`. After reviewing its packet (an "
    f"artifact of the run), a person promotes it by setting the alias `{CHAMPION}` here; `radtransfer predict` then uses it. "
    "Not a medical device."
)


def _package(scratch: Path, submission: Submission, packaging: Packaging) -> Path:
    """Write a version's folder in `scratch`."""
    script, weights, code, package = (scratch / name for name in ("radiograph_model.py", "model", "pipelines", "package"))
    script.write_text(_SCRIPT)
    weights.mkdir()
    for name in ("model.safetensors", "model.json"):
        shutil.copyfile(submission.weights / name, weights / name)
    shutil.copytree(Path(__file__).parent, code, ignore=shutil.ignore_patterns(*_NOT_PACKAGED))
    with warnings.catch_warnings():
        # MLflow wants an input example, which would be a radiograph
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            str(package),
            python_model=str(script),
            artifacts={"model": str(weights)},
            code_paths=[str(code)],
            pip_requirements=requirements(),
            signature=_signature(submission.task),
            mlflow_model=packaging,
        )
    flavor = packaging.flavors["python_function"]
    flavor["model_code_path"] = script.name
    flavor["artifacts"]["model"]["uri"] = "artifacts/model"
    packaging.save(str(package / "MLmodel"))
    return package


def requirements() -> list[str]:
    """Pins of what a version needs, as installed here; a build's local suffix (+cpu) is left to the installer."""
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS]


def _signature(task: Task) -> ModelSignature:
    """One unnamed column of anything: a named or typed one would refuse a plain path, bytes, or a list of both."""
    asked: list[ColSpec | TensorSpec] = [ColSpec(AnyType())]  # type: ignore[no-untyped-call]
    answers: list[ColSpec | TensorSpec] = [ColSpec("long", "source"), ColSpec("string", "left_out", required=False)]
    for output in task.outputs:
        answers.append(ColSpec("double", probability_column(output), required=False))
        answers.append(ColSpec("boolean", f"positive_{output}", required=False))
    if task.kind == "multiclass":
        answers.append(ColSpec("string", "class", required=False))
    return ModelSignature(inputs=Schema(asked), outputs=Schema(answers))


def _flat(items: Iterable[Any]) -> Iterator[Any]:
    """The single files of a column; MLflow leaves a list in one cell where it was given `{"dicom": [...]}`."""
    for item in items:
        if isinstance(item, (list, tuple)):
            yield from _flat(item)
        else:
            yield item


def _source(item: Any) -> Path | bytes:
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item)
    if isinstance(item, (str, Path)):
        return Path(item)
    raise TypeError(f"expected paths or bytes of DICOM files, got {type(item).__name__}")


def _experiment(client: MlflowClient, paths: Paths, name: str) -> str:
    known = client.get_experiment_by_name(name)
    if known is None:
        local = tracking_store.tracking_uri(paths) == tracking_store.local_uri(paths)
        made: str = client.create_experiment(name, tracking_store.artifacts(paths) if local else None, tags=_CLASSIC)
        return made
    if known.lifecycle_stage != "active":
        raise ServiceError(f"MLflow experiment {name!r} was deleted; restore it there, or name another (register.experiment)")
    identifier: str = known.experiment_id
    return identifier


def _curves(history: Path, now: int) -> Iterator[Metric]:
    """A metric point for each number in the table of epochs; cells that are empty or NaN have none."""
    with history.open(newline="") as stream:
        for row in csv.DictReader(stream):
            step = int(row.pop("epoch"))
            for name, text in row.items():
                if text and math.isfinite(float(text)):
                    yield Metric(_name(name), float(text), now, step)


def _version(version: ModelVersion) -> Version:
    return Version(version.name, str(version.version), version.run_id or "", dict(version.tags), tuple(version.aliases))


def _name(key: str) -> str:
    """A metric's name in the characters that MLflow takes."""
    return re.sub(r"[^\w./ :-]", "_", key)


def _shortened(value: Any) -> str:
    text = str(value)
    more = f"… ({len(text)} characters; the whole is in params.yaml)"
    return text if len(text) <= LONGEST_PARAMETER else text[: LONGEST_PARAMETER - len(more)] + more


def _plain(error: Exception) -> str:
    """The first line of an error without credentials."""
    return tracking_store.without_credentials(str(error).strip().split("\n")[0])[:300] or type(error).__name__


@contextmanager
def _speaking(paths: Paths) -> Iterator[MlflowClient]:
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
        raise ServiceError(f"MLflow at {tracking_store.public_uri(paths)}: {_plain(error)}") from error
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        logger.setLevel(level)
