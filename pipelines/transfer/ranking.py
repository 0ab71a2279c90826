"""What the features of one pretrained network say of a task, without training the network.

Probes are judged on patients whom they were not fitted on, so that what they come to can be compared between networks with
an interval; scores look at all images at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.transfer import probes
from pipelines.transfer.transferability import SCORES, leep, source_probabilities

Array = NDArray[np.float64]
SourceHead = tuple[Array, Array]
PROBES = ("logistic_regression", "knn")


@dataclass(frozen=True)
class Ranked:
    """What one network's features came to.

    Attributes:
        scores: `SCORES`, and `leep` where the weights came with a classifier; the mean over the outputs, None where no
            output has images of both kinds, or the network sees no difference between images.
        held_out: for each of `PROBES` the logits (images, outputs) by probes that did not see the image's patient; NaN
            where there were too few patients.
    """

    scores: Mapping[str, float | None]
    held_out: Mapping[str, Array]


def judge(examples: probes.Examples, source: SourceHead | None) -> Ranked:
    """Score features, and cross-validate probes on them.

    Args:
        examples: the features of all images, with labels and patients.
        source: weight and bias of the linear classifier that the weights came with, or None.
    """
    scores = {name: _mean(examples, examples.features, score.compute) for name, score in SCORES.items()}
    if source is not None:
        scores["leep"] = _mean(examples, source_probabilities(examples.features, *source), leep)
    return Ranked(scores, {kind: probes.held_out(kind, examples) for kind in PROBES})


def _mean(examples: probes.Examples, seen: Array, compute: Callable[[Array, NDArray[np.int64]], float]) -> float | None:
    """The mean over the outputs, or the one value of exclusive ones, over the images whose label is known."""
    values = []
    for classes in _targets(examples):
        known = classes >= 0
        if len(np.unique(classes[known])) > 1 and np.ptp(seen[known], axis=0).any():
            values.append(compute(seen[known], classes[known]))
    return float(np.mean(values)) if values else None


def _targets(examples: probes.Examples) -> list[NDArray[np.int64]]:
    """Class numbers (images,) for each output, or of the exclusive ones together; −1 where unknown."""
    labels = examples.labels
    if examples.exclusive:
        return [np.where(np.isnan(labels).any(axis=1), -1, np.nan_to_num(labels).argmax(axis=1))]
    return [np.where(np.isnan(column), -1, np.nan_to_num(column)).astype(np.int64) for column in labels.T]
