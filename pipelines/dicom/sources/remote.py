"""Fetch from a server what is new into the inbox, in parts, so that it never holds more than one part at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import date, timedelta

from pipelines.dicom.sources.inbox import Inbox
from pipelines.dicom.sources.local import InboxSource
from pipelines.dicom.sources.memory import Memory, Visit
from pipelines.dicom.sources.protocol import (
    Archive,
    Collected,
    Counts,
    Instance,
    Progressed,
    Study,
    Taken,
    UndeliveredError,
)
from pipelines.dicom.sources.query import Query
from pipelines.errors import ServiceError

PART = 1000
"""Images that are fetched before they are taken in."""
STILL_CHANGING_DAYS = 7
"""A study of the last so many days is looked into at every run: a replaced image leaves the number of images as it was."""
FAILURES_IN_A_ROW = 5
"""After so many instances that it does not deliver, one after the other, a server counts as out of order."""


@dataclass(repr=False)
class RemoteSource:
    """A server, and the inbox that its images pass through.

    Attributes:
        wish: tells apart which server is asked for what.
        today: the day of this run.
    """

    archive: Archive
    query: Query
    inbox: Inbox
    memory: Memory
    part: int = PART
    wish: str = ""
    today: date = field(default_factory=date.today)
    _studies: Iterator[Study] | None = None
    _met: set[str] = field(default_factory=set)
    _asked: set[str] = field(default_factory=set)
    _visits: list[Visit] = field(default_factory=list)
    _counts: Counts = field(default_factory=Counts)
    _failures: int = 0
    _delivered: bool = True
    _exhausted: bool = False

    def __post_init__(self) -> None:
        self._waiting = InboxSource(self.inbox, self.memory)

    def check(self) -> str:
        return self.archive.check()

    def collect(self, taken: Taken, progressed: Progressed) -> Collected:
        """Fetch the next `part` images; where the server gives out, what came until then is collected all the same."""
        start = self._waiting.collect(taken, progressed).counts  # what a killed run or a listener left is taken in first
        known = self.memory.known(taken) | {file.image for file in self.inbox.waiting()}
        self._counts, trouble = Counts(seen=start.seen), None
        try:
            for study in self._remaining():
                self._visit(study, known, progressed)
                if start.fetched + self._counts.fetched >= self.part:
                    break
            else:
                self._exhausted = True
        except ServiceError as error:
            trouble = ServiceError(str(error))
        self._waiting.give()
        return Collected(self.inbox.ready, self._counts, not self._exhausted and trouble is None, trouble)

    def settle(self, images: Mapping[str, str], taken: Taken) -> None:
        """Remember the files and the studies that are taken in for good, and remove the files from the inbox."""
        self._waiting.let_go(images, taken, ())
        known = self.memory.known(taken)
        self.memory.remember((), [visit for visit in self._visits if visit.images <= known])
        self._visits.clear()
        if self._exhausted and self._delivered:
            self.memory.complete(self.wish, self.today)

    def close(self) -> None:
        self.archive.close()

    def _remaining(self) -> Iterator[Study]:
        """The studies that were not visited yet, each once."""
        if self._studies is None:
            self._studies = self.archive.studies(self.query.since(self.memory.completed(self.wish)))
        for study in self._studies:
            pseudonym = self._pseudonym(study.uid)
            if pseudonym not in self._met:
                self._met.add(pseudonym)
                yield study

    def _visit(self, study: Study, known: Set[str], progressed: Progressed) -> None:
        """Fetch what is not known of a study."""
        name, query = self._pseudonym(study.uid), self.query.fingerprint
        seen = self.memory.visited(name, study.instances, query, known)
        if seen is not None:
            self._counts += Counts(seen=seen)
            return
        images: set[str] = set()
        for instance in self.archive.instances(study, self.query):
            image = self._pseudonym(instance.uid)
            images.add(image)
            if image in self._asked:
                continue  # the server names it twice
            self._asked.add(image)
            self._counts += Counts(seen=1) if image in known else self._fetch(instance)
            progressed(self._counts)
        if study.instances is not None and self._is_settled(study, images):
            self._visits.append(Visit(name, study.instances, query, frozenset(images)))

    def _is_settled(self, study: Study, images: Set[str]) -> bool:
        """Whether a study can be passed over while the number of its instances stays as it is."""
        if study.day and study.day > self.today - timedelta(days=STILL_CHANGING_DAYS):
            return False
        # one that the server found by our wishes and that holds nothing of them is suspicious
        return bool(images or self.query.body_parts)

    def _fetch(self, instance: Instance) -> Counts:
        try:
            self.archive.fetch(instance, self.inbox)
        except UndeliveredError as error:
            self._delivered = False
            self._failures += 1
            if self._failures >= FAILURES_IN_A_ROW:
                raise ServiceError(
                    f"{error}; so went {self._failures} images in a row, so the rest is left for another time"
                ) from None
            return Counts(failed=1)
        self._failures = 0
        return Counts(fetched=1)

    def _pseudonym(self, uid: str) -> str:
        return self.inbox.pseudonyms.uid(uid)
