"""Folds for cross-validation in which no patient is on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST = 5


@dataclass(frozen=True)
class Fold:
    """Positions of the images to fit on, and of those of other patients, to judge on."""

    kept: NDArray[np.int64]
    held_out: NDArray[np.int64]


def folds(labels: NDArray[np.float64], patients: NDArray[np.int64], most: int = MOST) -> Sequence[Fold]:
    """Split images by patient into as many folds as the rarest class has patients, `most` at most, balanced by class.

    A fold without which an output would have one class only is left out, and so are all where a class has one patient.

    Args:
        labels: (images, outputs), 0, 1 or NaN.
        patients: (images,), numbers.
        most: folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    number = min(most, fewest(labels, patients))
    if number < 2:
        return ()
    kinds = _kinds(labels, number)
    splitter = StratifiedGroupKFold(number)
    with np.errstate(all="ignore"):
        parts = [Fold(kept, held_out) for kept, held_out in _split(splitter, kinds, patients)]
    return [fold for fold in parts if _both(labels[fold.kept])]


def fewest(labels: NDArray[np.float64], patients: NDArray[np.int64]) -> int:
    """Of the patients with, and without, each finding: the smallest number. A patient of both kinds counts for both."""
    counts = [len(np.unique(patients[labels[:, output] == value])) for output in range(labels.shape[1]) for value in (0, 1)]
    return min(counts)


def _kinds(labels: NDArray[np.float64], number: int) -> NDArray[np.int64]:
    """What to balance (images,): combinations of findings, or, where each is too rare, the label that is rarest."""
    known = np.nan_to_num(labels, nan=2).astype(np.int64)
    combinations = np.unique(known, axis=0, return_inverse=True)[1].reshape(-1)
    if np.bincount(combinations).max() >= number:
        return combinations
    return known[:, min(range(known.shape[1]), key=lambda output: min((known[:, output] == value).sum() for value in (0, 1)))]


def _split(splitter: object, kinds: NDArray[np.int64], patients: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], ...]]:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # combinations of findings may be rare
        return list(splitter.split(np.zeros(len(kinds)), kinds, patients))  # type: ignore[attr-defined]


def _both(labels: NDArray[np.float64]) -> bool:
    return all((labels[:, output] == value).any() for output in range(labels.shape[1]) for value in (0, 1))
