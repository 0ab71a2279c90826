"""Audit many files on many cores, in order; one that crashes or hangs a decoder is a finding, and hides no other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from math import ceil
from pathlib import Path
from typing import BinaryIO

import cv2

from pipelines.dicom.audit import Finding, Why, audit, audit_with_text
from pipelines.dicom.quarantine import LARGEST_COPY
from pipelines.dicom.reading import open_source
from pipelines.dicom.workers import MEMORY_BYTES
from pipelines.errors import RefusedFileError
from pipelines.isolation import Bounds, Crew, Lost
from pipelines.processes import cores
from pipelines.records import Reason

SECONDS = 60
"""Processor time that one file may take."""

_DIGITS = 12
_FEWEST_EACH = 16  # files that are worth another process
_AHEAD = 8

Look = Callable[[BinaryIO], tuple[Finding, ...]]


class Fate(Enum):
    """What became of a file."""

    EXAMINED = auto()
    NOT_DICOM = auto()
    UNREADABLE = auto()


@dataclass(frozen=True)
class Examined:
    """What is found in a file, and the first digits of its hash; none where it may not be opened, or cost its process."""

    fate: Fate
    findings: tuple[Finding, ...] = ()
    digits: str = ""


def examine_files(paths: Sequence[Path], *, pixels: bool) -> Iterator[Examined]:
    """Audit files in processes of their own, with the text in their images if `pixels`; in the order of `paths`.

    Raises:
        ServiceError: processes end as they start.
    """
    workers = max(1, min(cores(), ceil(len(paths) / _FEWEST_EACH)))
    bounds = Bounds(SECONDS, MEMORY_BYTES)
    crew = Crew("deid-check", _examined, bounds, _start, (pixels,), __name__, workers, 1, _AHEAD * workers)
    for result in crew.results(paths) if paths else ():
        yield Examined(Fate.EXAMINED, _CANNOT_READ) if isinstance(result, Lost) else result


def examine(path: Path, look: Look) -> Examined:
    """Audit one file by `look`; whatever a hostile file brings about is a finding."""
    try:
        digits = _digits(path)
        with path.open("rb") as stream:
            if path.stat().st_size <= LARGEST_COPY:
                return Examined(Fate.EXAMINED, look(stream), digits)
            open_source(stream)
    except OSError:
        return Examined(Fate.UNREADABLE)
    except RefusedFileError as error:
        if error.reason is Reason.NOT_DICOM:
            return Examined(Fate.NOT_DICOM)
    except Exception:  # noqa: S110  # must not hide the other files
        pass
    return Examined(Fate.EXAMINED, _CANNOT_READ, digits)


_CANNOT_READ = (Finding("file", Why.CANNOT_READ.value),)


def _digits(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:_DIGITS]


_look: Look | None = None


def _start(pixels: bool) -> None:
    global _look
    _look = audit_with_text if pixels else audit
    cv2.setNumThreads(1)


def _examined(path: Path) -> Examined:
    if _look is None:
        raise RuntimeError("a worker without a job")
    return examine(path, _look)
