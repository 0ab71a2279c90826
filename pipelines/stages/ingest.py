"""Bring a folder of radiographs into the data set: de-identified, labelled, and what cannot be used set aside."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from pipelines import files
from pipelines import labels as labels_of
from pipelines.config import Config
from pipelines.console import progress
from pipelines.dicom import dataset
from pipelines.dicom.deidentify import Accept, Row
from pipelines.dicom.folder import Listing, list_files
from pipelines.dicom.intake import Intake, Tally
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.quarantine import make_private
from pipelines.dicom.workers import Fate
from pipelines.errors import ConfigurationError
from pipelines.paths import Paths
from pipelines.records import Reason, Task

UNMATCHED = "unmatched.csv"
_SHOWN_LINES = 10


@dataclass(frozen=True)
class IngestSummary:
    """What came in and what became of it; counts, pseudonyms and line numbers only.

    Attributes:
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
        declared: the task section that the label table declared, if params.yaml had none.
        quarantine: where files were set aside.
    """

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
    declared: dict[str, Any] | None
    quarantine: str

    def describe(self) -> str:
        lines = [
            f"[bold]{self.found:,} files[/bold]: {self.new:,} new images ({self.new_studies:,} new studies, "
            f"{self.new_patients:,} new patients), {self.already:,} already there",
            *self._set_aside(),
            f"[bold]data/[/bold] holds {self.images:,} images of {self.studies:,} studies and {self.patients:,} patients",
            *self._labels(),
            "[dim]Headers are de-identified. Text burned into the pixels is noticed only where the header says so.[/dim]",
        ]
        return "\n".join(lines)

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
        return lines


@dataclass(frozen=True, repr=False)
class _Labels:
    """A table of labels that was found to be valid before any file is touched."""

    table: labels_of.LabelTable
    task: Task
    parsed: list[tuple[labels_of.Label, ...]]
    declared: dict[str, Any] | None


def run(config: Config, paths: Paths, source: Path | None = None, labels: Path | None = None) -> IngestSummary:
    """De-identify what is new in `source` into `data/` and join the labels.

    Args:
        source: folder of DICOM files; default `ingest.source`, relative to the workspace.
        labels: CSV file of labels; default `ingest.labels`, relative to the workspace.

    Raises:
        MissingKeyError: no pseudonym key in the environment, or another one than the data set was made with.
        SourceError: the source or the label table is not there, or the table names no key.
        ConfigurationError: no source is named, the quarantine lies within the workspace, or no target can be declared.
        LabelError: a label is not one that the task declares, or rows contradict each other.
        MissingInputError: files of the data set are missing.
    """
    pseudonyms = Pseudonyms.from_environment()
    _check_quarantine(paths)
    folder = _folder(config, paths, source)
    label_file = labels or _configured(config.ingest.labels, paths)
    given = _read_labels(label_file, config) if label_file else None
    held = dataset.held_files(paths)
    dataset.check_key(held, pseudonyms)
    rows = dataset.read_rows(paths, held)
    before = dataset.counts(rows.values())
    listing = list_files(folder, _left_out(paths, label_file))
    tally = _take_in(Intake(listing, paths, pseudonyms, _accept(config), rows, held))
    dataset.write_manifest(rows.values(), paths)
    dataset.write_flow(tally.set_aside, len(rows), paths)
    matched = _match(given, tally, rows, pseudonyms) if given else None
    labelled = _write_labels(config, given, matched, rows, paths)
    _write_unmatched(given, matched, paths)
    summary = _summary(listing, tally, before, rows, labelled, given, matched, paths)
    files.write_json(paths.ingest_summary, {name: value for name, value in asdict(summary).items() if name != "quarantine"})
    return summary


def _folder(config: Config, paths: Paths, source: Path | None) -> Path:
    folder = source or _configured(config.ingest.source, paths)
    if folder is None:
        raise ConfigurationError(
            "params.yaml ingest.source: expected a folder of DICOM files, got null; name one with `radtransfer ingest SOURCE`"
        )
    return folder


def _configured(value: str | None, paths: Paths) -> Path | None:
    return paths.workspace / Path(value).expanduser() if value else None


def _check_quarantine(paths: Paths) -> None:
    workspace = paths.workspace.resolve()
    repository = next((folder for folder in (workspace, *workspace.parents) if (folder / ".git").exists()), workspace)
    if paths.quarantine.resolve().is_relative_to(repository):
        raise ConfigurationError(
            "RADTRANSFER_QUARANTINE: expected a folder outside the workspace and its git repository, got one within; "
            "what is set aside is identified"
        )


def _left_out(paths: Paths, label_file: Path | None) -> list[Path]:
    """What a source that encloses the workspace must not bring in: our own output, and the label table."""
    hidden = [paths.workspace / name for name in (".git", ".dvc")]
    own = [paths.data, paths.artifacts, paths.mlflow, paths.prefect, paths.quarantine, *hidden]
    return [*own, label_file] if label_file else own


def _read_labels(path: Path, config: Config) -> _Labels:
    table = labels_of.read(path, config.ingest)
    section = config.task if config.task.targets else labels_of.declare(table)
    declared = None if config.task.targets else section.model_dump(mode="json")
    return _Labels(table, section.declared(), labels_of.parse(table, section.declared()), declared)


def _accept(config: Config) -> Accept:
    return Accept(tuple(name.upper() for name in config.ingest.modalities), config.ingest.burned_in == "keep")


def _take_in(intake: Intake) -> Tally:
    with progress(unit="files") as display:
        task = display.add_task("ingest", total=len(intake.listing.files), note="")

        def progressed(tally: Tally) -> None:
            display.update(task, advance=1, note=f"{sum(tally.reasons.values()):,} set aside")

        return intake.run(progressed)


def _match(given: _Labels, tally: Tally, rows: Mapping[str, Row], pseudonyms: Pseudonyms) -> labels_of.Matched:
    """Join label rows to the images of the data set, by pseudonym, or by file to those of this source."""
    images_of = _lookup(given.table.kind, tally, rows, pseudonyms)
    if given.table.kind == "file":
        labels_of.refuse_ambiguous(given.table, images_of)
    return labels_of.match(given.table, given.parsed, images_of)


def _lookup(kind: str, tally: Tally, rows: Mapping[str, Row], pseudonyms: Pseudonyms) -> Callable[[str], Iterable[str]]:
    if kind == "file":
        return labels_of.FileNames(tally.images)
    if kind == "sop_instance_uid":
        return lambda key: [image] if (image := pseudonyms.uid(key)) in rows else []
    by_accession: dict[str, list[str]] = {}
    for image, row in rows.items():
        by_accession.setdefault(str(row["accession"]), []).append(image)
    return lambda key: by_accession.get(pseudonyms.accession(key), [])


def _write_labels(
    config: Config, given: _Labels | None, matched: labels_of.Matched | None, rows: Mapping[str, Row], paths: Paths
) -> set[str]:
    """Write labels.parquet: rows of this table replace earlier ones, images that it does not name keep theirs.

    Returns:
        The images with a label for at least one target.
    """
    task = given.task if given else config.task.declared() if config.task.targets else None
    if task is None:
        if not paths.labels.is_file():
            files.write_table(paths.labels, labels_of.table({}, Task("binary", ())))
        return set(files.read_table(paths.labels, made_by="ingest")["image"])
    known = labels_of.from_table(files.read_table(paths.labels, made_by="ingest"), task) if paths.labels.is_file() else {}
    known |= matched.labels if matched else {}
    kept = {image: values for image, values in known.items() if image in rows and any(value is not None for value in values)}
    files.write_table(paths.labels, labels_of.table(kept, task))
    return set(kept)


def _write_unmatched(given: _Labels | None, matched: labels_of.Matched | None, paths: Paths) -> None:
    """List the rows that name no image, with their keys, where identified data may be."""
    if given is None or matched is None or not (matched.unmatched or (paths.quarantine / UNMATCHED).exists()):
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("line", "key"))
    writer.writerows((given.table.lines[position], given.table.keys[position]) for position in matched.unmatched)
    make_private(paths.quarantine)
    files.write_text(paths.quarantine / UNMATCHED, text.getvalue())


def _summary(
    listing: Listing,
    tally: Tally,
    before: dataset.Counts,
    rows: Mapping[str, Row],
    labelled: set[str],
    given: _Labels | None,
    matched: labels_of.Matched | None,
    paths: Paths,
) -> IngestSummary:
    now = dataset.counts(rows.values())
    lines = [given.table.lines[position] for position in matched.unmatched] if given and matched else []
    unlabelled = sorted(rows.keys() - labelled)
    quarantined = {reason.value: count for reason, count in tally.reasons.items() if reason is not Reason.NOT_DICOM}
    return IngestSummary(
        found=len(listing.files),
        new=tally.fates[Fate.NEW],
        already=tally.fates[Fate.ALREADY],
        not_dicom=tally.reasons[Reason.NOT_DICOM],
        dicomdirs=tally.fates[Fate.DIRECTORY],
        quarantined=dict(sorted(quarantined.items())),
        links_left_out=listing.links_out,
        unreadable_folders=listing.unreadable_folders,
        without_patient_id=tally.without_patient,
        new_studies=now.studies - before.studies,
        new_patients=now.patients - before.patients,
        images=now.images,
        studies=now.studies,
        patients=now.patients,
        labelled=len(labelled),
        unlabelled=len(unlabelled),
        unlabelled_images=unlabelled,
        unmatched=len(lines),
        unmatched_lines=lines,
        declared=given.declared if given else None,
        quarantine=str(paths.quarantine),
    )
