"""Many radiographs on many cores, in order, with bounded memory; a file that kills its process costs only itself."""

from __future__ import annotations

import os
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

_AHEAD = 8


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
    content = path.read_bytes()
    try:
        return Outcome(prepare(read(content), recipe), None, len(content))
    except RefusedFileError as error:
        return Outcome(None, error.reason, len(content))


def prepare_files(sources: Iterable[Path], recipe: Recipe, workers: int) -> Iterator[Outcome]:
    """Prepare files in `workers` processes and give the outcomes in the order of `sources`.

    At most eight files per process are under way or waiting to be taken. When a decoder takes its process down, the files
    under way are done again one by one in processes of their own, and the one that crashes again is left out as
    undecodable.
    """
    remaining = iter(sources)
    waiting: deque[tuple[Path, Future[Outcome]]] = deque()
    pool = _pool(workers)
    try:
        while True:
            while len(waiting) < _AHEAD * workers and (path := next(remaining, None)) is not None:
                waiting.append((path, _submit(pool, path, recipe)))
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
                    yield _alone(path, recipe)
                pool = _pool(workers)
                continue
            yield outcome
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, path: Path, recipe: Recipe) -> Future[Outcome]:
    try:
        return pool.submit(prepare_file, path, recipe)
    except BrokenProcessPool as error:
        failed: Future[Outcome] = Future()
        failed.set_exception(error)
        return failed


def _alone(path: Path, recipe: Recipe) -> Outcome:
    with _pool(1) as pool:
        try:
            return pool.submit(prepare_file, path, recipe).result()
        except BrokenProcessPool:
            return Outcome(None, Reason.UNDECODABLE, path.stat().st_size)


def _pool(workers: int) -> ProcessPoolExecutor:
    pool = processes.pool(workers, __name__, _start)
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise ServiceError(
            "prepare: worker processes end as they start, so no file can be judged; "
            'a script that calls this needs `if __name__ == "__main__":`, else look at the memory of this machine'
        ) from error
    return pool


def _start() -> None:
    cv2.setNumThreads(1)
