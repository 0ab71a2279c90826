"""De-identify many files on many cores, in order, with bounded memory."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice
from pathlib import Path

from pipelines import processes
from pipelines.dicom.deidentify import Accept, Clean, Row, deidentify, image_sha256
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.errors import RefusedFileError, ServiceError
from pipelines.processes import cores
from pipelines.records import Reason

FEWEST_FOR_A_POOL = 64
_CHUNK = 8
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
    """

    root: Path
    staging: Path
    pseudonyms: Pseudonyms
    accept: Accept
    held: Mapping[str, Path]


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
    """

    relative: str
    fate: Fate
    image: str | None = None
    image_sha256: str = ""
    row: Row | None = None
    staged: Path | None = None
    reason: Reason | None = None
    without_patient: bool = False


def deidentify_files(files: Iterable[str], total: int, job: Job) -> Iterator[Outcome]:
    """De-identify files, in a pool of processes if there are many; outcomes come in the order of `files`.

    Raises:
        ServiceError: a worker process died.
    """
    numbered = enumerate(files)
    if total < FEWEST_FOR_A_POOL or cores() < 2 or multiprocessing.current_process().daemon:
        for number, relative in numbered:
            yield _outcome(number, relative, job)
        return
    waiting: deque[Future[list[Outcome]]] = deque()
    pool = processes.pool(cores(), __name__, _start, job)
    try:
        while True:
            while len(waiting) < _AHEAD * cores() and (chunk := list(islice(numbered, _CHUNK))):
                waiting.append(pool.submit(_chunk, chunk))
            if not waiting:
                return
            yield from waiting.popleft().result()
    except BrokenProcessPool:
        raise ServiceError(
            "a worker process died (out of memory?); run `radtransfer ingest` again: it goes on where it stopped"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _outcome(number: int, relative: str, job: Job) -> Outcome:
    try:
        with (job.root / relative).open("rb") as stream:
            clean = deidentify(stream, job.pseudonyms, job.accept)
    except RefusedFileError as error:
        return Outcome(relative, Fate.REFUSED, reason=error.reason)
    except Exception:  # whatever a hostile header brings about must not stop the other files
        return Outcome(relative, Fate.REFUSED, reason=Reason.UNREADABLE)
    if clean is None:
        return Outcome(relative, Fate.DIRECTORY)
    held = _held_image(clean, job)
    if held is not None and held != clean.image_sha256:
        return Outcome(relative, Fate.REFUSED, reason=Reason.DUPLICATE)
    known = (clean.image, clean.image_sha256, clean.row)
    if held is not None:
        return Outcome(relative, Fate.ALREADY, *known, without_patient=clean.without_patient)
    staged = job.staging / f"{number}.dcm"
    staged.write_bytes(clean.content)
    return Outcome(relative, Fate.NEW, *known, staged=staged, without_patient=clean.without_patient)


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


def _chunk(chunk: list[tuple[int, str]]) -> list[Outcome]:
    if _job is None:
        raise RuntimeError("a worker without a job")
    return [_outcome(number, relative, _job) for number, relative in chunk]
