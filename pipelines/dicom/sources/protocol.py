"""What a source and an archive are: a source gives a folder to take in, an archive is a server that can be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipelines.errors import ServiceError

if TYPE_CHECKING:
    from pipelines.dicom.sources.inbox import Inbox
    from pipelines.dicom.sources.query import Query


@dataclass(frozen=True)
class Counts:
    """What became of the images that a server was asked for.

    Attributes:
        fetched: brought into the inbox.
        seen: not asked for, since the data set or the quarantine holds them, or since they were waiting in the inbox.
        failed: named by the server, and not delivered or unusable; they are asked for again at the next run.
    """

    fetched: int = 0
    seen: int = 0
    failed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.fetched + other.fetched, self.seen + other.seen, self.failed + other.failed)


@dataclass(frozen=True)
class Taken:
    """What is taken in for good, by pseudonym; only what is named here is not asked for again.

    Attributes:
        images: images that the data set holds.
        set_aside: contents of files that the quarantine holds (`Intake`'s `set_aside`).
    """

    images: Set[str]
    set_aside: Set[str]


@dataclass(frozen=True, repr=False)
class Collected:
    """A part of what a source has, ready to be taken in.

    Attributes:
        folder: where the files are.
        more: there is more to collect after this part.
        trouble: why the source could not be read to its end; what came before is here.
    """

    folder: Path
    counts: Counts = Counts()
    more: bool = False
    trouble: ServiceError | None = None


Progressed = Callable[[Counts], None]


class Source(Protocol):
    """Where radiographs come from.

    `collect` and `settle` take turns until there is nothing `more`; a process that is killed at any point loses nothing and
    fetches nothing twice.
    """

    def check(self) -> str:
        """Say in a few words that the source answers.

        Raises:
            RadtransferError: it does not.
        """

    def collect(self, taken: Taken, progressed: Progressed) -> Collected:
        """Bring what is new, or a part of it."""

    def settle(self, images: Mapping[str, str], taken: Taken) -> None:
        """Remember what was taken in, and let go of what the source only held until then.

        Args:
            images: the image of each file of the folder that can be used, by its path there.
        """

    def close(self) -> None:
        """Leave no connection open."""


@dataclass(frozen=True, repr=False)
class Study:
    """A study that a server names.

    Attributes:
        instances: how many instances it has, None where the server does not say.
        day: its StudyDate, None where the server does not say.
    """

    uid: str
    instances: int | None = None
    day: date | None = None


@dataclass(frozen=True, repr=False)
class Instance:
    """An image that a server names, by its UID and those of what it is part of."""

    study: str
    series: str
    uid: str


class Archive(Protocol):
    """A server that radiographs can be found in and fetched from, with nothing remembered between calls."""

    def check(self) -> str:
        """Say in a few words that the server answers; raises ServiceError."""

    def studies(self, query: Query) -> Iterator[Study]:
        """Every study that can hold what the query asks for; raises ServiceError. A study may come several times."""

    def instances(self, study: Study, query: Query) -> list[Instance]:
        """The instances of a study that the query admits, as far as the server tells; raises ServiceError."""

    def fetch(self, instance: Instance, inbox: Inbox) -> None:
        """Bring one instance into the inbox.

        Raises:
            UndeliveredError: the server answers and does not deliver this one.
            ServiceError: the server does not answer, or refuses us.
        """

    def close(self) -> None:
        """Leave no connection open."""


class UndeliveredError(ServiceError):
    """A server answers, and does not deliver one instance; others may come."""
