"""Take the files of a source into the data set, one after the other, and keep count of what becomes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.dicom import dataset
from pipelines.dicom.deidentify import Accept, Row
from pipelines.dicom.folder import Listing
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.quarantine import Quarantine, name_of
from pipelines.dicom.workers import Fate, Job, Outcome, deidentify_files
from pipelines.paths import Paths
from pipelines.records import Reason


@dataclass
class Tally:
    """What became of the files of a source.

    Attributes:
        fates: how many files had which fate.
        reasons: how many files were set aside, and why.
        images: the image of each file that can be used, by its path in the source.
        without_patient: files whose patient pseudonym comes from the study.
        set_aside: reason code by keyed pseudonym of the file, over all ingests.
    """

    fates: Counter[Fate] = field(default_factory=Counter)
    reasons: Counter[Reason] = field(default_factory=Counter)
    images: dict[str, str] = field(default_factory=dict)
    without_patient: int = 0
    set_aside: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Intake:
    """Where files come from, where they go, and under which key.

    Attributes:
        rows: the manifest by image; grows with what is new.
        held: the files of the data set, by image.
    """

    listing: Listing
    paths: Paths
    pseudonyms: Pseudonyms
    accept: Accept
    rows: dict[str, Row]
    held: Mapping[str, Path]

    def run(self, progressed: Callable[[Tally], None]) -> Tally:
        """De-identify every file of the source; new ones join the data set, unusable ones go to the quarantine.

        Files are settled in the order of their paths, so of several files with one UID the first is always the one taken.

        Args:
            progressed: called after each file.
        """
        tally = Tally(set_aside=dataset.read_set_aside(self.paths))
        earlier = bool(tally.set_aside)
        quarantine = Quarantine(self.paths.quarantine)
        hashes: dict[str, str] = {}
        with dataset.staging(self.paths) as staging:
            job = Job(self.listing.root, staging, self.pseudonyms, self.accept, self.held)
            for outcome in deidentify_files(self.listing.files, len(self.listing.files), job):
                settled = _settled(outcome, hashes)
                self._carry_out(settled, quarantine, tally, earlier)
                if outcome.staged is not None:
                    outcome.staged.unlink(missing_ok=True)
                _count(settled, tally)
                progressed(tally)
        return tally

    def _carry_out(self, outcome: Outcome, quarantine: Quarantine, tally: Tally, earlier: bool) -> None:
        if outcome.reason is not None:
            known_by = quarantine.add(self.listing.root, outcome.relative, outcome.reason)
            tally.set_aside[self.pseudonyms.content(known_by)] = outcome.reason.value
        elif outcome.fate is Fate.NEW and outcome.staged and outcome.row and outcome.image:
            dataset.take_over(outcome.staged, outcome.row, self.paths)
            self.rows[outcome.image] = outcome.row
            if earlier:  # what was set aside once may be wanted now, under other settings
                tally.set_aside.pop(self.pseudonyms.content(name_of(self.listing.root / outcome.relative)), None)


def _settled(outcome: Outcome, hashes: dict[str, str]) -> Outcome:
    """Compare a file with an earlier one of the same source that has its UID: the same image, or another."""
    if outcome.image is None:
        return outcome
    if outcome.image not in hashes:
        hashes[outcome.image] = outcome.image_sha256
        return outcome
    if hashes[outcome.image] != outcome.image_sha256:
        return Outcome(outcome.relative, Fate.REFUSED, reason=Reason.DUPLICATE)
    return replace(outcome, fate=Fate.ALREADY)


def _count(outcome: Outcome, tally: Tally) -> None:
    tally.fates[outcome.fate] += 1
    tally.without_patient += outcome.without_patient
    if outcome.reason is not None:
        tally.reasons[outcome.reason] += 1
    if outcome.image is not None:
        tally.images[outcome.relative] = outcome.image
