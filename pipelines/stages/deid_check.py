"""Look a folder of DICOM files over, ours or another tool's, for what de-identification should have taken out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from pipelines.console import progress
from pipelines.dicom.audit import Finding
from pipelines.dicom.examination import Fate, examine_files
from pipelines.dicom.folder import list_files
from pipelines.errors import SourceError

_SHOWN_FILES = 20


@dataclass(frozen=True)
class Suspect:
    """A file with findings, named so that nobody is: file names can hold names.

    Attributes:
        position: in the order of the paths, from 1.
        sha256: the first digits of its hash.
        path: within the folder, if asked for.
        findings: each attribute or part once.
    """

    position: int
    sha256: str
    path: str | None
    findings: list[Finding]

    @property
    def faulty(self) -> bool:
        return any(not finding.doubtful for finding in self.findings)


@dataclass(frozen=True)
class DeidCheckSummary:
    """What was looked at and what was found; never a value.

    Attributes:
        files: regular files.
        checked: DICOM files among them.
        not_dicom: others, which were not looked into.
        unreadable: files that may not be opened.
        links_left_out: links that lead out of the folder, not followed.
        faulty: DICOM files with something that has to go.
        suspects: files with findings.
    """

    files: int
    checked: int
    not_dicom: int
    unreadable: int
    links_left_out: int
    faulty: int
    suspects: list[Suspect]

    @property
    def passed(self) -> bool:
        """Whether there was something to look at, all of it could be read, and nothing has to go."""
        return self.checked > 0 and not self.faulty and not self.unreadable

    def describe(self) -> str:
        verdict = (
            "[green]nothing that has to go[/green]" if self.passed else f"[red]{self.faulty:,} with something to remove[/red]"
        )
        lines = [f"[bold]{self.checked:,} DICOM files[/bold]: {verdict}", *self._notes()]
        for doubtful, heading in ((False, "has to go"), (True, "cannot be told from a file alone")):
            counts = Counter((one.where, one.why) for file in self.suspects for one in file.findings if one.doubtful is doubtful)
            lines += [f"[bold]{heading}[/bold]"] if counts else []
            lines += [f"  {count:,} × {escape(where)}: {why}" for (where, why), count in counts.most_common()]
        faulty = [file for file in self.suspects if file.faulty]
        lines += [
            f"file {file.position} ({file.sha256}) {escape(ascii(file.path)[1:-1]) if file.path else ''}".rstrip()
            for file in faulty[:_SHOWN_FILES]
        ]
        if len(faulty) > _SHOWN_FILES:
            lines.append(f"and {len(faulty) - _SHOWN_FILES:,} more; all with --json")
        return "\n".join(lines)

    def _notes(self) -> list[str]:
        notes = {
            "files that are not DICOM were not looked into": self.not_dicom,
            "files may not be opened": self.unreadable,
            "links that lead out of the folder were not followed": self.links_left_out,
        }
        return [f"{count:,} {what}" for what, count in notes.items() if count]


def run(folder: Path, *, names: bool = False, pixels: bool = True) -> DeidCheckSummary:
    """Audit every file of a folder, or one file.

    Args:
        folder: the folder, searched recursively, or the file.
        names: give the paths of files with findings.
        pixels: read text in the images, too.

    Raises:
        SourceError: there is neither.
        WeightsError: the models that read burned-in text are not installed.
    """
    root, relatives, links = _listed(folder)
    if pixels:
        from pipelines.dicom.text_reading import check_models

        check_models()
    suspects: list[Suspect] = []
    fates: Counter[Fate] = Counter()
    with progress(unit="files") as display:
        task = display.add_task("deid-check", total=len(relatives), note="")
        examined = examine_files([root / relative for relative in relatives], pixels=pixels)
        for position, (relative, one) in enumerate(zip(relatives, examined, strict=True), 1):
            fates[one.fate] += 1
            if one.findings:
                suspects.append(Suspect(position, one.digits, relative if names else None, sorted(set(one.findings))))
            display.update(task, advance=1, note=f"{len(suspects):,} with findings")
    return DeidCheckSummary(
        files=len(relatives),
        checked=fates[Fate.EXAMINED],
        not_dicom=fates[Fate.NOT_DICOM],
        unreadable=fates[Fate.UNREADABLE],
        links_left_out=links,
        faulty=sum(suspect.faulty for suspect in suspects),
        suspects=suspects,
    )


def _listed(folder: Path) -> tuple[Path, tuple[str, ...], int]:
    if folder.is_file():
        return folder.parent, (folder.name,), 0
    if not folder.is_dir():
        raise SourceError("deid-check: expected a folder or a file, found neither there; check the path and its permissions")
    listing = list_files(folder)
    return listing.root, listing.files, listing.links_out
