"""Many radiographs on many cores, in order, with bounded memory and time; a file that kills or hangs its process costs itself.

A decoder written in C can loop for ever or ask for any amount of memory. Each worker therefore sets its own alarm, which
ends it, and has a limit to its memory.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2

from pipelines import processes
from pipelines.errors import RefusedFileError, ServiceError
from pipelines.imaging.radiograph import Prepared, Recipe, prepare, read
from pipelines.records import Reason

SECONDS = 60
"""Processor time, in seconds, after which a decoder counts as hung; the largest image allowed takes about ten."""

MEMORY_BYTES = 2 << 30
"""What one file may take, beyond what a worker has when it starts; the largest image allowed takes about half of it."""

_AHEAD = 8
_WAITING_BYTES = 64 << 20
_WALL = 10  # a decoder that waits, and does not work, has this many times as long


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        prepared: the prepared image, or None for one that is left out.
        left_out: why it is left out, or None.
        bytes: size of the file.
    """

    prepared: Prepared | None
    left_out: Reason | None
    bytes: int


def prepare_file(path: Path, recipe: Recipe) -> Outcome:
    """Prepare one file; a file that cannot be used gives its reason instead of an error.

    Raises:
        OSError: the file cannot be read at all.
    """
    size = path.stat().st_size
    try:
        return Outcome(prepare(read(path), recipe), None, size)
    except RefusedFileError as error:
        return Outcome(None, error.reason, size)
    except MemoryError:
        return Outcome(None, Reason.SIZE, size)


def prepare_files(sources: Iterable[Path], recipe: Recipe, workers: int, seconds: float = SECONDS) -> Iterator[Outcome]:
    """Prepare files in `workers` processes and give the outcomes in the order of `sources`.

    At most eight files per process are under way or waiting to be taken, and fewer where their arrays are large. When a
    decoder takes its process down, the files under way are done again one by one in processes of their own, and the one
    that crashes again is left out as undecodable, the one that runs out of time as such.

    Args:
        seconds: processor time for one file.
    """
    remaining = iter(sources)
    waiting: deque[tuple[Path, Future[Outcome]]] = deque()
    most = ahead(recipe, workers)
    pool = _pool(workers)
    try:
        while True:
            while len(waiting) < most and (path := next(remaining, None)) is not None:
                waiting.append((path, _submit(pool, path, recipe, seconds)))
            if not waiting:
                return
            path, future = waiting.popleft()
            try:
                outcome = future.result()
            except BrokenProcessPool:
                pool.shutdown(wait=True)
                stranded = [path, *(other for other, _ in waiting)]
                waiting.clear()
                for path in stranded:
                    yield _alone(path, recipe, seconds)
                pool = _pool(workers)
                continue
            yield outcome
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def ahead(recipe: Recipe, workers: int) -> int:
    """How many files may be under way or waiting: eight per process, but two per process where more would take 64 MiB."""
    array = recipe.size * recipe.size * recipe.dtype.itemsize
    return max(2 * workers, min(_AHEAD * workers, _WAITING_BYTES // array))


def _submit(pool: ProcessPoolExecutor, path: Path, recipe: Recipe, seconds: float) -> Future[Outcome]:
    try:
        return pool.submit(_watched, path, recipe, seconds)
    except BrokenProcessPool as error:
        failed: Future[Outcome] = Future()
        failed.set_exception(error)
        return failed


def _watched(path: Path, recipe: Recipe, seconds: float) -> Outcome:
    """`prepare_file` with alarms set, which end this process: nothing else stops a loop in C."""
    _set_alarms(seconds)
    try:
        return prepare_file(path, recipe)
    finally:
        _set_alarms(0)


def _set_alarms(seconds: float) -> None:
    if os.name == "posix":
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, _WALL * seconds)


def _alone(path: Path, recipe: Recipe, seconds: float) -> Outcome:
    ended = processes.alone(__name__, _start, _watched, path, recipe, seconds)
    if not ended.started:
        raise ServiceError(_NO_WORKERS)
    if ended.result is not None:
        outcome: Outcome = ended.result
        return outcome
    hung = os.name == "posix" and ended.signal in (signal.SIGPROF, signal.SIGALRM)
    return Outcome(None, Reason.TIMEOUT if hung else Reason.UNDECODABLE, path.stat().st_size)


_NO_WORKERS = (
    "prepare: worker processes end as they start, so no file can be judged; "
    'a script that calls this needs `if __name__ == "__main__":`, else look at the memory of this machine'
)


def _pool(workers: int) -> ProcessPoolExecutor:
    pool = processes.pool(workers, __name__, _start)
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise ServiceError(_NO_WORKERS) from error
    return pool


def _start() -> None:
    cv2.setNumThreads(1)
    if os.name == "posix":
        for alarm in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(alarm, signal.SIG_DFL)
        _limit_memory()


def _limit_memory() -> None:
    import resource

    try:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:  # no Linux: what a process holds is not known here
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = held + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
