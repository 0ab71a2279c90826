"""Files that cannot be used: copied, still identified, into a private folder outside every workspace, with the reason."""

from __future__ import annotations

import csv
import io
import os
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pipelines.files import replacing, sha256
from pipelines.records import Reason

LIST = "quarantine.csv"
COLUMNS = ("file", "original", "reason", "when")
LARGEST_COPY = 1 << 30


@dataclass
class Quarantine:
    """The quarantine of one workspace; the folder is made, for its owner alone, with the first file.

    `quarantine.csv` names each file: its name here ("" if it was not copied, being unreadable or larger than a gigabyte),
    its path in the source, the reason code, and when.
    """

    folder: Path
    _listed: set[tuple[str, str, str]] = field(default_factory=set, init=False, repr=False)
    _copies: dict[tuple[str, str], str] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        path = self.folder / LIST
        if path.is_file():
            if not path.read_bytes().endswith(b"\n"):  # killed while writing a line
                with path.open("a") as stream:
                    stream.write("\r\n")
            with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
                self._listed = {(row["file"], row["original"], row["reason"]) for row in csv.DictReader(stream)}

    def add(self, root: Path, relative: str, reason: Reason) -> str:
        """Set a file aside; one that is already here for the same reason is neither copied nor listed again.

        Returns:
            What the file is known by: a hash of its content, or its path where it cannot be read or does not hold still.
        """
        name = "" if reason is Reason.CHANGED else self._copied(root / relative)
        entry = (name, relative, reason.value)
        if entry not in self._listed:
            self._list(entry)
        return name or relative

    def holds(self, relative: str, reason: str) -> bool:
        """Whether a file is set aside for this reason, with its copy if one was made."""
        if not self._copies:
            self._copies.update({(original, why): name for name, original, why in self._listed})
        name = self._copies.get((relative, reason))
        return name is not None and (not name or (self.folder / name).exists())

    def _list(self, entry: tuple[str, str, str]) -> None:
        """Write a line of the list whole or not at all."""
        make_private(self.folder)
        path = self.folder / LIST
        line = io.StringIO(newline="")
        writer = csv.writer(line)
        with path.open("ab") as stream:
            end = stream.tell()
            if not end:
                writer.writerow(COLUMNS)
            writer.writerow((*entry, datetime.now(UTC).isoformat(timespec="seconds")))
            try:
                stream.write(line.getvalue().encode("utf-8", "surrogateescape"))
                stream.flush()
            except OSError:
                os.truncate(path, end)
                raise
        self._listed.add(entry)

    def _copied(self, original: Path) -> str:
        """Copy a file under a name that its content decides; the name, "" for one that is gone, unreadable or changing."""
        try:
            if original.stat().st_size > LARGEST_COPY:
                return ""
            name = name_of(original)
        except OSError:
            return ""
        copy = self.folder / name
        if not copy.exists():
            make_private(self.folder)
            try:
                with original.open("rb") as source, replacing(copy) as temporary:
                    _copy(source, temporary, name)
            except (FileNotFoundError, _ChangedError):
                return ""
            copy.chmod(0o600)
        return name


class _ChangedError(Exception):
    """A file is not what it was a moment ago."""


def _copy(source: BinaryIO, target: Path, name: str) -> None:
    with target.open("wb") as stream:
        shutil.copyfileobj(source, stream)
    if name_of(target) != name:
        raise _ChangedError


def name_of(path: Path) -> str:
    """The name in quarantine of a file, from its content."""
    return f"{sha256(path)[:32]}.bin"


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may enter."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
