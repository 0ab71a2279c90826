"""What an ingest did, for people and for the record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from pipelines.records import Reason

UNMATCHED = "unmatched.csv"
"""The file of the quarantine that lists the label rows without an image."""

_SHOWN_LINES = 10


@dataclass(frozen=True)
class IngestSummary:
    """What came in and what became of it; counts, pseudonyms and line numbers only.

    Attributes:
        fetched: images that a server delivered or a sender pushed; 0 for a folder.
        seen: images that a server has and was not asked for, or that were pushed again: they had been taken in before.
        not_delivered: images that a server names and did not deliver; the next run asks for them again.
        found: regular files in the source; each is one of `new`, `already`, `not_dicom`, `dicomdirs` or `quarantined`.
        new: images added to the data set.
        already: files whose image the data set held, or that came twice.
        not_dicom: files that are not DICOM, set aside.
        dicomdirs: DICOMDIRs, ignored.
        quarantined: DICOM files set aside, by reason.
        links_left_out: links that lead out of the source, not followed.
        unreadable_folders: folders of the source that may not be opened.
        without_patient_id: files whose patient pseudonym comes from the study.
        new_studies: studies that were not in the data set before.
        new_patients: patients that were not in the data set before.
        images: images in the data set now.
        studies: studies in the data set now.
        patients: patients in the data set now.
        labelled: images with a label for at least one target.
        unlabelled: images without.
        unlabelled_images: their pseudonyms.
        unmatched: label rows that name no image.
        unmatched_lines: their lines in the label table; the keys are in the quarantine folder.
        searched: every image was searched for text in its pixels (`ingest.burned_in: clean`).
        blanked: new images in which such text was blanked.
        treated_otherwise: images of the data set that came in under other de-identification settings, or an earlier version.
        declared: the task section that the label table declared, if params.yaml had none.
        unused: columns of the label table that look like labels and are of no task.
        quarantine: where files were set aside.
    """

    fetched: int
    seen: int
    not_delivered: int
    found: int
    new: int
    already: int
    not_dicom: int
    dicomdirs: int
    quarantined: dict[str, int]
    links_left_out: int
    unreadable_folders: int
    without_patient_id: int
    new_studies: int
    new_patients: int
    images: int
    studies: int
    patients: int
    labelled: int
    unlabelled: int
    unlabelled_images: list[str]
    unmatched: int
    unmatched_lines: list[int]
    searched: bool
    blanked: int
    treated_otherwise: int
    declared: dict[str, Any] | None
    unused: tuple[str, ...]
    quarantine: str

    def describe(self) -> str:
        lines = [
            *self._network(),
            f"[bold]{self.found:,} files[/bold]: {self.new:,} new images ({self.new_studies:,} new studies, "
            f"{self.new_patients:,} new patients), {self.already:,} already there",
            *self._set_aside(),
            f"[bold]data/[/bold] holds {self.images:,} images of {self.studies:,} studies and {self.patients:,} patients",
            *self._treatment(),
            *self._labels(),
            *self._pixels(),
        ]
        return "\n".join(lines)

    def _pixels(self) -> list[str]:
        if not self.searched:
            return ["[dim]Headers are de-identified. Text burned into the pixels is noticed only where the header says so.[/dim]"]
        blanked = [f"text in the pixels of {self.blanked:,} new images blanked"] if self.blanked else []
        return [*blanked, "[dim]Headers are de-identified; images were searched for burned-in text.[/dim]"]

    def _network(self) -> list[str]:
        lines = []
        if self.fetched or self.seen:
            lines.append(f"[bold]{self.fetched:,} images fetched[/bold], {self.seen:,} seen before")
        if self.not_delivered:
            lines.append(f"[yellow]{self.not_delivered:,} not delivered[/yellow] by the server: the next run asks for them again")
        return lines

    def _set_aside(self) -> list[str]:
        reasons = {**({Reason.NOT_DICOM.value: self.not_dicom} if self.not_dicom else {}), **self.quarantined}
        lines = []
        if reasons:
            counted = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
            lines.append(f"[yellow]{sum(reasons.values()):,} set aside[/yellow]: {counted}; see {escape(self.quarantine)}")
        notes = {
            "DICOMDIRs ignored": self.dicomdirs,
            "links that lead out of the source not followed": self.links_left_out,
            "folders that may not be opened": self.unreadable_folders,
            "files without a PatientID, grouped by study": self.without_patient_id,
        }
        return [*lines, *(f"{count:,} {what}" for what, count in notes.items() if count)]

    def _treatment(self) -> list[str]:
        if not self.treated_otherwise:
            return []
        return [
            f"[yellow]{self.treated_otherwise:,} of them came in under other settings of ingest.deidentification, or by an "
            "earlier version[/yellow], and stay as they are: to have all treated alike, ingest them into a new workspace"
        ]

    def _labels(self) -> list[str]:
        lines = [f"labels for {self.labelled:,} images, none for {self.unlabelled:,}"]
        if self.unmatched:
            shown = ", ".join(map(str, self.unmatched_lines[:_SHOWN_LINES]))
            more = ", …" if self.unmatched > _SHOWN_LINES else ""
            more += " (those of files set aside are among them)" if self.not_dicom or self.quarantined else ""
            keys = escape(str(Path(self.quarantine) / UNMATCHED))
            lines.append(f"[yellow]{self.unmatched:,} label rows match no image[/yellow]: lines {shown}{more}; see {keys}")
        if self.declared:
            targets = ", ".join(self.declared["targets"])
            lines.append(f"the label table declares a {self.declared['kind']} task: [bold]{escape(targets)}[/bold]")
        if self.unused:
            lines.append(
                f"columns {escape(', '.join(self.unused))} of the label table are of no task: to learn them besides, name them "
                "in task.also of params.yaml and ingest once more"
            )
        return lines
