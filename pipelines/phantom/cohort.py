"""A hospital archive of phantoms: a folder of DICOM files with a label table, some of it in disorder, always the same bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from pipelines import console, files, processes
from pipelines.phantom import encoding, planted, shooting
from pipelines.phantom.plan import EXPLICIT, Shot, shots
from pipelines.phantom.planted import Planted

TARGET = "opacity"
UNLABELLED, UNMATCHED = 3, 4

__all__ = ["TARGET", "Cohort", "Planted", "write"]


@dataclass(frozen=True)
class Cohort:
    """What was written.

    Attributes:
        folder: of the DICOM files; some have no extension.
        labels: CSV file with the columns `SOPInstanceUID` and `opacity` (0/1).
        images: good images; `positives` of them show an opacity.
        patients: who they are of.
        unlabelled: good images without a row in `labels`.
        unmatched: rows of `labels` that name no image.
        planted: the bad files among them.
    """

    folder: Path
    labels: Path
    images: int
    positives: int
    patients: int
    unlabelled: int
    unmatched: int
    planted: tuple[Planted, ...]


def write(folder: Path, images: int = 300, patients: int = 200, seed: int = 7, *, workers: int | None = None) -> Cohort:
    """Write a cohort into `folder`; the same arguments give the same files, whatever the machine and `workers`.

    Raises:
        ValueError: fewer images than patients, or more than two for each.
    """
    planned = shots(images, patients, seed)
    archive = folder / "archive"
    with console.progress() as display:
        task = display.add_task("drawing phantoms", total=len(planned), note="")
        for _ in _each(partial(_write_one, archive, seed), list(enumerate(planned)), workers or processes.cores()):
            display.advance(task)
    bad = planted.plant(archive, _model(planned, seed), seed)
    labels = folder / "labels.csv"
    files.write_text(labels, _label_table(planned, seed))
    positives = sum(shot.study.positive for shot in planned)
    return Cohort(archive, labels, len(planned), positives, patients, UNLABELLED, UNMATCHED, bad)


def location(number: int, shot: Shot) -> str:
    """Where the image lies: one hospital sorts by patient, the other numbers its files and gives them no extension."""
    patient = shot.study.patient.number
    if shot.study.patient.hospital == 0:
        return f"elmo/{patient // 50:02d}/patient-{patient:04d}/{shot.study.kind}-{shot.view}.dcm"
    return f"moor/{number % 16:x}/IM{number:06d}"


def _write_one(archive: Path, seed: int, entry: tuple[int, Shot]) -> None:
    number, shot = entry
    content = encoding.to_bytes(shooting.radiograph(shot, seed), shot.syntax)
    files.write_bytes(archive / location(number, shot), content)


def _each(work: partial[None], entries: list[tuple[int, Shot]], workers: int, fewest: int = 24) -> Iterator[None]:
    """Run `work` on every entry, in several processes if there are at least `fewest`."""
    if workers == 1 or len(entries) < fewest:
        yield from map(work, entries)
        return
    with processes.pool(workers, __name__, processes.keep_memory) as pool:
        yield from pool.map(work, entries, chunksize=8)


def _model(planned: tuple[Shot, ...], seed: int) -> Dataset:
    """The image that the bad files are made from: the first that is stored uncompressed, of the first hospital."""
    first = next(shot for shot in planned if shot.syntax == EXPLICIT)
    return shooting.radiograph(first, seed)


def _label_table(planned: tuple[Shot, ...], seed: int) -> str:
    """One row per image but for a few that have none, and a few rows of images that are not there, in no order."""
    rng = np.random.default_rng([seed, 5])
    rows = [(str(shooting.header(shot, seed).SOPInstanceUID), int(shot.study.positive)) for shot in planned]
    rows = [rows[index] for index in rng.permutation(len(rows))][UNLABELLED:]
    rows += [(str(encoding.uid("elsewhere", seed, number)), number % 2) for number in range(UNMATCHED)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("SOPInstanceUID", TARGET))
    writer.writerows(rows[index] for index in rng.permutation(len(rows)))
    return text.getvalue()
