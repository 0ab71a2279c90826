"""A workspace as it is after `evaluate`, with a real but tiny network, made in a second instead of trained."""

from __future__ import annotations

import hashlib
import json
import tempfile
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow import MlflowClient
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from pipelines import config, files, versioning
from pipelines.config import Config, Policy
from pipelines.imaging.radiograph import Recipe
from pipelines.inference import Model, ModelCard
from pipelines.models import backbones
from pipelines.models.passports import LoadReport, Passport
from pipelines.models.provenance import Normalisation
from pipelines.paths import Paths
from pipelines.quality.leakage import split_sha256
from pipelines.records import PARTS, Task

SOURCE = "/hospital/Secret^Patient"
HALF = (0.5, 0.5, 0.5)
SETTINGS = {
    "task": {"targets": ["opacity"]},
    "prepare": {"size": 32},
    "train": {"backbone": "resnet10", "device": "cpu"},
    "ingest": {"source": SOURCE, "labels": f"{SOURCE}.csv"},
    "register": {"model": "chest-opacity"},
}
PASSPORT = Passport(
    name="phantom-shapes",
    backbone="resnet10",
    source="phantom",
    architecture="radtransfer resnet10",
    file="phantom-shapes.safetensors",
    sha256="c" * 64,
    licence="Apache-2.0",
    key_map="radtransfer",
    trained_on="synthetic shapes",
    mean=HALF,
    std=HALF,
    input_size=32,
    reduction=8,
    golden=(),
    notes="no real image was seen",
)


def make(
    folder: Path, *, auroc_low: float | None = 0.8, policy: Policy | None = None, store: bool = True
) -> tuple[Config, Paths]:
    """Everything that `register` and `predict` read; with `store` also an empty MLflow database, which takes MLflow 3 s."""
    settings, paths = config.validate(Config, SETTINGS, "tests"), Paths(folder)
    versioning.call(_made(paths.workspace), "git", "init", "--quiet")
    write(paths.params, config.render(settings))
    write(paths.policy, config.render(policy or Policy()))
    write(paths.lock, "schema: '2.0'\n")
    write(paths.data_dvc, "outs:\n- md5: 1234567890abcdef.dir\n  path: data\n")
    versioning.commit(paths, [paths.params, paths.policy, paths.data_dvc], "Make a workspace")
    write_model(paths.model)
    write(paths.model / "history.csv", "epoch,train_loss,validation_loss,validation_auroc\n1,0.7,0.6,0.75\n2,0.5,,0.85\n")
    write_metrics(paths, auroc_low)
    write(paths.shortcuts, json.dumps({"alarm": True}))
    write(paths.packet, "<html>the packet</html>")
    write(paths.evaluation / "figures" / "roc.svg", "<svg/>")
    write(paths.data_docs, "<html>the Data Docs</html>")
    write(paths.quality_result, json.dumps({"passed": True, "images": 40, "expectations": []}))
    write_split(paths)
    if store:
        _made(paths.mlflow)
        (paths.mlflow / "mlflow.db").write_bytes(_empty_store())
    return settings, paths


@cache
def _empty_store() -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        database = Path(scratch) / "mlflow.db"
        MlflowClient(tracking_uri=f"sqlite:///{database}").search_registered_models()
        return database.read_bytes()


def write(path: Path, text: str) -> None:
    _made(path.parent)
    path.write_text(text)


def write_model(folder: Path, seed: int = 1) -> Model:
    torch.manual_seed(seed)
    normalisation = Normalisation(HALF, (0.25, 0.25, 0.25))
    network = backbones.build("resnet10", outputs=1, dropout=0.2, normalisation=normalisation)
    card = ModelCard(
        backbone="resnet10",
        task=Task("binary", ("opacity",)),
        dropout=0.2,
        normalisation=normalisation,
        recipe=Recipe(32, "uint8", (0.5, 99.5)),
        strategy={"name": "differential"},
        passport=PASSPORT,
        weights=LoadReport(60, (), (), "d" * 64),
        seed=seed,
        thresholds={"opacity": 0.4},
        training={"split_sha256": split_sha256(_split())},
    )
    return Model(card, network.eval(), torch.device("cpu")).write(folder)


def write_metrics(paths: Paths, auroc_low: float | None) -> None:
    def interval(value: float | None, low: float | None = 0.1) -> dict[str, float | None]:
        return {"value": value, "low": low, "high": 0.95}

    metrics = {
        "auroc": interval(0.9, auroc_low),
        "ece": interval(0.05),
        "sensitivity": interval(0.8),
        "specificity": interval(None),
    }
    output = {**metrics, "threshold": 0.4, "positives": 6, "negatives": 6}
    measured = {
        "images": 42,
        "patients": 29,
        "macro": metrics,
        "outputs": {"opacity": output},
        "shortcuts": {
            "alarm": True,
            "alarms": "border (opacity)",
            "best": "thumbnail",
            "auroc": interval(0.7),
            "gain": interval(0.2),
            "outputs": {"opacity": {"best": "thumbnail", "auroc": interval(0.7), "gain": interval(0.2)}},
        },
        "model_sha256": files.sha256(paths.model / "model.safetensors"),
    }
    write(paths.metrics, json.dumps(measured))


def _split() -> pd.DataFrame:
    names = [f"2.25.{number}" for number in range(6)]
    parts = [PARTS[number % 3] for number in range(6)]
    return pd.DataFrame({"image": names, "patient": names, "study": names, "pixel_hash": names, "part": parts})


def write_split(paths: Paths) -> None:
    table = _split()
    table.to_parquet(paths.split)
    counts = {part: {"images": 2, "patients": 2, "studies": 2, "classes": {}} for part in PARTS}
    certificate = {"clean": True, "split_sha256": split_sha256(table), "checks": {}, "parts": counts}
    write(paths.leakage, json.dumps(certificate))


def radiograph(seed: int = 0) -> bytes:
    """A DICOM file of noise, 40 × 30 pixels, 8 bits."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Modality = ComputedRadiographyImageStorage, "CR"
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[str(seed)])
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 40, 30, 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = np.random.default_rng(seed).integers(0, 255, (40, 30)).astype(np.uint8).tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tracked(paths: Paths) -> dict[str, Any]:
    """Every file of the local artifact store by its path."""
    root = paths.mlflow / "artifacts"
    return {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
