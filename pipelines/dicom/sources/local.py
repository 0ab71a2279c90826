"""The sources that are folders already: one of the user's, and the inbox that `radtransfer receive` fills."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.dicom.sources.inbox import Inbox, Waiting
from pipelines.dicom.sources.memory import Memory, Visit
from pipelines.dicom.sources.protocol import Collected, Counts, Progressed, Taken
from pipelines.errors import SourceError


@dataclass(frozen=True, repr=False)
class FolderSource:
    """A folder, which is read where it is and left as it is; the data set remembers what it gave."""

    folder: Path

    def check(self) -> str:
        if not os.access(self.folder, os.R_OK | os.X_OK) or not self.folder.is_dir():
            raise SourceError("ingest.source: expected a folder that can be read, found none; check the path and its permissions")
        return "the folder can be read"

    def collect(self, taken: Taken, progressed: Progressed) -> Collected:
        return Collected(self.folder)

    def settle(self, images: Mapping[str, str], taken: Taken) -> None:
        """Nothing to let go of."""

    def close(self) -> None:
        """Nothing is open."""


@dataclass(repr=False)
class InboxSource:
    """What waits in the inbox. Files leave it once the data set or the quarantine holds them."""

    inbox: Inbox
    memory: Memory
    _given: list[Waiting] = field(default_factory=list)

    def check(self) -> str:
        waiting = len(self.inbox.waiting()) if self.inbox.ready.is_dir() else 0
        return f"{waiting:,} files wait in the inbox"

    def collect(self, taken: Taken, progressed: Progressed) -> Collected:
        self.inbox.prepare()
        self.memory.mend()
        seen = self._drop_settled(taken)
        self._given = self.inbox.waiting()
        return Collected(self.inbox.ready, Counts(fetched=len(self._given), seen=seen))

    def settle(self, images: Mapping[str, str], taken: Taken) -> None:
        self.let_go(images, taken, ())

    def let_go(self, images: Mapping[str, str], taken: Taken, visits: Iterable[Visit]) -> None:
        """Remember the files that are taken in for good and remove them; the others wait on."""
        settled: list[tuple[Waiting, str | None]] = []
        for file in self._given:
            image = images.get(file.name)
            if image in taken.images:
                settled.append((file, image))
            elif image is None and file.content in taken.set_aside:
                settled.append((file, None))
        if settled and hasattr(os, "sync"):
            os.sync()  # a power cut must not take from data/ what is gone from the inbox and the sender may have deleted
        self.memory.remember(settled, visits)
        for file, _ in settled:
            (self.inbox.ready / file.name).unlink(missing_ok=True)

    def give(self) -> None:
        """Have what waits now be what the next `let_go` is about."""
        self._given = self.inbox.waiting()

    def _drop_settled(self, taken: Taken) -> int:
        """Remove what was taken in before to the byte: pushed again, or left by a process that was killed while settling."""
        dropped = self.memory.settled(self.inbox.waiting(), taken)
        for file in dropped:
            (self.inbox.ready / file.name).unlink(missing_ok=True)
        return len(dropped)

    def close(self) -> None:
        """Nothing is open."""
