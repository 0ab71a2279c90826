"""Patient-level bootstrap: images of one patient are drawn together, since they are not independent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.discrimination import Array

LEVEL = 0.95
FEWEST = 5  # patients; resamples of fewer take them as they are, and would make what rests on one of them look sure

_CHUNK_VALUES = 2**21  # 16 MiB of weights at a time


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its 95% interval; None where it is undefined, the ends also where too few patients bear it.

    Attributes:
        skipped: resamples in which the value is undefined (one class missing); they do not enter the interval.
    """

    value: float | None
    low: float | None
    high: float | None
    skipped: int = 0

    def turned(self) -> Interval:
        """Of the same difference the other way round."""
        value, low, high = (None if number is None else -number for number in (self.value, self.high, self.low))
        return Interval(value, low, high, self.skipped)

    def where(self, known: bool) -> Interval:
        """The same, without ends where they are not known."""
        return self if known else Interval(self.value, None, None, self.skipped)

    def to_dict(self) -> dict[str, float | None]:
        return {"value": self.value, "low": self.low, "high": self.high}


def enough(labels: NDArray[Any], patients: NDArray[Any]) -> bool:
    """Whether there are `FEWEST` patients with, and without, a finding for an interval.

    Args:
        labels: (images,), 0, 1 or NaN.
        patients: (images,) whose image each is; one with images of both classes counts for both.
    """
    return borne((labels == 1, labels == 0), patients)


def borne(groups: Iterable[NDArray[np.bool_]], patients: NDArray[Any]) -> bool:
    """Whether each of these groups of images (images,) is of `FEWEST` patients at least."""
    return all(len(np.unique(patients[group])) >= FEWEST for group in groups)


def resampled(patients: NDArray[Any], resamples: int, seed: int) -> Iterator[Array]:
    """How often each image is drawn when patients are drawn with replacement, as many as there are.

    Args:
        patients: (images,) whose image each is.
        resamples: how many times.
        seed: the same seed gives the same draws.

    Yields:
        Arrays (some resamples, images), `resamples` rows in all.
    """
    _, patient = np.unique(patients, return_inverse=True)
    count = int(patient.max()) + 1 if len(patient) else 0
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK_VALUES // max(len(patient), 1))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(count, size=(rows, count)) + np.arange(rows)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        yield times[:, patient].astype(np.float64)


def bootstrap(statistic: Callable[[Array], Array], patients: NDArray[Any], resamples: int, seed: int) -> tuple[Array, Array]:
    """The statistics of the images as they are and of each patient-level resample.

    Args:
        statistic: from weights (rows, images) to values (rows, statistics), NaN where undefined.
        patients: (images,) whose image each is.
        resamples: how many times patients are drawn.
        seed: the same seed gives the same draws.

    Returns:
        Arrays (statistics,) and (resamples, statistics).
    """
    values = statistic(np.ones((1, len(patients))))[0]
    return values, np.concatenate([statistic(weights) for weights in resampled(patients, resamples, seed)])


def interval(value: float, draws: Array) -> Interval:
    """The percentile interval of a value from its resamples; without ends where fewer than half of them are defined."""
    if np.isnan(value):
        return Interval(None, None, None, len(draws))
    defined = draws[~np.isnan(draws)]
    skipped = len(draws) - len(defined)
    if len(defined) * 2 < len(draws):
        return Interval(float(value), None, None, skipped)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high), skipped)
