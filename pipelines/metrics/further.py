"""The metrics of the tasks beside the main one, each with a patient-level interval over the images whose label is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics import grades, numbers
from pipelines.metrics.discrimination import Array
from pipelines.metrics.evaluation import METRICS, OutputEvaluation, evaluate
from pipelines.metrics.intervals import Interval, bootstrap, borne, interval
from pipelines.records import CALLED, Head


@dataclass(frozen=True)
class Answered:
    """Images of one task whose label is known.

    Attributes:
        truth: (images,), values, or places among the classes.
        said: likewise.
        chances: (images, classes), probabilities; of a regression (images, 0).
    """

    truth: Array
    said: Array
    chances: Array


@dataclass(frozen=True)
class Measure:
    """One metric: its name for people, what it means, whether it is in the unit of the task, and its values under weights.

    Attributes:
        bearers: see `evaluation.Metric`.
    """

    title: str
    meaning: str
    in_unit: bool
    values: Callable[[Answered, Array], Array]
    bearers: Callable[[Answered], Sequence[NDArray[np.bool_]]] = lambda images: [np.ones(len(images.truth), np.bool_)]


VALUES: dict[str, Measure] = {
    "mae": Measure(
        "Mean absolute error",
        "how far off a value is on average",
        True,
        lambda images, weights: numbers.mean_absolute_error(images.truth, images.said, weights),
    ),
    "rmse": Measure(
        "RMSE",
        "root mean squared error: large errors count more",
        True,
        lambda images, weights: numbers.root_mean_squared_error(images.truth, images.said, weights),
    ),
    "r2": Measure(
        "R²",
        "share of the variance that is explained; 0 is no better than the mean, and it can be below",
        False,
        lambda images, weights: numbers.explained(images.truth, images.said, weights),
    ),
    "spearman": Measure(
        "Spearman's ρ",
        "rank correlation: whether higher is said to be higher; 0 is chance",
        False,
        lambda images, weights: numbers.spearman(images.truth, images.said, weights),
    ),
}
GRADES: dict[str, Measure] = {
    "kappa": Measure(
        "Quadratic weighted κ",
        "agreement beyond chance, where being two classes off counts four times; 0 is chance",
        False,
        lambda images, weights: grades.quadratic_kappa(images.truth, images.said, weights, images.chances.shape[1]),
    ),
    "mae_ranks": Measure(
        "Mean absolute error",
        "how many classes off on average",
        False,
        lambda images, weights: grades.mean_distance(images.truth, images.said, weights),
    ),
    "accuracy": Measure(
        "Accuracy",
        "fraction of images whose class is the true one",
        False,
        lambda images, weights: grades.accuracy(images.truth, images.said, weights),
    ),
    "auroc": Measure(
        "AUROC of the steps",
        "chance that an image above a step between classes is said to be higher than one below; mean over the steps",
        False,
        lambda images, weights: grades.step_auroc(images.truth, 1 - np.cumsum(images.chances, axis=1)[:, :-1], weights),
        lambda images: _sides(images.truth),
    ),
}
CLASSES = {"accuracy": GRADES["accuracy"]}
MEASURES: Mapping[str, dict[str, Measure]] = {"regression": VALUES, "ordinal": GRADES, "multiclass": CLASSES}
WHOLE = ("regression", "ordinal")  # kinds that are judged as a whole, not by output
PROBABILITIES = ("auroc", "auprc", "brier", "ece")  # what asks for no threshold


@dataclass(frozen=True)
class TaskEvaluation:
    """One further task on a set of images.

    Attributes:
        images: whose label is known, for at least one output.
        patients: of those.
        metrics: of the task as a whole, or the mean over its outputs.
        outputs: of a classification by its outputs; () for a regression or ordinal task.
        confusion: true classes by said ones, of one in which a class is said; else None.
    """

    head: Head
    images: int
    patients: int
    metrics: dict[str, Interval]
    outputs: tuple[OutputEvaluation, ...] = ()
    confusion: NDArray[np.int64] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What metrics.json says of the task: undefined values are None, never NaN."""
        of_outputs = {
            output.name: {
                **{name: value.to_dict() for name, value in output.metrics.items()},
                **({"threshold": output.threshold} if self.head.kind in CALLED else {}),
                "positives": output.positives,
                "negatives": output.negatives,
            }
            for output in self.outputs
        }
        return {
            "kind": self.head.kind,
            **({"unit": self.head.unit} if self.head.unit else {}),
            "images": self.images,
            "patients": self.patients,
            "metrics": {name: value.to_dict() for name, value in self.metrics.items()},
            **({"outputs": of_outputs} if of_outputs else {}),
        }

    def title(self, name: str) -> str:
        """A metric's name for people."""
        measure = MEASURES.get(self.head.kind, {}).get(name)
        return measure.title if measure else METRICS[name].title

    def meaning(self, name: str) -> str:
        measure = MEASURES.get(self.head.kind, {}).get(name)
        return measure.meaning if measure else METRICS[name].meaning

    def unit(self, name: str) -> str:
        """Of a metric: that of the task, where the metric is in it."""
        measure = MEASURES.get(self.head.kind, {}).get(name)
        return self.head.unit if measure and measure.in_unit else ""


def evaluate_head(
    head: Head,
    labels: NDArray[Any],
    truth: NDArray[Any],
    answers: NDArray[Any],
    said: NDArray[Any],
    patients: NDArray[Any],
    *,
    thresholds: Mapping[str, float],
    bins: int,
    resamples: int,
    seed: int,
) -> TaskEvaluation:
    """All metrics of one task.

    Args:
        head: the task.
        labels: (images, outputs), 0, 1 or NaN, of a classification; not looked at otherwise.
        truth: (images,), values, or places among the classes, NaN where unknown; not looked at where no class is said.
        answers: (images, answers), as `Model.everything` gives them for the task.
        said: (images,), what is answered: values, or places of classes.
        patients: (images,) whose image each is.
        thresholds: of outputs that are called positive or negative.
        bins: of the calibration error.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
    """
    known = ~np.isnan(truth) if head.kind in MEASURES else ~np.isnan(labels).all(axis=1)
    patients, answers = patients[known], np.asarray(answers[known], np.float64)
    if not len(patients):
        names = [*MEASURES.get(head.kind, {}), *(() if head.kind in WHOLE else METRICS if head.kind in CALLED else PROBABILITIES)]
        return TaskEvaluation(head, 0, 0, dict.fromkeys(names, Interval(None, None, None, resamples)))
    metrics: dict[str, Interval] = {}
    outputs: tuple[OutputEvaluation, ...] = ()
    table = None
    if head.kind in MEASURES:
        own = Answered(truth[known].astype(np.float64), said[known].astype(np.float64), answers[:, : len(head.outputs)])
        metrics |= _measured(MEASURES[head.kind], own, patients, resamples, seed)
        if head.classes:
            table = grades.confusion(own.truth, own.said, len(head.classes))
    if head.kind not in WHOLE:
        found = evaluate(
            *(labels[known], answers, patients),
            outputs=head.outputs,
            thresholds=[thresholds.get(name, 0.5) for name in head.outputs],
            bins=bins,
            resamples=resamples,
            seed=seed,
            metrics=tuple(METRICS) if head.kind in CALLED else PROBABILITIES,
        )
        metrics |= found.macro
        outputs = found.outputs
    return TaskEvaluation(head, int(known.sum()), len(np.unique(patients)), metrics, outputs, table)


def _measured(
    measures: Mapping[str, Measure], images: Answered, patients: NDArray[Any], resamples: int, seed: int
) -> dict[str, Interval]:
    def statistic(weights: Array) -> Array:
        return np.stack([measure.values(images, weights) for measure in measures.values()], axis=1)

    values, draws = bootstrap(statistic, patients, resamples, seed)
    sure = [borne(measure.bearers(images), patients) for measure in measures.values()]
    return {name: interval(values[number], draws[:, number]).where(sure[number]) for number, name in enumerate(measures)}


def _sides(truth: Array) -> list[NDArray[np.bool_]]:
    """The images above, and below, each step between classes that there are."""
    return [side for step in np.unique(truth)[1:] for side in (truth >= step, truth < step)]
