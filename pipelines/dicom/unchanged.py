"""What became of files that have not changed since, by keyed pseudonyms of their paths, so that they are not opened again.

The data set and the quarantine are the truth: an entry counts only while one of them holds what it names, so an ingest may be
killed at any moment, and losing this table costs reading, never images.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pydicom

from pipelines.dicom.deidentify import Accept
from pipelines.dicom.private_table import transaction
from pipelines.dicom.pseudonyms import Pseudonyms

_TABLES = """
DROP TABLE IF EXISTS settings;
CREATE TABLE settings (value TEXT NOT NULL);  -- under which the files were read
DROP TABLE IF EXISTS file;
CREATE TABLE file (
    path BLOB PRIMARY KEY,   -- pseudonym of source and path
    source BLOB NOT NULL,    -- pseudonym of the source
    size INTEGER NOT NULL, modified_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    fate TEXT NOT NULL,
    image TEXT,              -- of the data set: the file's own, or the one whose UID it has without being it
    held_size INTEGER NOT NULL, held_modified_ns INTEGER NOT NULL,
    reason TEXT, content TEXT,   -- why it was set aside, and the pseudonym of its content
    without_patient INTEGER NOT NULL
) WITHOUT ROWID;
"""
_COLUMNS = "path, size, modified_ns, inode, fate, image, held_size, held_modified_ns, reason, content, without_patient"
_RACY_NS = 2_000_000_000  # a file that was written a moment ago may be written again without a new time (FAT counts in 2 s)


class Stamp(NamedTuple):
    """By what a file is told to be unchanged."""

    size: int
    modified_ns: int
    inode: int

    @classmethod
    def of(cls, path: str | Path) -> Stamp:
        """The stamp of a file; OSError if it is not there."""
        status = os.stat(path)  # noqa: PTH116  # once per file: Path.stat takes three times as long
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)

    def is_settled(self) -> bool:
        """Whether the file was last written so long ago that its time would tell if it had been written since."""
        return abs(time.time_ns() - self.modified_ns) > _RACY_NS


class Entry(NamedTuple):
    """What became of a file.

    Attributes:
        fate: the name of a `Fate`.
        image: see the table.
        held: size and time of the image's file in the data set.
    """

    stamp: Stamp
    fate: str
    image: str | None = None
    held: tuple[int, int] = (0, 0)
    reason: str | None = None
    content: str | None = None
    without_patient: bool = False


@dataclass(frozen=True, repr=False)
class Unchanged:
    """A small SQLite table in the quarantine folder.

    Attributes:
        settings: names what decides the fate of a file; under others the table is empty.
    """

    path: Path
    pseudonyms: Pseudonyms
    settings: str

    @classmethod
    def under(cls, path: Path, pseudonyms: Pseudonyms, accept: Accept, seconds: float) -> Unchanged:
        """The table for files read with these settings, this key and this version."""
        options = sorted(option.name for option in accept.options)
        named = repr((accept.modalities, accept.burned_in, options, seconds, pseudonyms.fingerprint, _version()))
        return cls(path, pseudonyms, hashlib.sha256(named.encode()).hexdigest())

    def entries(self, root: Path) -> dict[bytes, Entry]:
        """What is known of the files of a source, by `key`."""
        if not self.path.is_file():
            return {}
        try:
            with self._open() as table:
                found = table.execute(f"SELECT {_COLUMNS} FROM file WHERE source = ?", (self.key(root, ""),))  # noqa: S608
                return {row[0]: _entry(row) for row in found}
        except sqlite3.OperationalError:  # in use, or not ours to write to
            return {}
        except sqlite3.DatabaseError:  # damaged, as by a machine that lost its power
            self.path.unlink()
            return {}

    def key(self, root: Path, relative: str) -> bytes:
        return self.pseudonyms.path(os.fsencode(root), os.fsencode(relative))

    def remember(self, root: Path, entries: Iterable[tuple[bytes, Entry]], gone: Collection[bytes] = ()) -> None:
        """Remember what became of files, and forget those that are gone; all of it or nothing."""
        source = self.key(root, "")
        rows = [(*_row(key, entry), source) for key, entry in entries]
        if not rows and not gone:
            return
        with self._open() as table:
            table.executemany(f"INSERT OR REPLACE INTO file ({_COLUMNS}, source) VALUES ({', '.join('?' * 12)})", rows)  # noqa: S608
            table.executemany("DELETE FROM file WHERE path = ?", [(key,) for key in gone])

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(self.path, self._set_up)

    def _set_up(self, table: sqlite3.Connection) -> None:
        """Begin anew where the table is not there, or was made under other settings."""
        if not self._are_settings_of(table):
            table.executescript(_TABLES)
            table.execute("INSERT INTO settings VALUES (?)", (self.settings,))

    def _are_settings_of(self, table: sqlite3.Connection) -> bool:
        if not table.execute("SELECT 1 FROM sqlite_master WHERE name = 'settings'").fetchone():
            return False
        return table.execute("SELECT value FROM settings").fetchall() == [(self.settings,)]


def _entry(row: tuple[bytes, int, int, int, str, str | None, int, int, str | None, str | None, int]) -> Entry:
    _, size, modified_ns, inode, fate, image, held_size, held_modified_ns, reason, content, without_patient = row
    held = (held_size, held_modified_ns)
    return Entry(Stamp(size, modified_ns, inode), fate, image, held, reason, content, bool(without_patient))


def _row(key: bytes, entry: Entry) -> tuple[bytes | str | int | None, ...]:
    stamp, fate, image, held, reason, content, without_patient = entry
    return (key, *stamp, fate, image, *held, reason, content, without_patient)


@cache
def _version() -> str:
    """A fingerprint of the code that decides what becomes of a file; after an upgrade everything is read again."""
    here = Path(__file__).parent
    digest = hashlib.sha256(pydicom.__version__.encode())
    for path in sorted([*here.glob("*.py"), *here.glob("*.csv"), *(here.parent / "imaging").glob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
