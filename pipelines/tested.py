"""The test part with what a model says of it, and that it is one which this model never saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines import console, files
from pipelines.errors import MissingInputError
from pipelines.imaging.store import ArrayStore
from pipelines.inference import Model
from pipelines.paths import Paths
from pipelines.quality.leakage import split_sha256
from pipelines.records import Task, label_column

CHUNK = 256  # images read at a time


@dataclass(frozen=True)
class Tested:
    """The test part, sorted by image: its rows of the index, labels, probabilities and calls, each (images, outputs).

    They are those of the main task; `answers` (images, answers) holds what every task says.
    """

    rows: pd.DataFrame
    labels: NDArray[np.float32]
    scores: NDArray[np.float32]
    called: NDArray[np.bool_]
    answers: NDArray[np.float32]

    def labelled(self) -> Tested:
        """Only the images with a known label of the main task; the others are of further tasks."""
        known = np.flatnonzero(~np.isnan(self.labels).all(axis=1))
        rows = self.rows.iloc[known].reset_index(drop=True)
        return Tested(rows, self.labels[known], self.scores[known], self.called[known], self.answers[known])


def require_its_own(model: Model, store: ArrayStore, paths: Paths) -> None:
    """Refuse a test part that the model may have learnt from, a certificate of another split, and other prepared images."""
    split = split_sha256(files.read_table(paths.split, made_by="split"))
    certified = files.read_json(paths.leakage, made_by="split")["split_sha256"]
    if certified != split:
        raise MissingInputError(
            f"leakage.json: expected the certificate of split {split[:12]}, got that of {certified[:12]}; run `radtransfer split`"
        )
    if (trained := str(model.card.training.get("split_sha256"))) != split:
        raise MissingInputError(
            f"split.parquet: expected split {trained[:12]}, which the model was trained on, got {split[:12]}, whose test part "
            "may hold patients that it learnt from; run `radtransfer train` again"
        )
    if store.recipe != model.card.recipe:
        raise MissingInputError(
            f"prepared: expected images made by {model.card.recipe}, as in training, got {store.recipe}; "
            "run `radtransfer train` again"
        )


def cohort_of(paths: Paths, task: Task) -> pd.DataFrame:
    """Every image of the index, sorted, with its `part` (None for one in no part) and its labels as `y_NAME`."""
    index = files.read_table(paths.index, made_by="prepare").sort_values("image", ignore_index=True)
    split = files.read_table(paths.split, made_by="split")[["image", "part"]]
    labels = files.read_table(paths.labels, made_by="ingest")
    known = pd.DataFrame(task.matrix(labels), columns=[label_column(name) for name in task.outputs])
    known.insert(0, "image", labels["image"].to_numpy())
    further = {label_column(target): labels[target].to_numpy() for head in task.also for target in head.targets}
    known = known.assign(**further)
    return index.merge(split, on="image", how="left", validate="1:1").merge(known, on="image", how="left", validate="1:1")


def predicted(model: Model, store: ArrayStore, cohort: pd.DataFrame, task: Task) -> Tested:
    """What the model says of the test part of a cohort, which is as `cohort_of` gives it."""
    rows = cohort[cohort["part"] == "test"].reset_index(drop=True)
    shards, places = rows["shard"].to_numpy(np.int64), rows["row"].to_numpy(np.int64)
    chunks = [np.empty((0, sum(head.answers for head in task.heads)), np.float32)]
    with console.progress() as progress:
        bar = progress.add_task("test", total=len(rows), note="")
        for start in range(0, len(rows), CHUNK):
            inside = slice(start, start + CHUNK)
            chunks.append(model.everything(store.take(shards[inside], places[inside])))
            progress.update(bar, advance=len(chunks[-1]))
    answers = np.concatenate(chunks)
    scores = answers[:, : len(task.outputs)]
    labels = rows[[label_column(name) for name in task.outputs]].to_numpy(np.float32)
    called = scores >= np.array([model.card.thresholds[name] for name in task.outputs])
    return Tested(rows, labels, scores, called, answers)
