"""De-identify many files on many cores, in order, with bounded memory and time; a file that kills its process costs itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from math import ceil
from pathlib import Path

import cv2

from pipelines.dicom.account import Treatment
from pipelines.dicom.deidentify import Accept, Clean, Row, deidentify, image_sha256
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.quarantine import LARGEST_COPY
from pipelines.dicom.reading import open_source
from pipelines.dicom.unchanged import Stamp
from pipelines.errors import RefusedFileError
from pipelines.isolation import Bounds, Crew, Lost
from pipelines.processes import cores
from pipelines.records import Reason

MEMORY_BYTES = 2 << 30
"""What one file may take, beyond what a worker has when it starts."""

_FEWEST_EACH = 4  # files that are worth another process
_TOGETHER = 8
_AHEAD = 4


class Fate(Enum):
    """What became of a file."""

    NEW = auto()
    ALREADY = auto()
    DIRECTORY = auto()
    REFUSED = auto()


@dataclass(frozen=True, repr=False)
class Job:
    """What every worker needs to know.

    Attributes:
        root: the source.
        staging: where de-identified files wait to be taken over, on the file system of the data set.
        held: the files that the data set holds, by image.
        seconds: processor time that one file may take.
    """

    root: Path
    staging: Path
    pseudonyms: Pseudonyms
    accept: Accept
    held: Mapping[str, Path]
    seconds: float


@dataclass(frozen=True, repr=False)
class Outcome:
    """What became of one file of the source.

    Attributes:
        relative: its path.
        image: the image's pseudonym, if it is one that can be used.
        image_sha256: of the stored image.
        row: its row of the manifest.
        staged: the de-identified file, if it is new.
        reason: why it is refused.
        treatment: what was done to its header, if the data set holds it so, or will.
        blanked: text in its pixels was blanked.
        rival: the image of the data set whose UID it has without being it.
        lasting: it is of no use to try again while neither the file nor the settings change.
    """

    relative: str
    fate: Fate
    image: str | None = None
    image_sha256: str = ""
    row: Row | None = None
    staged: Path | None = None
    reason: Reason | None = None
    without_patient: bool = False
    treatment: Treatment | None = None
    blanked: bool = False
    rival: str | None = None
    lasting: bool = True


def deidentify_files(files: Sequence[str], job: Job) -> Iterator[Outcome]:
    """De-identify files in processes of their own; outcomes come in the order of `files`.

    A file that crashes its process, or takes longer than it may, is refused, and the others go on.

    Raises:
        ServiceError: processes end as they start.
    """
    workers = min(cores(), ceil(len(files) / _FEWEST_EACH))
    together = max(1, min(_TOGETHER, len(files) // (_AHEAD * max(workers, 1))))
    bounds = Bounds(job.seconds, MEMORY_BYTES)
    crew = Crew("ingest", _outcome, bounds, _start, (job,), __name__, workers, together, _AHEAD * workers)
    for relative, result in zip(files, crew.results(enumerate(files)) if files else (), strict=True):
        yield Outcome(relative, Fate.REFUSED, reason=_LOST[result]) if isinstance(result, Lost) else result


_LOST = {Lost.CRASHED: Reason.UNDECODABLE, Lost.HUNG: Reason.TIMEOUT}


def _outcome(numbered: tuple[int, str]) -> Outcome:
    number, relative = numbered
    job, path = _get_job(), _get_job().root / relative
    try:
        before = Stamp.of(path)
        found = _read(path, before, job)
        if Stamp.of(path) != before:
            return Outcome(relative, Fate.REFUSED, reason=Reason.CHANGED, lasting=False)
    except (FileNotFoundError, NotADirectoryError):
        return Outcome(relative, Fate.REFUSED, reason=Reason.CHANGED, lasting=False)
    except OSError:
        return Outcome(relative, Fate.REFUSED, reason=Reason.UNREADABLE, lasting=False)
    if isinstance(found, Reason):
        return Outcome(relative, Fate.REFUSED, reason=found)
    return _settled(number, relative, found, job) if found else Outcome(relative, Fate.DIRECTORY)


def _read(path: Path, before: Stamp, job: Job) -> Clean | Reason | None:
    """De-identify a file, or say why it cannot be used.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as stream:  # Path.open takes no opener
            if before.size > LARGEST_COPY:
                open_source(stream)
                return Reason.SIZE
            return deidentify(stream, job.pseudonyms, job.accept)
    except RefusedFileError as error:
        return error.reason
    except OSError:
        raise
    except MemoryError:
        return Reason.SIZE
    except Exception:  # whatever a hostile header brings about must not stop the other files
        return Reason.UNREADABLE


def _without_waiting(path: str, flags: int) -> int:
    """Open what was a file when it was found; a pipe that came in its place would wait for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _settled(number: int, relative: str, clean: Clean, job: Job) -> Outcome:
    """Compare a clean file with what the data set holds, and put a new one where it waits to be taken over."""
    held = _held_image(clean, job)
    if held is not None and held != clean.image_sha256:
        return Outcome(relative, Fate.REFUSED, reason=Reason.DUPLICATE, rival=clean.image)
    known = partial(
        Outcome,
        relative,
        image=clean.image,
        image_sha256=clean.image_sha256,
        row=clean.row,
        without_patient=clean.without_patient,
    )
    if held is not None:
        same = job.held[clean.image].read_bytes() == clean.content
        return known(fate=Fate.ALREADY, treatment=clean.treatment if same else None)
    staged = job.staging / f"{number}.dcm"
    staged.write_bytes(clean.content)
    return known(fate=Fate.NEW, staged=staged, treatment=clean.treatment, blanked=clean.blanked)


def _held_image(clean: Clean, job: Job) -> str | None:
    """The hash of the image that the data set holds under the same UID; None if there is none or it is damaged."""
    path = job.held.get(clean.image)
    if path is None:
        return None
    try:
        with path.open("rb") as stream:
            return image_sha256(stream)
    except RefusedFileError:
        return None


_job: Job | None = None


def _start(job: Job) -> None:
    global _job
    _job = job
    cv2.setNumThreads(1)


def _get_job() -> Job:
    if _job is None:
        raise RuntimeError("a worker without a job")
    return _job
