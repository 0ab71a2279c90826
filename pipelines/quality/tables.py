"""The tables that expectations and the split look at, derived from the index of prepared images and the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipelines.config_tasks import ORDERED
from pipelines.labels import LARGEST
from pipelines.records import INDEX, Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.records import Head, Task

ROW_NAMES = {"index": "image", "images": "image", "labels": "image", "cohort": "image", "classes": "output"}
"""For each table, the column that names a row: a pseudonym, or an output of the task."""


def prepared(index: pd.DataFrame) -> pd.DataFrame:
    """The rows of the index whose image was prepared."""
    return index[index["left_out"].isna()] if "left_out" in index else index


def label_matrix(labels: pd.DataFrame, task: Head) -> NDArray[np.float32]:
    """The labels of one task as `Head.matrix` gives them, with NaN for whatever is not a valid label, (rows, columns)."""
    columns = labels.reindex(columns=[*task.targets])
    if task.kind in ORDERED:
        return task.matrix(columns)
    numbers = columns.apply(pd.to_numeric, errors="coerce")
    if task.kind == "regression":
        least, largest = task.bounds or (-LARGEST, LARGEST)
        return task.matrix(numbers.where((numbers >= least) & (numbers <= largest)))
    return task.matrix(numbers.where(numbers.isin([0, 1])))


def known_labels(labels: pd.DataFrame, task: Task) -> NDArray[np.bool_]:
    """Of each row and column of every task, (rows, columns), whether the label is known."""
    return np.concatenate([~np.isnan(label_matrix(labels, head)) for head in task.heads], axis=1)


def usable(index: pd.DataFrame, labels: pd.DataFrame, task: Task) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """The images to learn from: prepared, and with at least one known label, be it of a further task.

    Returns:
        Their index rows, sorted by image, and their labels of the main task (images, outputs) of 0, 1 or NaN, in the same order.
    """
    images = prepared(index).reindex(columns=[*INDEX]).dropna(subset=["image"]).drop_duplicates("image").sort_values("image")
    aligned = _aligned(labels, images, task)
    known = np.flatnonzero(known_labels(aligned, task).any(axis=1))
    return images.iloc[known].reset_index(drop=True), label_matrix(aligned, task)[known]


def _aligned(labels: pd.DataFrame, images: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The labels of every task, one row for each image, in their order."""
    labelled = labels.reindex(columns=["image", *task.labels]).dropna(subset=["image"]).drop_duplicates("image")
    return labelled.set_index("image").reindex(images["image"])


def build(index: pd.DataFrame, labels: pd.DataFrame, task: Task) -> dict[str, pd.DataFrame]:
    """The tables by name, each with the derived columns that expectations speak of.

    `index` is every image that ingest took in, `images` the prepared ones, `labels` the table of labels, `cohort` the
    images to learn from, and `classes` one row for each output of the task.
    """
    images, matrix = usable(index, labels, task)
    cohort = images[["image", "patient", "pixel_hash"]].assign(labellings_of_these_pixels=_labellings(images, labels, task))
    return {
        "index": _with_unusable(index),
        "images": _with_counts(prepared(index)),
        "labels": _with_membership(labels, index, task),
        "cohort": cohort,
        "classes": _classes(images, matrix, task),
    }


def signatures(matrix: NDArray[np.float32]) -> list[str]:
    """One text per row with a character for each output: 1, 0, or ? where the label is unknown."""
    characters = np.where(np.isnan(matrix), "?", np.where(matrix == 1, "1", "0"))
    return ["".join(row) for row in characters]


def _labellings(images: pd.DataFrame, labels: pd.DataFrame, task: Task) -> NDArray[Any]:
    """For each image, how many values the label columns have at most among the images of the same pixels; unknown is none."""
    aligned = _aligned(labels, images, task)
    matrix = np.concatenate([label_matrix(aligned, head) for head in task.heads], axis=1)
    values = pd.DataFrame(matrix).groupby(images["pixel_hash"].to_numpy()).transform("nunique")
    return values.max(axis=1).to_numpy()


def _counted(table: pd.DataFrame, name: str, key: str, counted: str) -> pd.DataFrame:
    """Add the column `name`: how many different values of `counted` share the row's value of `key`."""
    if not {key, counted} <= set(table.columns):
        return table
    return table.assign(**{name: table.groupby(key)[counted].transform("nunique")})


def _with_unusable(index: pd.DataFrame) -> pd.DataFrame:
    """Add why images are left out that should not have been; raw detector data are left out by choice."""
    if "left_out" not in index:
        return index
    return index.assign(unusable=index["left_out"].where(index["left_out"] != Reason.FOR_PROCESSING.value))


def _with_counts(images: pd.DataFrame) -> pd.DataFrame:
    counted = _counted(images, "patients_with_these_pixels", "pixel_hash", "patient")
    return _counted(counted, "patients_of_this_study", "study", "patient")


def _with_membership(labels: pd.DataFrame, index: pd.DataFrame, task: Task) -> pd.DataFrame:
    if "image" not in labels or "image" not in index:
        return labels
    known = known_labels(labels, task).sum(axis=1)
    return labels.assign(image_is_indexed=labels["image"].isin(index["image"]), known_labels=known)


def _classes(images: pd.DataFrame, matrix: NDArray[np.float32], task: Task) -> pd.DataFrame:
    rows = []
    for output, column in zip(task.outputs, matrix.T, strict=True):
        with_it, without_it = column == 1, column == 0
        rows.append(
            {
                "output": output,
                "images_with": int(with_it.sum()),
                "images_without": int(without_it.sum()),
                "patients_with": images["patient"][with_it].nunique(),
                "patients_without": images["patient"][without_it].nunique(),
                "prevalence": float(with_it.sum() / max(1, with_it.sum() + without_it.sum())),
            }
        )
    return pd.DataFrame(rows)
