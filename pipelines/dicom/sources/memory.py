"""What was seen, by keyed pseudonyms, so that a nightly run asks only for what is new.

The data set and the quarantine are the truth: an entry counts only while one of them holds what it names, so nothing is
forgotten that was lost there, and losing this file costs questions, never images.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipelines.dicom.private_table import transaction
from pipelines.dicom.sources.inbox import Waiting
from pipelines.dicom.sources.protocol import Taken

_TABLES = """
CREATE TABLE IF NOT EXISTS file (
    content TEXT NOT NULL,  -- pseudonym of the bytes
    image TEXT NOT NULL,    -- pseudonym of the SOP Instance UID that it was asked for or sent as
    held TEXT,              -- the image of the data set that it became; NULL where it was set aside
    accept TEXT NOT NULL,   -- under which settings it was set aside
    PRIMARY KEY (content, image)
);
CREATE TABLE IF NOT EXISTS study (
    study TEXT PRIMARY KEY,
    instances INTEGER NOT NULL,  -- as the server counted them
    query TEXT NOT NULL,         -- what was wanted of it
    images TEXT NOT NULL         -- pseudonyms of the instances that were wanted, JSON
);
CREATE TABLE IF NOT EXISTS complete (
    wish TEXT PRIMARY KEY,  -- which server was asked for what
    day TEXT NOT NULL       -- of the last run that brought all of it
);
"""


@dataclass(frozen=True)
class Visit:
    """A study whose wanted instances have all been asked for.

    Attributes:
        study: its pseudonym.
        instances: how many it has, as the server counts them.
        query: `Query.fingerprint`.
        images: pseudonyms of the wanted ones.
    """

    study: str
    instances: int
    query: str
    images: frozenset[str]


@dataclass(frozen=True)
class Memory:
    """A small SQLite table beside the inbox.

    Attributes:
        accept: names the settings that decide what is set aside; under others it is asked for again.
    """

    path: Path
    accept: str

    def mend(self) -> None:
        """Begin anew where the table is damaged, as by a machine that lost its power: that costs questions only."""
        try:
            with self._open() as table:
                whole = table.execute("PRAGMA quick_check").fetchone() == ("ok",)
        except sqlite3.OperationalError:  # locked, or a full disk
            raise
        except sqlite3.DatabaseError:
            whole = False
        if not whole:
            self.path.unlink()

    def known(self, taken: Taken) -> frozenset[str]:
        """Pseudonyms of the images that need not be asked for."""
        return frozenset(image for _, image in self._valid(taken)) | taken.images

    def settled(self, waiting: Iterable[Waiting], taken: Taken) -> list[Waiting]:
        """Those files whose very bytes were taken in before, and still are."""
        valid = self._valid(taken)
        return [file for file in waiting if (file.content, file.image) in valid]

    def _valid(self, taken: Taken) -> set[tuple[str, str]]:
        """Content and image of the files whose image the data set, or whose copy the quarantine, still holds."""
        with self._open() as table:
            return {
                (content, image)
                for content, image, held, accept in table.execute("SELECT content, image, held, accept FROM file")
                if held in taken.images or (held is None and accept == self.accept and content in taken.set_aside)
            }

    def remember(self, files: Iterable[tuple[Waiting, str | None]], visits: Iterable[Visit]) -> None:
        """Remember files with the image that each became (None: set aside), and visits; all of it or nothing."""
        with self._open() as table:
            table.executemany(
                "INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?)",
                [(file.content, file.image, held, self.accept) for file, held in files],
            )
            table.executemany(
                "INSERT OR REPLACE INTO study VALUES (?, ?, ?, ?)",
                [(visit.study, visit.instances, visit.query, _array(visit.images)) for visit in visits],
            )

    def visited(self, study: str, instances: int | None, query: str, known: Set[str]) -> int | None:
        """How many images of a study are known, where it has not changed since all of them were; None where it must be asked."""
        if instances is None:
            return None
        with self._open() as table:
            row = table.execute("SELECT instances, query, images FROM study WHERE study = ?", (study,)).fetchone()
        if row is None or row[:2] != (instances, query):
            return None
        images = json.loads(row[2])
        return len(images) if known >= set(images) else None

    def complete(self, wish: str, day: date) -> None:
        """Remember that all of a wish was brought by the run of a day."""
        with self._open() as table:
            table.execute("INSERT OR REPLACE INTO complete VALUES (?, ?)", (wish, day.isoformat()))

    def completed(self, wish: str) -> date | None:
        """The day of the last run that brought all of a wish, None if there was none."""
        with self._open() as table:
            row = table.execute("SELECT day FROM complete WHERE wish = ?", (wish,)).fetchone()
        return date.fromisoformat(row[0]) if row else None

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(self.path, lambda table: table.executescript(_TABLES))


def _array(values: Iterable[str]) -> str:
    return json.dumps(sorted(values))
