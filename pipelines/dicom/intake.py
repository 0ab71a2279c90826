"""Take the files of a source into the data set, one after the other, and keep count of what becomes of them."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.dicom import dataset
from pipelines.dicom.account import Account
from pipelines.dicom.deidentify import Accept, Row
from pipelines.dicom.folder import Listing
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.quarantine import Quarantine, name_of
from pipelines.dicom.unchanged import Entry, Stamp, Unchanged
from pipelines.dicom.workers import Fate, Job, Outcome, deidentify_files
from pipelines.paths import Paths
from pipelines.records import Reason

_NOTES_AT_ONCE = 512
_log = logging.getLogger(__name__)


@dataclass
class Tally:
    """What became of the files of a source.

    Attributes:
        fates: how many files had which fate.
        reasons: how many files were set aside, and why.
        images: the image of each file that can be used, by its path in the source.
        without_patient: files whose patient pseudonym comes from the study.
        set_aside: reason code by keyed pseudonym of the file, over all ingests.
        blanked: new images with text in their pixels that was blanked.
        account: what was done to how many headers, over all ingests.
    """

    fates: Counter[Fate] = field(default_factory=Counter)
    reasons: Counter[Reason] = field(default_factory=Counter)
    images: dict[str, str] = field(default_factory=dict)
    without_patient: int = 0
    set_aside: dict[str, str] = field(default_factory=dict)
    blanked: int = 0
    account: Account = field(default_factory=Account)


@dataclass(frozen=True, repr=False)
class Intake:
    """Where files come from, where they go, and under which key.

    Attributes:
        rows: the manifest by image; grows with what is new.
        held: the files of the data set, by image.
        seconds: processor time that one file may take.
        unchanged: what is known of files that were read before; None for a source that lets go of its files.
    """

    listing: Listing
    paths: Paths
    pseudonyms: Pseudonyms
    accept: Accept
    rows: dict[str, Row]
    held: Mapping[str, Path]
    seconds: float = 60
    unchanged: Unchanged | None = None

    def run(self, progressed: Callable[[Tally], None], tally: Tally | None = None) -> Tally:
        """De-identify every file of the source; new ones join the data set, unusable ones go to the quarantine.

        Files are settled in the order of their paths, so of several files with one UID the first is always the one taken.

        Args:
            progressed: called after each file.
            tally: that of earlier parts of the same source, to go on counting.
        """
        tally = tally or Tally(set_aside=dataset.read_set_aside(self.paths))
        earlier = bool(tally.set_aside)
        quarantine = Quarantine(self.paths.quarantine)
        hashes: dict[str, str] = {}
        with Recalling(self, tally, quarantine) as recalling, dataset.staging(self.paths) as staging:
            read = recalling.pass_over(progressed)
            job = Job(self.listing.root, staging, self.pseudonyms, self.accept, self.held, self.seconds)
            for outcome in deidentify_files(read, job):
                settled = _settled(outcome, hashes)
                content = self._carry_out(settled, quarantine, tally, earlier)
                if outcome.staged is not None:
                    outcome.staged.unlink(missing_ok=True)
                _count(settled, tally)
                recalling.note(settled, content)
                progressed(tally)
        return tally

    def _carry_out(self, outcome: Outcome, quarantine: Quarantine, tally: Tally, earlier: bool) -> str | None:
        """Settle a file for good; the pseudonym of its content if it is set aside."""
        if outcome.reason is not None:
            content = self.pseudonyms.content(quarantine.add(self.listing.root, outcome.relative, outcome.reason))
            tally.set_aside[content] = outcome.reason.value
            return content
        if outcome.fate is Fate.NEW and outcome.staged and outcome.row and outcome.image:
            dataset.take_over(outcome.staged, outcome.row, self.paths)
            again = outcome.image in self.rows and outcome.image not in tally.account.uncounted
            self.rows[outcome.image] = outcome.row
            if outcome.treatment and not again:
                tally.account.add(outcome.image, outcome.treatment)
            if earlier:  # what was set aside once may be wanted now, under other settings
                self._forget(outcome.relative, tally)
        elif outcome.treatment and outcome.image in tally.account.uncounted:
            tally.account.add(outcome.image, outcome.treatment)
        return None

    def _forget(self, relative: str, tally: Tally) -> None:
        tally.set_aside.pop(self.pseudonyms.content(relative), None)
        with suppress(OSError):  # gone by now
            tally.set_aside.pop(self.pseudonyms.content(name_of(self.listing.root / relative)), None)


class Recalling:
    """Tells the files of a source that are as they were from those to be read, and notes what becomes of the latter.

    Notes are written every now and then, so that an ingest that is killed has not read in vain.
    """

    def __init__(self, intake: Intake, tally: Tally, quarantine: Quarantine) -> None:
        self._intake, self._tally, self._quarantine = intake, tally, quarantine
        self._stamps: dict[str, Stamp] = {}
        self._notes: list[tuple[bytes, Entry]] = []
        self._gone: set[bytes] = set()

    def __enter__(self) -> Recalling:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._write(() if kind else self._gone)

    def pass_over(self, progressed: Callable[[Tally], None]) -> list[str]:
        """Count the files that need not be read, and name the others."""
        intake, unchanged = self._intake, self._intake.unchanged
        if unchanged is None:
            return list(intake.listing.files)
        root, read = intake.listing.root, []
        known = unchanged.entries(root)
        self._gone = set(known)
        for relative in intake.listing.files:
            key = unchanged.key(root, relative)
            self._gone.discard(key)
            entry, stamp = known.get(key), _stamp(f"{root}{os.sep}{relative}")
            if entry and entry.stamp == stamp and self._holds(relative, entry):
                _count(_recalled(relative, entry), self._tally)
                progressed(self._tally)
                continue
            read.append(relative)
            if stamp and stamp.is_settled():
                self._stamps[relative] = stamp
        return read

    def _holds(self, relative: str, entry: Entry) -> bool:
        """Whether the data set or the quarantine still has what an entry names."""
        held = entry.image is None or (
            entry.image in self._intake.rows
            and entry.image not in self._tally.account.uncounted
            and entry.held == _seen(self._intake.held.get(entry.image))
        )
        if entry.reason is None:
            return held
        listed = self._quarantine.holds(relative, entry.reason)
        return held and listed and self._tally.set_aside.get(entry.content or "") == entry.reason

    def note(self, outcome: Outcome, content: str | None) -> None:
        """Note what became of a file, if it held still and trying again is of no use."""
        unchanged, stamp = self._intake.unchanged, self._stamps.pop(outcome.relative, None)
        if unchanged is None or stamp is None or not outcome.lasting:
            return
        image = outcome.image or outcome.rival
        place = self._intake.paths.data / str(self._intake.rows[image]["file"]) if image in self._intake.rows else None
        reason = outcome.reason.value if outcome.reason else None
        entry = Entry(stamp, outcome.fate.name, image, _seen(place), reason, content, outcome.without_patient)
        self._notes.append((unchanged.key(self._intake.listing.root, outcome.relative), entry))
        if len(self._notes) >= _NOTES_AT_ONCE:
            self._write(())

    def _write(self, gone: Collection[bytes]) -> None:
        unchanged, notes = self._intake.unchanged, self._notes[:]
        self._notes.clear()
        if unchanged is None:
            return
        try:
            unchanged.remember(self._intake.listing.root, notes, gone)
        except (OSError, sqlite3.Error) as error:
            _log.warning("what was read cannot be remembered, so the next ingest reads it again (%s)", type(error).__name__)


def _stamp(path: str | Path) -> Stamp | None:
    try:
        return Stamp.of(path)
    except OSError:
        return None


def _seen(path: Path | None) -> tuple[int, int]:
    """Size and time of a file of the data set, by which it is told to be as it was written; zeros for none."""
    stamp = _stamp(path) if path else None
    return (stamp.size, stamp.modified_ns) if stamp else (0, 0)


def _recalled(relative: str, entry: Entry) -> Outcome:
    if entry.reason:
        return Outcome(relative, Fate.REFUSED, reason=Reason(entry.reason))
    fate = Fate.ALREADY if entry.image else Fate[entry.fate]
    return Outcome(relative, fate, image=entry.image, without_patient=entry.without_patient)


def _settled(outcome: Outcome, hashes: dict[str, str]) -> Outcome:
    """Compare a file with an earlier one of the same source that has its UID: the same image, or another."""
    if outcome.image is None:
        return outcome
    if outcome.image not in hashes:
        hashes[outcome.image] = outcome.image_sha256
        return outcome
    if hashes[outcome.image] != outcome.image_sha256:
        return Outcome(outcome.relative, Fate.REFUSED, reason=Reason.DUPLICATE, rival=outcome.image)
    return replace(outcome, fate=Fate.ALREADY)


def _count(outcome: Outcome, tally: Tally) -> None:
    tally.fates[outcome.fate] += 1
    tally.without_patient += outcome.without_patient
    tally.blanked += outcome.blanked and outcome.fate is Fate.NEW
    if outcome.reason is not None:
        tally.reasons[outcome.reason] += 1
    if outcome.image is not None:
        tally.images[outcome.relative] = outcome.image
