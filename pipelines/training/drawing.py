"""Who learns, who stops and who judges when ways to transfer are compared: the same patients for all of them.

The test part is not touched, since choosing by it would make it say too much. The validation part judges, and no training sees
it: early stopping looks at a share of the train part instead, which is put aside once and for all. What is left is learnt
from, whole or as draws of the sizes asked for. Each draw is the beginning of one order of the patients, so that a smaller one
lies within every larger one; the order follows from the seed, so that all candidates learn from the same images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.errors import TrainingError
from pipelines.imaging.store import ArrayStore
from pipelines.paths import Paths
from pipelines.quality.partition import groups, presence
from pipelines.quality.tables import signatures
from pipelines.records import Task
from pipelines.training.assembly import Part, lacking, parts
from pipelines.training.batches import Examples
from pipelines.training.joint import require_judgeable

# raised whenever the same settings draw other images than before; what was learnt from the draws of another version is not reused
DRAWS = 2


@dataclass(frozen=True)
class Ground:
    """What every training of a comparison has in common; all images have a known label of the main task.

    Attributes:
        size: rows and columns of a prepared image.
        pool: what may be learnt from.
        group: (images of the pool,) which of them stay together: those of a patient, a study, or identical pixels.
        stopping: what early stopping looks at; the rest of the train part.
        judged: the validation part.
    """

    task: Task
    size: int
    pool: Part
    group: NDArray[np.int64]
    stopping: Part
    judged: Part

    def draw(self, size: int | None, seed: int) -> Examples:
        """At most `size` images of the pool (None for all), of whole patients, balanced by label, every class among them.

        Raises:
            TrainingError: so few images do not hold every class.
        """
        if size is None:
            return self.pool.examples
        drawn = beginning(self.pool, self.group, self.task, size, seed)
        if lacking(self.pool.examples.labels[drawn], self.task):
            raise TrainingError(
                f"compare.sizes: expected images enough to hold patients with and without each finding, got {size}; "
                "use larger sizes"
            )
        chosen = self.pool.examples.take(np.flatnonzero(drawn))
        require_judgeable(self.task, chosen.labels, f"a draw of {size} images", "use larger compare.sizes")
        return chosen


def ground(paths: Paths, task: Task, stopping: float, seed: int) -> Ground:
    """Read the train and the validation part, and put the fraction `stopping` of the train part's images aside.

    Raises:
        MissingInputError: prepare, split or ingest has not run.
        TrainingError: the parts are not prepared, or there are too few patients of a class for all that they are needed for.
    """
    store = ArrayStore(paths.prepared)
    train, judged = (_labelled(part, task) for part in parts(paths, task, store))
    group = groups(train.rows)
    aside = beginning(train, group, task, round(stopping * len(group)), seed)
    for name, some in (("for early stopping", aside), ("to learn from", ~aside)):
        if classes := lacking(train.examples.labels[some], task):
            raise TrainingError(
                f"train part, {int(some.sum())} images {name}: expected patients with and without each finding, found none "
                f"{', '.join(classes)}; add labelled images, or change compare.stopping or compare.seed"
            )
    if classes := lacking(judged.examples.labels, task):
        raise TrainingError(
            f"validation part: expected patients with and without each finding to judge by, found none {', '.join(classes)}; "
            "add labelled images, or change split.seed or split.validation"
        )
    require_judgeable(
        *(task, train.examples.labels[aside], "the share of the train part for early stopping"),
        "change compare.stopping or compare.seed",
    )
    require_judgeable(task, judged.examples.labels)
    pool = _only(train, ~aside)
    return Ground(task, store.recipe.size, pool, group[~aside], _only(train, aside), judged)


def beginning(part: Part, group: NDArray[np.int64], task: Task, images: int, seed: int) -> NDArray[np.bool_]:
    """Which images (images of the part,) are drawn: whole groups in their `order`, up to so many images."""
    group = np.unique(group, return_inverse=True)[1]  # those of a part of a part have gaps in their numbers
    counts = np.bincount(group)
    chosen = order(part.examples.labels, group, task, seed)
    taken = chosen[np.cumsum(counts[chosen]) <= images]
    return np.isin(group, taken)


def order(labels: NDArray[np.float32], group: NDArray[np.int64], task: Task, seed: int) -> NDArray[np.int64]:
    """An order of the groups of which every beginning has about the mixture of labels of the whole, and soon every class.

    Groups of the same labels are shuffled and spread evenly over the order; the first group of each class stands in front.

    Args:
        labels: (images, columns), those of the main task first.
        group: (images,) 0, 1, … without gaps.
        task: whose classes are balanced.
        seed: of the order; the same labels and groups give the same order.
    """
    main = _main(labels, task)
    kinds = np.array(signatures(pd.DataFrame(main).groupby(group).max().to_numpy(np.float32)))
    place, generator = np.empty(len(kinds)), np.random.default_rng(seed)
    for kind in np.unique(kinds):
        members = generator.permutation(np.flatnonzero(kinds == kind))
        place[members] = (np.arange(len(members)) + generator.random()) / len(members)
    shuffled = np.argsort(place, kind="stable")
    _, present = presence(main, task)
    there = np.zeros((len(kinds), present.shape[1]), dtype=bool)
    np.logical_or.at(there, group, present)
    front, covered = [], np.zeros(present.shape[1], dtype=bool)
    for candidate in shuffled:
        if (there[candidate] & ~covered).any():
            front.append(candidate)
            covered |= there[candidate]
    return np.array([*front, *shuffled[~np.isin(shuffled, front)]], dtype=np.int64)


def _main(labels: NDArray[np.float32], task: Task) -> NDArray[np.float32]:
    return labels[:, : len(task.columns)]


def _labelled(part: Part, task: Task) -> Part:
    known: NDArray[np.bool_] = np.any(~np.isnan(_main(part.examples.labels, task)), axis=1)
    return _only(part, known)


def _only(part: Part, some: NDArray[np.bool_]) -> Part:
    return Part(part.rows[some].reset_index(drop=True), part.examples.take(np.flatnonzero(some)))
