"""What to ask a server for: modalities, body parts, and dates."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta

from pipelines.config_sources import QuerySection
from pipelines.dicom.vocabulary import squashed

LONGEST_GAP_DAYS = 30
"""So far back nights are made up for: an image that a server never delivers must not hold the window open for ever."""


@dataclass(frozen=True)
class Query:
    """Which studies and images are wanted.

    Attributes:
        modalities: values of Modality.
        body_parts: values of BodyPartExamined; () wants all.
        first: earliest StudyDate, None for any.
        last: latest StudyDate, None for any, those of tomorrow included (clocks differ).
        last_days: how many days `first` lies before the day of the run, None where it is a date.
    """

    modalities: tuple[str, ...]
    body_parts: tuple[str, ...] = ()
    first: date | None = None
    last: date | None = None
    last_days: int | None = None

    @classmethod
    def of(cls, section: QuerySection, modalities: tuple[str, ...], today: date) -> Query:
        """The query that params.yaml describes, on the day `today`."""
        first = _date(section.date_from) if section.last_days is None else today - timedelta(days=section.last_days)
        names = tuple(name.upper() for name in modalities)
        return cls(names, section.body_parts, first, _date(section.date_to), section.last_days)

    def since(self, complete: date | None) -> Query:
        """The same, with `last_days` counted from the last run that brought everything, `LONGEST_GAP_DAYS` back at most."""
        if self.last_days is None or self.first is None or complete is None:
            return self
        made_up = max(complete - timedelta(days=self.last_days), self.first - timedelta(days=LONGEST_GAP_DAYS))
        return replace(self, first=min(self.first, made_up))

    @property
    def dates(self) -> str:
        """The range of StudyDate (PS3.4 C.2.2.2.5), "" for any."""
        return _range(self.first, self.last)

    def windows(self, days: int, today: date) -> Iterator[str]:
        """The range of StudyDate in pieces of `days` days, so that no answer is long; one piece where it has no beginning."""
        if self.first is None:
            yield self.dates
            return
        start, last = self.first, self.last or today
        while start <= last:
            end = start + timedelta(days=days - 1)
            yield _range(start, min(end, last) if self.last or end < last else None)
            start = end + timedelta(days=1)

    def admits(self, modality: str | None, body_part: str | None) -> bool:
        """Whether an image is wanted; what the server does not say cannot be held against it."""
        if modality and modality.upper() not in self.modalities:
            return False
        return not self.body_parts or not body_part or squashed(body_part) in map(squashed, self.body_parts)

    @property
    def fingerprint(self) -> str:
        """By which two queries are told apart that want other images of the same study."""
        return hashlib.sha256(repr((sorted(self.modalities), sorted(self.body_parts))).encode()).hexdigest()[:16]


def _range(first: date | None, last: date | None) -> str:
    start, end = (f"{day:%Y%m%d}" if day else "" for day in (first, last))
    return "" if not start and not end else start if start == end else f"{start}-{end}"


def _date(day: int | None) -> date | None:
    return date.fromisoformat(str(day)) if day else None
