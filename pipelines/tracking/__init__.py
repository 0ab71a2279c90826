"""MLflow: the run of a registration, model versions, aliases, and the pyfunc that a version is.

Only this package imports it.

A version is models-from-code: a three-line script, this package's sources, `model.safetensors` and `model.json`. Nothing
in it is a pickle, nothing in it names a machine, and loading it needs neither this project installed nor a network.
"""

from __future__ import annotations

import shutil
import tempfile
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
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model as Packaging
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types.schema import AnyType, ColSpec, Schema, TensorSpec

from pipelines import files, tracking_store
from pipelines.errors import ServiceError
from pipelines.paths import Paths
from pipelines.records import CALLED, Task, class_column, probability_column, value_column
from pipelines.tracking.client import BATCH, NEUTRAL, curves_of, experiment_of, now, record, speaking

CHALLENGER = "challenger"
CHAMPION = "champion"
STATUS = "review.status"
REASON = "review.reason."
MODEL_HASH = "model.sha256"

# what loading a version and predicting with it imports
REQUIREMENTS = (
    "einops", "imagecodecs", "monai", "numpy", "opencv-python-headless", "pandas", "pillow", "pydantic", "pydicom", "pyyaml",
    "safetensors", "scipy", "timm", "torch", "torchvision",
)  # fmt: skip
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
            `class` (the most probable one) for a multiclass target. Of a task beside the main one called NAME, the same for
            its outputs (a threshold have only binary and multilabel ones), and `class_NAME` or `value_NAME`.
        """
        return self._model.predict([_source(item) for item in _flat(model_input.iloc[:, 0])])


def reachable(paths: Paths) -> str | None:
    """What is wrong with the tracking store, or None where it answers; the local store is not made by asking."""
    if tracking_store.absent(paths):
        return None
    try:
        with speaking(paths) as client:
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
    with speaking(paths) as client:
        found = client.search_model_versions(f"name = '{model}' and {wanted}", max_results=BATCH)
        newest = max(found, key=lambda version: int(version.version), default=None)
        # a search does not tell aliases
        return _version(client.get_model_version(model, newest.version)) if newest else None


def by_alias(paths: Paths, model: str, alias: str) -> Version | None:
    """The version of `model` that carries an alias, or None; errors as for `find`."""
    if tracking_store.absent(paths):
        return None
    with speaking(paths) as client:
        try:
            return _version(client.get_model_version_by_alias(model, alias))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def set_alias(paths: Paths, version: Version, alias: str) -> None:
    """Move an alias of the model to `version`; errors as for `find`."""
    with speaking(paths) as client:
        client.set_registered_model_alias(version.model, alias, version.number)


@contextmanager
def fetched(paths: Paths, version: Version) -> Iterator[Path]:
    """Give a folder with the weights and card of a version, checked against the hash that it was registered with.

    Raises:
        ServiceError: MLflow does not answer, or the weights are not the registered ones.
    """
    with tempfile.TemporaryDirectory(prefix="radtransfer-") as scratch:
        with speaking(paths) as client:
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
    with speaking(paths) as client:
        experiment = experiment_of(client, paths, submission.experiment)
        run = client.create_run(experiment, run_name=f"{submission.model} {submission.tags[MODEL_HASH][:8]}", tags=NEUTRAL)
        try:
            _log(client, run.info.run_id, submission)
            version = _register(client, experiment, run.info.run_id, submission)
        except BaseException:
            client.set_terminated(run.info.run_id, "FAILED")
            raise
        client.set_terminated(run.info.run_id)
    return version


def _log(client: MlflowClient, run: str, submission: Submission) -> None:
    moment = now()
    curves = curves_of(submission.history, submission.task.score_name, moment)
    record(client, run, submission.parameters, submission.metrics, curves, moment)
    for key, value in {**submission.tags, "mlflow.note.content": submission.description}.items():
        client.set_tag(run, key, value)
    client.log_artifacts(run, str(submission.attachments))


def _register(client: MlflowClient, experiment: str, run: str, submission: Submission) -> Version:
    logged = client.create_logged_model(
        experiment, name=submission.model, source_run_id=run, tags={**NEUTRAL, **submission.tags}, model_type="radiographs"
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
    shutil.copytree(Path(__file__).parents[1], code, ignore=shutil.ignore_patterns(*_NOT_PACKAGED))
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
    for head in task.heads:
        for output in head.outputs:
            answers.append(ColSpec("double", probability_column(output), required=False))
            if head is task or head.kind in CALLED:
                answers.append(ColSpec("boolean", f"positive_{output}", required=False))
        if head.classes:
            answers.append(ColSpec("string", class_column(head.name), required=False))
        if head.kind == "regression":
            answers.append(ColSpec("double", value_column(head.name), required=False))
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


def _version(version: ModelVersion) -> Version:
    return Version(version.name, str(version.version), version.run_id or "", dict(version.tags), tuple(version.aliases))
