"""Where what comes over a network waits, still identified, until the data set or the quarantine holds it.

A private folder outside every workspace. A file is in it whole or not at all: it arrives in `incoming/` and is renamed into
`ready/`, under a name made of the pseudonyms of its image and its content.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.quarantine import LARGEST_COPY, make_private, name_of

LARGEST = LARGEST_COPY
"""In bytes; what is larger could not be set aside, and no radiograph is."""
DEAD_AFTER_S = 3600


@dataclass(frozen=True)
class Waiting:
    """A file in the inbox.

    Attributes:
        name: its name in `ready`.
        image: pseudonym of the SOP Instance UID that it was asked for or sent as.
        content: pseudonym of its bytes, as `Intake` knows files that are set aside.
    """

    name: str
    image: str
    content: str


@dataclass(frozen=True)
class Inbox:
    """The inbox of one workspace; several processes may deliver to it while another takes from it."""

    folder: Path
    pseudonyms: Pseudonyms

    @property
    def ready(self) -> Path:
        return self.folder / "ready"

    @property
    def incoming(self) -> Path:
        return self.folder / "incoming"

    def prepare(self) -> None:
        """Make the folders, for their owner alone, and sweep away what killed processes left half-written."""
        for folder in (self.folder, self.ready, self.incoming):
            make_private(folder)
        self.sweep()

    def sweep(self) -> None:
        """Remove arrivals that nobody has written to for an hour."""
        for path in self.incoming.iterdir():
            with suppress(FileNotFoundError):
                if path.is_file() and time.time() - path.stat().st_mtime > DEAD_AFTER_S:
                    path.unlink()

    def waiting(self) -> list[Waiting]:
        """The files that are ready, by name; what is not named by us is left alone."""
        found = []
        for path in sorted(self.ready.glob("*.dcm")):
            image, separator, content = path.stem.rpartition(".")
            if separator:
                found.append(Waiting(path.name, image, content))
        return found

    @contextmanager
    def arriving(self) -> Iterator[Path]:
        """Give an empty private file to write to; what is not delivered from it is gone when the block ends."""
        handle, name = tempfile.mkstemp(dir=self.incoming, suffix=".dcm")
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def deliver(self, arrived: Path, uid: str) -> str:
        """Put a whole file from `incoming` in its place; it is on the disk when this returns.

        Args:
            uid: the SOP Instance UID that it was asked for or sent as.

        Returns:
            The pseudonym of the image.
        """
        arrived.chmod(0o600)
        image, content = self.pseudonyms.uid(uid), self.pseudonyms.content(name_of(arrived))
        _flush(arrived)
        arrived.replace(self.ready / f"{image}.{content}.dcm")
        _flush(self.ready)
        return image


def _flush(path: Path) -> None:
    """Have the system write a file or a folder to the disk: the sender may delete its own once we have said yes."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
