"""Many radiographs on many cores, in order, with bounded memory and time; a file that kills or hangs its process costs itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2

from pipelines.errors import RefusedFileError
from pipelines.imaging.radiograph import Prepared, Recipe, prepare, read
from pipelines.isolation import Bounds, Crew, Lost
from pipelines.records import Reason

SECONDS = 60
"""Processor time, in seconds, after which a decoder counts as hung; the largest image allowed takes about ten."""

MEMORY_BYTES = 2 << 30
"""What one file may take, beyond what a worker has when it starts; the largest image allowed takes about half of it."""

_AHEAD = 8
_WAITING_BYTES = 64 << 20


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
    bytes: int = 0


def prepare_file(source: Path | bytes, recipe: Recipe) -> Outcome:
    """Prepare one file; a file that cannot be used gives its reason instead of an error.

    Raises:
        OSError: the file cannot be read at all.
    """
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    try:
        return Outcome(prepare(read(source), recipe), None, size)
    except RefusedFileError as error:
        return Outcome(None, error.reason, size)
    except MemoryError:
        return Outcome(None, Reason.SIZE, size)


def prepare_if_readable(source: Path | bytes, recipe: Recipe) -> Outcome:
    """`prepare_file`, in which a file that cannot be read at all gives its reason, too."""
    try:
        return prepare_file(source, recipe)
    except OSError:
        return Outcome(None, Reason.UNREADABLE)


def prepare_files(
    sources: Iterable[Path],
    recipe: Recipe,
    workers: int,
    seconds: float = SECONDS,
    *,
    forgiving: bool = False,
    command: str = "prepare",
) -> Iterator[Outcome]:
    """Prepare files in `workers` processes and give the outcomes in the order of `sources`.

    At most eight files per process are under way or waiting to be taken, and fewer where their arrays are large. A file that
    crashes its process is left out as undecodable, one that runs out of time as such.

    Args:
        seconds: processor time for one file.
        forgiving: a file that cannot be read at all is left out as unreadable, and does not stop the work.
        command: whose work it is, for errors.

    Raises:
        OSError: a file cannot be read at all.
        ServiceError: processes end as they start.
    """
    prepared = prepare_if_readable if forgiving else prepare_file
    bounds, most = Bounds(seconds, MEMORY_BYTES), ahead(recipe, workers)
    crew = Crew(command, _outcome, bounds, _start, (prepared, recipe), __name__, workers, together=1, ahead=most)
    for result in crew.results(sources):
        yield Outcome(None, _LOST[result]) if isinstance(result, Lost) else result


_LOST = {Lost.CRASHED: Reason.UNDECODABLE, Lost.HUNG: Reason.TIMEOUT}


def ahead(recipe: Recipe, workers: int) -> int:
    """How many files may be under way or waiting: eight per process, but two per process where more would take 64 MiB."""
    array = recipe.size * recipe.size * recipe.dtype.itemsize
    return max(2 * workers, min(_AHEAD * workers, _WAITING_BYTES // array))


Work = Callable[[Path, Recipe], Outcome]
_work: tuple[Work, Recipe] | None = None


def _outcome(source: Path) -> Outcome:
    if _work is None:
        raise RuntimeError("a worker without work")
    prepared, recipe = _work
    return prepared(source, recipe)


def _start(prepared: Work, recipe: Recipe) -> None:
    global _work
    _work = prepared, recipe
    cv2.setNumThreads(1)
