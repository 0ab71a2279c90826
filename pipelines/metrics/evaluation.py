"""Every metric of every output with its interval: the table of metrics, and one pass of the bootstrap over all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics import calibration, discrimination, operating
from pipelines.metrics.discrimination import Array
from pipelines.metrics.intervals import Interval, bootstrap, borne, interval


@dataclass(frozen=True)
class Scored:
    """The images of one output whose label is known: labels 0/1, probabilities, whether each is called positive."""

    labels: Array
    scores: Array
    called: NDArray[np.bool_]
    bins: int


@dataclass(frozen=True)
class Metric:
    """One metric: its name for people, what it means in a sentence, and its values under each row of weights.

    Attributes:
        bearers: the groups of images (images,) that it looks at, each of which has to bear an interval; see
            `intervals.borne`.
    """

    title: str
    meaning: str
    values: Callable[[Scored, Array], Array]
    bearers: Callable[[Scored], Sequence[NDArray[np.bool_]]] = lambda images: [np.ones(len(images.labels), np.bool_)]


METRICS: dict[str, Metric] = {
    "auroc": Metric(
        "AUROC",
        "chance that an image with the finding scores above one without",
        lambda images, weights: discrimination.weighted_auroc(images.labels, images.scores, weights),
        lambda images: [images.labels == 1, images.labels == 0],
    ),
    "auprc": Metric(
        "AUPRC",
        "average precision; chance level is the prevalence",
        lambda images, weights: discrimination.weighted_auprc(images.labels, images.scores, weights),
        lambda images: [images.labels == 1, images.labels == 0],
    ),
    "sensitivity": Metric(
        "Sensitivity",
        "of images with the finding, the fraction called positive",
        lambda images, weights: operating.sensitivity(images.labels, images.called, weights),
        lambda images: [images.labels == 1],
    ),
    "specificity": Metric(
        "Specificity",
        "of images without the finding, the fraction called negative",
        lambda images, weights: operating.specificity(images.labels, images.called, weights),
        lambda images: [images.labels == 0],
    ),
    "ppv": Metric(
        "PPV",
        "of images called positive, the fraction with the finding, at this prevalence",
        lambda images, weights: operating.positive_predictive_value(images.labels, images.called, weights),
        lambda images: [images.called],
    ),
    "npv": Metric(
        "NPV",
        "of images called negative, the fraction without the finding, at this prevalence",
        lambda images, weights: operating.negative_predictive_value(images.labels, images.called, weights),
        lambda images: [~images.called],
    ),
    "brier": Metric(
        "Brier score",
        "mean squared error of the probability; 0 is perfect",
        lambda images, weights: calibration.weighted_brier(images.labels, images.scores, weights),
    ),
    "ece": Metric(
        "ECE",
        "expected calibration error: mean gap between probability and observed fraction; 0 is perfect",
        lambda images, weights: calibration.weighted_calibration_error(images.labels, images.scores, weights, images.bins),
    ),
}


@dataclass(frozen=True)
class OutputEvaluation:
    """The metrics of one output; `positives` and `negatives` count images whose label is known."""

    name: str
    threshold: float
    positives: int
    negatives: int
    metrics: dict[str, Interval]


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a set of images, by output and as the mean over the outputs (`macro`)."""

    images: int
    patients: int
    macro: dict[str, Interval]
    outputs: tuple[OutputEvaluation, ...]

    def to_dict(self) -> dict[str, Any]:
        """The content of metrics.json: undefined values are None, never NaN."""
        return {
            "images": self.images,
            "patients": self.patients,
            "macro": {name: value.to_dict() for name, value in self.macro.items()},
            "outputs": {
                output.name: {
                    **{name: value.to_dict() for name, value in output.metrics.items()},
                    "threshold": output.threshold,
                    "positives": output.positives,
                    "negatives": output.negatives,
                }
                for output in self.outputs
            },
        }


def evaluate(
    labels: NDArray[Any],
    scores: NDArray[Any],
    patients: NDArray[Any],
    *,
    outputs: Sequence[str],
    thresholds: Sequence[float],
    bins: int,
    resamples: int,
    seed: int,
    metrics: Sequence[str] = tuple(METRICS),
) -> Evaluation:
    """All metrics with patient-level bootstrap intervals; every output sees the same resamples.

    There are no ends where what a metric looks at (all images, those of a class, those called positive or negative) is of too
    few patients, nor of the mean over outputs of which one has none.

    Args:
        labels: (images, outputs), 0, 1 or NaN (unknown: the image does not count for that output).
        scores: (images, outputs), probabilities.
        patients: (images,) whose image each is.
        outputs: names of the outputs.
        thresholds: for each output, the probability from which an image is called positive; chosen elsewhere.
        bins: equal-count bins of the calibration error.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
        metrics: the keys of `METRICS` wanted.
    """
    scores = np.asarray(scores, dtype=np.float64)
    known = [~np.isnan(labels[:, output]) for output in range(len(outputs))]
    parts = [
        Scored(labels[there, k].astype(np.float64), scores[there, k], scores[there, k] >= thresholds[k], bins)
        for k, there in enumerate(known)
    ]

    def statistic(weights: Array) -> Array:
        columns = [
            METRICS[name].values(part, weights[:, there]) for there, part in zip(known, parts, strict=True) for name in metrics
        ]
        return np.stack(columns, axis=1)

    values, draws = bootstrap(statistic, patients, resamples, seed)
    by_output = values.reshape(len(outputs), len(metrics))
    drawn = draws.reshape(resamples, len(outputs), len(metrics))
    sure = np.array(
        [
            [borne(METRICS[name].bearers(part), patients[there]) for name in metrics]
            for there, part in zip(known, parts, strict=True)
        ]
    )
    return Evaluation(
        images=len(labels),
        patients=len(np.unique(patients)),
        macro={name: _macro(by_output[:, m], drawn[:, :, m], sure[:, m]) for m, name in enumerate(metrics)},
        outputs=tuple(
            OutputEvaluation(
                name,
                float(thresholds[k]),
                int((parts[k].labels == 1).sum()),
                int((parts[k].labels == 0).sum()),
                {metric: interval(by_output[k, m], drawn[:, k, m]).where(sure[k, m]) for m, metric in enumerate(metrics)},
            )
            for k, name in enumerate(outputs)
        ),
    )


def _macro(values: Array, draws: Array, sure: NDArray[np.bool_]) -> Interval:
    """Mean over the outputs where the metric is defined; a resample counts if it is defined for all of those."""
    defined = ~np.isnan(values)
    if not defined.any():
        return Interval(None, None, None, len(draws))
    return interval(float(values[defined].mean()), draws[:, defined].mean(axis=1)).where(bool(sure[defined].all()))
