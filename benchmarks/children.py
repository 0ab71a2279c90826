"""Real radiographs of children for the benchmarks of transfer: prepared once, asked two questions, drawn by patients.

The data are Kermany et al. (2018): 800 radiographs, `pneumonia` or not, and of those with it `etiology`, bacterial or viral.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from pipelines import files
from pipelines.config import AugmentSection
from pipelines.imaging.radiograph import Recipe, prepare, read
from pipelines.metrics.discrimination import auroc
from pipelines.models.network import Network
from pipelines.records import Task
from pipelines.training.batches import Examples
from pipelines.training.loss import probabilities
from pipelines.training.material import Images

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("RADTRANSFER_SHARED") or HERE.parents[1] / "shared")
FOLDER = SHARED / "data" / "paediatric_cxr"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "radtransfer" / "benchmarks"
RECIPE = Recipe(224, "uint8", (0.5, 99.5))
TASK = Task("binary", ("finding",))
TEST_SEED = 2024
FOLDS = 5
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Question:
    """What is asked of the images.

    Attributes:
        column: of labels.csv.
        positive: its value that counts as 1; others of `among` count as 0, and the rest is left out.
        test_per_class: fixed test images with the finding, and as many without it, as `drawn` counts them.
    """

    column: str
    positive: str
    among: tuple[str, ...]
    test_per_class: int


QUESTIONS = {
    "pneumonia": Question("pneumonia", "1", ("0", "1"), test_per_class=200),
    "etiology": Question("etiology", "viral", ("bacterial", "viral"), test_per_class=60),
}


@dataclass(frozen=True)
class Cohort:
    """All images (images, 224, 224), and their patients (numbered)."""

    images: NDArray[np.uint8]
    patients: NDArray[np.int64]

    def take(self, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.images[rows]

    def examples(self, rows: NDArray[np.int64], labels: NDArray[np.float32]) -> Examples:
        """The images of `rows`, with the labels (images of the cohort,) of a question."""
        return Examples(self, np.zeros_like(rows), rows, labels[rows][:, None], self.patients[rows])


@dataclass(frozen=True)
class Draw:
    """Labelled images to learn from, and those to be judged on; no patient is in both."""

    train: Examples
    test: Examples


def cohort() -> Cohort:
    """Prepared once, then read from the cache."""
    cached = CACHE / f"paediatric-{fingerprint(RECIPE.to_dict())}.npz"
    if not cached.is_file():
        datasets = [read(FOLDER / file) for file in _table()["file"]]
        images = np.stack([prepare(dataset, RECIPE).array for dataset in datasets])
        patients = pd.factorize(pd.Series([str(dataset.PatientID) for dataset in datasets]))[0]
        with files.replacing(cached) as temporary, temporary.open("wb") as stream:
            np.savez(stream, images=images, patients=patients)
    with np.load(cached) as stored:
        return Cohort(stored["images"], stored["patients"])


def draw(data: Cohort, question: Question, size: int, seed: int, *, fold: int | None = None) -> Draw:
    """`size` training images of random patients, half of them positive, and a test part of others.

    The test part is drawn once for all seeds, or one of `FOLDS` that share no patient and hold every image between them.
    """
    value = _table()[question.column]
    labels = (value == question.positive).to_numpy(np.float32)
    asked = np.flatnonzero(value.isin(question.among).to_numpy())
    if fold is None:
        test = drawn(labels, data.patients, asked, question.test_per_class, seed=TEST_SEED, whole=True)
    else:
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=TEST_SEED)
        test = asked[list(folds.split(asked, labels[asked], data.patients[asked]))[fold][1]]
    pool = asked[~np.isin(data.patients[asked], data.patients[test])]
    train = drawn(labels, data.patients, pool, size // 2, seed=seed, whole=False)
    return Draw(data.examples(train, labels), data.examples(test, labels))


def drawn(
    labels: NDArray[np.float32], patients: NDArray[np.int64], rows: NDArray[np.int64], per_class: int, *, seed: int, whole: bool
) -> NDArray[np.int64]:
    """Images of random patients, `per_class` with and as many without the finding; with `whole`, all of each patient's.

    A patient counts as the first image says. Nobody has images with and without pneumonia, but 14 children have bacterial and
    viral ones, so that of `etiology` the halves are a little uneven.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(np.unique(patients[rows]))
    chosen: list[int] = []
    left = {0.0: per_class, 1.0: per_class}
    for patient in order:
        own = rows[patients[rows] == patient]
        label = float(labels[own[0]])
        own = own if whole else own[: left[label]]
        if len(own) <= left[label]:
            chosen += own.tolist()
            left[label] -= len(own)
    assert not any(left.values())
    return np.array(chosen)


def area(network: Network, test: Examples) -> float:
    """AUROC of a network's answers."""
    network.eval()
    with torch.inference_mode():
        batches = [network(images) for images, _ in Images(test, AugmentSection(), CPU).judging(50)]
    return auroc(test.labels[:, 0], probabilities(torch.cat(batches), exclusive=False).numpy()[:, 0])


def fingerprint(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]


def _table() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "labels.csv", dtype=str)
