"""The tables behind the figures: ROC, precision–recall, reliability and confusion, for DVC plots and for drawing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.metrics.calibration import reliability
from pipelines.metrics.discrimination import precision_recall_curve, roc_curve
from pipelines.records import Task

ROC = ("output", "fpr", "tpr", "threshold")
PRECISION_RECALL = ("output", "recall", "precision", "threshold")
RELIABILITY = ("output", "predicted", "observed", "lowest", "highest", "images")
CONFUSION = ("output", "actual", "predicted")


@dataclass(frozen=True)
class Tables:
    """One row for each point (`roc`, `precision_recall`), bin (`reliability`) or image and judgement (`confusion`)."""

    roc: pd.DataFrame
    precision_recall: pd.DataFrame
    reliability: pd.DataFrame
    confusion: pd.DataFrame


def tables(task: Task, labels: NDArray[Any], scores: NDArray[Any], called: NDArray[np.bool_], bins: int) -> Tables:
    """The tables of all outputs.

    Args:
        task: names the outputs.
        labels: (images, outputs), 0, 1 or NaN (unknown, left out).
        scores: (images, outputs), probabilities.
        called: (images, outputs), whether the probability reaches the threshold.
        bins: equal-count bins of the reliability table.
    """
    roc, precision, bars = [], [], []
    for k, name in enumerate(task.outputs):
        curve = roc_curve(labels[:, k], scores[:, k])
        roc += [(name, *point) for point in zip(curve.x, curve.y, curve.thresholds, strict=True)]
        curve = precision_recall_curve(labels[:, k], scores[:, k])
        precision += [(name, *point) for point in zip(curve.x, curve.y, curve.thresholds, strict=True)]
        for bar in reliability(labels[:, k], scores[:, k], bins):
            bars.append((name, bar.predicted, bar.observed, bar.lowest, bar.highest, bar.images))
    return Tables(
        pd.DataFrame(roc, columns=ROC),
        pd.DataFrame(precision, columns=PRECISION_RECALL),
        pd.DataFrame(bars, columns=RELIABILITY),
        pd.DataFrame(list(_judged(task, labels, scores, called)), columns=CONFUSION),
    )


def _judged(task: Task, labels: NDArray[Any], scores: NDArray[Any], called: NDArray[np.bool_]) -> Iterator[tuple[str, str, str]]:
    """What each image is and what it is taken for: a class, the likeliest, or NAME and no NAME at the threshold."""
    if task.kind == "multiclass":
        known = ~np.isnan(labels).any(axis=1)
        for actual, predicted in zip(labels[known].argmax(axis=1), scores[known].argmax(axis=1), strict=True):
            yield task.targets[0], task.outputs[actual], task.outputs[predicted]
        return
    for k, name in enumerate(task.outputs):
        for label, positive in zip(labels[:, k], called[:, k], strict=True):
            if not np.isnan(label):
                yield name, name if label else f"no {name}", name if positive else f"no {name}"
