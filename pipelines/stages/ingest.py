"""Bring radiographs into the data set: de-identified, labelled, and what cannot be used set aside."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines import files, label_files
from pipelines import labels as labels_of
from pipelines.config import Config, IngestSection
from pipelines.console import progress
from pipelines.dicom import dataset
from pipelines.dicom.account import Account
from pipelines.dicom.confidentiality import Option
from pipelines.dicom.deidentify import Accept, Row
from pipelines.dicom.folder import Listing, list_files
from pipelines.dicom.intake import Intake, Tally
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.quarantine import make_private
from pipelines.dicom.sources.local import FolderSource
from pipelines.dicom.sources.opening import source_of
from pipelines.dicom.sources.protocol import Collected, Counts, Source, Taken
from pipelines.dicom.unchanged import Unchanged
from pipelines.dicom.workers import Fate
from pipelines.errors import ConfigurationError, ServiceError
from pipelines.ingest_summary import UNMATCHED, IngestSummary
from pipelines.paths import Paths
from pipelines.records import Reason, Task


@dataclass(frozen=True, repr=False)
class _Labels:
    """A table of labels that was found to be valid before any file is touched."""

    table: label_files.LabelTable
    task: Task
    parsed: list[tuple[labels_of.Label, ...]]
    declared: dict[str, Any] | None


@dataclass
class _Gathered:
    """What a source had, and what became of it."""

    tally: Tally
    counts: Counts = field(default_factory=Counts)
    found: int = 0
    links_out: int = 0
    unreadable_folders: int = 0
    treated_otherwise: int = 0
    trouble: ServiceError | None = None


def run(config: Config, paths: Paths, source: Path | None = None, labels: Path | None = None) -> IngestSummary:
    """De-identify what is new in `source` into `data/` and join the labels.

    Args:
        source: folder of DICOM files; default what `ingest.kind` names, `ingest.source` being relative to the workspace.
        labels: CSV file of labels; default `ingest.labels`, relative to the workspace.

    Raises:
        MissingKeyError: no pseudonym key in the environment, or another one than the data set was made with.
        SourceError: the source or the label table is not there, or the table names no key.
        ConfigurationError: no source is named, the quarantine or the inbox lies within the workspace, or no target can be
            declared.
        LabelError: a label is not one that the task declares, or rows contradict each other.
        MissingInputError: files of the data set are missing.
        WeightsError: the models that read burned-in text are not installed.
        ServiceError: a server does not answer, or gave out; what it delivered until then is in the data set.
    """
    pseudonyms = Pseudonyms.from_environment()
    _check_quarantine(paths)
    accept = _accept(config)
    if accept.burned_in == "clean":
        from pipelines.dicom.text_reading import check_models

        check_models()
    origin = FolderSource(source) if source else source_of(config.ingest, paths, pseudonyms, accept)
    label_file = labels or _configured(config.ingest.labels, paths)
    given = _read_labels(label_file, config) if label_file else None
    held = dataset.held_files(paths)
    dataset.check_key(held, pseudonyms)
    rows = dataset.read_rows(paths, held)
    before = dataset.counts(rows.values())
    with closing(origin):
        nothing, seconds = Listing(paths.data, (), 0, 0), config.ingest.seconds_per_file
        # Files of any other source leave it when they are taken in.
        lasts = isinstance(origin, FolderSource)
        unchanged = Unchanged.under(paths.unchanged, pseudonyms, accept, seconds) if lasts else None
        intake = Intake(nothing, paths, pseudonyms, accept, rows, held, seconds, unchanged)
        gathered = _gather(origin, intake, _left_out(paths, label_file))
    dataset.write_manifest(rows.values(), paths)
    gathered.tally.account.write(len(rows), paths)
    gathered.treated_otherwise = len(rows) - gathered.tally.account.treated(accept.options, pseudonyms.fingerprint)
    matched = _match(given, gathered.tally, rows, pseudonyms) if given else None
    labelled = _write_labels(config, given, matched, rows, paths)
    _write_unmatched(given, matched, paths)
    summary = _summary(config, gathered, before, rows, labelled, given, matched, paths)
    files.write_json(paths.ingest_summary, {name: value for name, value in asdict(summary).items() if name != "quarantine"})
    if gathered.trouble:
        raise gathered.trouble
    return summary


def _configured(value: str | None, paths: Paths) -> Path | None:
    return paths.workspace / Path(value).expanduser() if value else None


def _check_quarantine(paths: Paths) -> None:
    if paths.quarantine.resolve().is_relative_to(paths.repository):
        raise ConfigurationError(
            "RADTRANSFER_QUARANTINE: expected a folder outside the workspace and its git repository, got one within; "
            "what is set aside is identified"
        )


def _left_out(paths: Paths, label_file: Path | None) -> list[Path]:
    """What a source that encloses the workspace must not bring in: our own output, and the label table."""
    hidden = [paths.workspace / name for name in (".git", ".dvc")]
    own = [paths.data, paths.artifacts, paths.mlflow, paths.prefect, paths.quarantine, paths.inbox, *hidden]
    return [*own, label_file] if label_file else own


def _read_labels(path: Path, config: Config) -> _Labels:
    table = label_files.read(path, config.ingest)
    section = config.task if config.task.targets else labels_of.declare(table, config.task)
    declared = None if config.task.targets else section.model_dump(mode="json", include={"kind", "targets", "classes"})
    return _Labels(table, section.declared(), labels_of.parse(table, section.declared()), declared)


def _accept(config: Config) -> Accept:
    modalities = tuple(name.upper() for name in config.ingest.modalities)
    return Accept(modalities, config.ingest.burned_in, _options(config.ingest))


def _options(ingest: IngestSection) -> frozenset[Option]:
    section = ingest.deidentification
    chosen = {
        Option.CLEAN_PIXELS: ingest.burned_in == "clean",
        Option.PATIENT: section.patient_characteristics,
        Option.DEVICE: section.device_identity,
        Option.MODIFIED_DATES: section.modified_dates,
        Option.CLEAN_DESCRIPTORS: section.clean_descriptors,
    }
    return frozenset(option for option, wanted in chosen.items() if wanted)


def _gather(origin: Source, intake: Intake, left_out: list[Path]) -> _Gathered:
    """Take in what a source has, part by part; it lets go of a part only once the data set and the quarantine have it."""
    paths, held = intake.paths, dict(intake.held)
    gathered = _Gathered(Tally(set_aside=dataset.read_set_aside(paths), account=Account.of(paths, intake.held)))
    tally, more = gathered.tally, True
    while more:
        part = _collect(origin, Taken(intake.rows.keys(), tally.set_aside.keys()))
        listing = list_files(part.folder, left_out)
        _take_in(replace(intake, listing=listing, held=held), tally)
        dataset.write_flow(tally.set_aside, len(intake.rows), paths)
        origin.settle(tally.images, Taken(intake.rows.keys(), tally.set_aside.keys()))
        held |= {image: paths.data / str(row["file"]) for image, row in intake.rows.items() if image not in held}
        gathered.counts += part.counts
        gathered.found += len(listing.files)
        gathered.links_out += listing.links_out
        gathered.unreadable_folders += listing.unreadable_folders
        gathered.trouble, more = part.trouble, part.more
    return gathered


def _collect(origin: Source, taken: Taken) -> Collected:
    with progress(unit="images") as display:
        tasks: list[Any] = []

        def progressed(counts: Counts) -> None:
            tasks[:] = tasks or [display.add_task("fetch", total=None, note="")]
            note = f"{counts.seen:,} seen before" + (f", {counts.failed:,} not delivered" if counts.failed else "")
            display.update(tasks[0], completed=counts.fetched, note=note)

        return origin.collect(taken, progressed)


def _take_in(intake: Intake, tally: Tally) -> None:
    with progress(unit="files") as display:
        task = display.add_task("ingest", total=len(intake.listing.files), note="")

        def progressed(tally: Tally) -> None:
            display.update(task, advance=1, note=f"{sum(tally.reasons.values()):,} set aside")

        intake.run(progressed, tally)


def _match(given: _Labels, tally: Tally, rows: Mapping[str, Row], pseudonyms: Pseudonyms) -> labels_of.Matched:
    """Join label rows to the images of the data set, by pseudonym, or by file to those of this source."""
    images_of = _lookup(given.table.kind, tally, rows, pseudonyms)
    if given.table.kind == "file":
        label_files.refuse_ambiguous(given.table, images_of)
    return labels_of.match(given.table, given.parsed, images_of)


def _lookup(kind: str, tally: Tally, rows: Mapping[str, Row], pseudonyms: Pseudonyms) -> Callable[[str], Iterable[str]]:
    if kind == "file":
        return label_files.FileNames(tally.images)
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
    config: Config,
    gathered: _Gathered,
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
    tally, counts = gathered.tally, gathered.counts
    quarantined = {reason.value: count for reason, count in tally.reasons.items() if reason is not Reason.NOT_DICOM}
    return IngestSummary(
        fetched=counts.fetched,
        seen=counts.seen,
        not_delivered=counts.failed,
        found=gathered.found,
        new=tally.fates[Fate.NEW],
        already=tally.fates[Fate.ALREADY],
        not_dicom=tally.reasons[Reason.NOT_DICOM],
        dicomdirs=tally.fates[Fate.DIRECTORY],
        quarantined=dict(sorted(quarantined.items())),
        links_left_out=gathered.links_out,
        unreadable_folders=gathered.unreadable_folders,
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
        searched=config.ingest.burned_in == "clean",
        blanked=tally.blanked,
        treated_otherwise=gathered.treated_otherwise,
        declared=given.declared if given else None,
        unused=labels_of.unused(given.table, given.task) if given else (),
        quarantine=str(paths.quarantine),
    )
