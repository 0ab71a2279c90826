"""Contenders that were trained several times, judged on the same patients: differences with intervals over patients and seeds.

Another sample of patients and another run of the training would both have said something else. Patients are drawn anew, the same
ones for all contenders; of a group of rivals, the largest studentised deviation of a resample decides how wide the intervals of
all its pairs are, so that they hold together, and a pair may be picked because of how it came out. Seeds are too few to be drawn
anew: Student's t says how far their mean may be off, at Bonferroni's level for as many pairs. Half the width that patients give
and half that of the seeds are added as squares, by which a single interval covers at least as often as it says (Banerjee, Sankhyā
22, 1960; for ends at unequal distances, Zou and Donner, Statistics in Medicine 27, 2008); that those of all pairs do so together
is what simulation shows (tests/metrics/test_crossed.py). With one seed, its luck is not in the intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.discrimination import Array, weighted_auroc
from pipelines.metrics.intervals import LEVEL, Interval, bootstrap, enough, interval

Pair = tuple[str, str]


@dataclass(frozen=True)
class Crossed:
    """AUROCs, mean over outputs and seeds, and their differences.

    Attributes:
        aurocs: of each contender, with its own 95% interval.
        differences: of each pair, the first one's AUROC minus the second one's; their 95% intervals hold together in a group.
    """

    aurocs: Mapping[str, Interval]
    differences: Mapping[Pair, Interval]

    def difference(self, name: str, rival: str) -> Interval:
        """The AUROC of `name` minus that of `rival`, whichever way round the pair was compared."""
        if (name, rival) in self.differences:
            return self.differences[name, rival]
        return self.differences[rival, name].turned()


def crossed(
    labels: NDArray[Any],
    scores: Mapping[str, NDArray[Any]],
    patients: NDArray[Any],
    *,
    rivals: Sequence[Sequence[str]],
    resamples: int,
    seed: int,
) -> Crossed:
    """Compare contenders; all see the same resamples. With too few patients of a class (`intervals.enough`) nothing has ends.

    Args:
        labels: (images, outputs), 0, 1 or NaN (unknown: the image does not count for that output).
        scores: of each contender, (seeds, images, outputs); all have the same seeds.
        patients: (images,) whose image each is.
        rivals: groups of contenders within which every pair is compared.
        resamples: how many times patients are drawn.
        seed: the same seed gives the same draws.
    """
    names, seeds = list(scores), len(next(iter(scores.values())))
    said = [answers for name in names for answers in scores[name]]
    values, draws = bootstrap(lambda weights: _macro(labels, said, weights), patients, resamples, seed)
    value = dict(zip(names, values.reshape(len(names), seeds), strict=True))
    drawn = dict(zip(names, draws.reshape(resamples, len(names), seeds).mean(axis=2).T, strict=True))
    known = [column for column in labels.T if len(np.unique(column[~np.isnan(column)])) == 2]
    sure = all(enough(column, patients) for column in known)
    differences: dict[Pair, Interval] = {}
    for group in rivals:
        if pairs := list(combinations(group, 2)):
            apart = np.array([value[one] - value[other] for one, other in pairs])
            moved = np.array([drawn[one] - drawn[other] for one, other in pairs])
            differences |= zip(pairs, [found.where(sure) for found in _together(apart, moved)], strict=True)
    return Crossed({name: _of_one(value[name], drawn[name]).where(sure) for name in names}, differences)


def _macro(labels: NDArray[Any], everyone: Sequence[NDArray[Any]], weights: Array) -> Array:
    """(resamples, everyone): the mean over the outputs that have both classes."""
    columns = []
    for known, output in ((~np.isnan(labels[:, k]), k) for k in range(labels.shape[1])):
        truth = labels[known, output]
        if len(np.unique(truth)) == 2:
            columns.append([weighted_auroc(truth, said[known, output], weights[:, known]) for said in everyone])
    if not columns:
        return np.full((len(weights), len(everyone)), np.nan)
    return np.asarray(np.mean(columns, axis=0).T, dtype=np.float64)


def _of_one(value: Array, drawn: Array) -> Interval:
    """The mean over the seeds of AUROCs (seeds,), with what it is in each resample of patients (resamples,)."""
    found = interval(float(value.mean()), drawn)
    if found.value is None or found.low is None or found.high is None:
        return found
    seeds = _of_seeds(value[None], 1)[0]
    low, high = (float(np.hypot(end - found.value, seeds)) for end in (found.low, found.high))
    return Interval(found.value, max(found.value - low, 0.0), min(found.value + high, 1.0), found.skipped)


def _together(apart: Array, drawn: Array) -> list[Interval]:
    """Differences with intervals that hold together.

    Args:
        apart: (pairs, seeds), as they were.
        drawn: (pairs, resamples), their means over the seeds when patients are drawn anew.
    """
    middle = apart.mean(axis=1)
    defined = np.asarray(~np.isnan(drawn).any(axis=0))
    skipped = int((~defined).sum())
    if np.isnan(middle).any() or defined.sum() * 2 < len(defined):
        return [Interval(None if np.isnan(own) else float(own), None, None, skipped) for own in middle]
    spread = drawn[:, defined].std(axis=1, ddof=1)
    moving = spread > 0
    deviations = np.abs(drawn[:, defined] - middle[:, None])[moving] / spread[moving, None]
    reach = np.quantile(deviations.max(axis=0, initial=0.0), LEVEL)
    halves = np.hypot(reach * spread, _of_seeds(apart, len(apart)))
    return [
        Interval(float(own), max(float(own - half), -1.0), min(float(own + half), 1.0), skipped)
        for own, half in zip(middle, halves, strict=True)
    ]


def _of_seeds(values: Array, together: int) -> Array:
    """How far the means (rows,) of values (rows, seeds) may be off for the luck of the seeds, `together` rows at once."""
    from scipy import stats

    seeds = values.shape[1]
    if seeds < 2:
        return np.zeros(len(values))
    reach = stats.t.ppf(1 - (1 - LEVEL) / 2 / together, seeds - 1)
    return np.asarray(reach * values.std(axis=1, ddof=1) / np.sqrt(seeds), dtype=np.float64)
