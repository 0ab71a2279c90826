"""The shortcut audit: what it finds in real data, whether it is quiet where there is nothing, and how small a shortcut it sees.

    python benchmarks/shortcuts.py [--dealt 20] [--splits 5] > benchmarks/shortcuts.md

Every cohort goes through ingest (text in the pixels is kept, to save time), prepare, check, split and audit-shortcuts, and is
kept in the cache for the next call. Needs ../shared (real radiographs and ImageNet weights); phantoms are generated.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines import actions, config, files, workspace
from pipelines.config import AuditShortcutsSection, Config
from pipelines.imaging.store import ArrayStore
from pipelines.paths import Paths
from pipelines.phantom import cohort as phantom
from pipelines.quality import shortcuts
from pipelines.quality.partition import partition
from pipelines.quality.shortcut_audit import Audit, Finding, audit
from pipelines.quality.tables import usable
from pipelines.stages import audit_shortcuts, check, evaluate, prepare, split, train

SHARED = Path(os.environ.get("RADTRANSFER_SHARED") or Path(__file__).parents[2] / "shared")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "radtransfer" / "benchmarks" / "shortcuts"
KEY = "a-key-for-benchmarks-only-0123456789abcdef"
SETTINGS = ("ingest.burned_in=keep", "prepare.size=224", "split.validation=0.2", "split.test=0.3")
MODEL = ("train.backbone=mobilenet_v2", "train.strategy.name=feature_extraction")
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)
QUICK = AuditShortcutsSection(bootstrap=200)


@dataclass(frozen=True)
class Source:
    """A cohort: its title, where it is (a folder of ../shared or the seed of a phantom one), and its target."""

    title: str
    place: str | int
    target: str
    classes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.place}-{self.target}"


SOURCES = (
    Source("children, pneumonia", "paediatric_cxr", "pneumonia"),
    Source("children, etiology", "paediatric_cxr", "etiology", ("none", "bacterial", "viral")),
    Source("adults, pneumonia", "adult_cxr", "pneumonia"),
    Source("phantoms 7 (the demo)", 7, phantom.TARGET),
    Source("phantoms 8", 8, phantom.TARGET),
    Source("phantoms 9", 9, phantom.TARGET),
)


@dataclass(frozen=True)
class Cohort:
    """A source after prepare and split: rows of the index with `part`, small pictures, and labels (images, outputs)."""

    source: Source
    settings: Config
    paths: Paths
    rows: pd.DataFrame
    images: NDArray[np.uint8]
    labels: NDArray[np.float32]

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.settings.task.declared().outputs


def prepared(source: Source) -> Cohort:
    paths = Paths(CACHE / source.name)
    if not paths.split.is_file():
        with tempfile.TemporaryDirectory() as scratch:
            _prepare(source, paths, Path(scratch))
    settings = config.load(paths.params)
    index, labels = files.read_table(paths.index, made_by="prepare"), files.read_table(paths.labels, made_by="ingest")
    rows, matrix = usable(index, labels, settings.task.declared())
    rows = rows.merge(files.read_table(paths.split, made_by="split")[["image", "part"]], on="image", validate="1:1")
    return Cohort(source, settings, paths, rows, shortcuts.pictures(ArrayStore(paths.prepared), rows), matrix)


def _prepare(source: Source, paths: Paths, scratch: Path) -> None:
    if isinstance(source.place, int):
        made = phantom.write(scratch / "archive", seed=source.place)
        folder, labels = made.folder, made.labels
    else:
        folder = SHARED / "data" / source.place
        labels = folder / "labels.csv"
    os.environ.update(RADTRANSFER_PSEUDONYM_KEY=KEY, RADTRANSFER_QUARANTINE=str(scratch / "quarantine"))
    workspace.create(paths)
    kind = "multiclass" if source.classes else "binary"
    task = [f"task.kind={kind}", f"task.targets=[{source.target}]", f"task.classes=[{', '.join(source.classes)}]"]
    workspace.set_params(paths, [*SETTINGS, *task])
    actions.ingest_source(paths, folder, labels)
    for stage in (prepare, check, split):
        stage.run(config.load(paths.params), paths)


def audited(cohort: Cohort, labels: NDArray[Any], settings: AuditShortcutsSection = QUICK, **changed: Any) -> Audit:
    rows, images = changed.get("rows", cohort.rows), changed.get("images", cohort.images)
    return audit(rows, images, labels, cohort.outputs, settings)[0]


def dealt_anew(cohort: Cohort, seed: int) -> NDArray[Any]:
    """The labels of each patient given to another with as many images, so that nothing can know them."""
    generator = np.random.default_rng(seed)
    groups = cohort.rows.groupby("patient", sort=True).indices
    labels = cohort.labels.copy()
    sizes = {patient: len(rows) for patient, rows in groups.items()}
    for size in sorted(set(sizes.values())):
        patients = [patient for patient in groups if sizes[patient] == size]
        for patient, other in zip(patients, generator.permutation(patients), strict=True):
            labels[groups[patient]] = cohort.labels[groups[other]]
    return labels


def with_marker(cohort: Cohort, share: float) -> NDArray[np.uint8]:
    """The pictures, with a bright corner of 4 × 5 of the 64 × 64 cells in a share of the positive ones."""
    positive = np.flatnonzero(cohort.labels[:, 0] == 1)
    chosen = np.random.default_rng(1).permutation(positive)[: round(share * len(positive))]
    images = cohort.images.copy()
    images[chosen, 1:5, 1:6] = 255
    return images


def findings(cohorts: Sequence[Cohort]) -> Iterator[str]:
    reports = [audited(cohort, cohort.labels, AuditShortcutsSection()) for cohort in cohorts]
    yield f"| | {' | '.join(cohort.source.title for cohort in cohorts)} |"
    yield f"|---|{'---|' * len(cohorts)}"
    yield f"| images, patients | {' | '.join(f'{report.images}, {report.patients}' for report in reports)} |"
    for number, name in enumerate(shortcuts.SHORTCUTS):
        cells = [_cell(report.findings[number]) for report in reports]
        yield f"| {name}{'' if shortcuts.SHORTCUTS[name].blind else ' (coarse)'} | {' | '.join(cells)} |"
    yield f"| alarm | {' | '.join('**yes**' if report.alarms else 'no' for report in reports)} |"


def _cell(finding: Finding) -> str:
    known = finding.everyone
    text = "–" if known.value is None else f"{known.value:.2f} [{known.low:.2f}, {known.high:.2f}]"
    return f"**{text}**" if finding.alarms else text


def steadiness(cohorts: Sequence[Cohort], splits: int) -> Iterator[str]:
    """Other splits, and other folds with them."""
    yield f"| cohort | alarm, of {splits} | by |"
    yield "|---|---|---|"
    for cohort in cohorts:
        raised = []
        for seed in range(splits):
            part = partition(cohort.rows, cohort.labels, cohort.settings.task.declared(), _seeded(cohort.settings, seed))
            settings = QUICK.model_copy(update={"seed": seed})
            raised.append(audited(cohort, cohort.labels, settings, rows=cohort.rows.assign(part=part)).alarms)
        names = [name for name in shortcuts.SHORTCUTS if any(name in alarms for alarms in raised)]
        by = ", ".join(f"{name} {sum(name in alarms for alarms in raised)}" for name in names)
        yield f"| {cohort.source.title} | {sum(map(bool, raised))} | {by or '–'} |"


def _seeded(settings: Config, seed: int) -> Any:
    return settings.split.model_copy(update={"seed": seed})


def silence(cohorts: Sequence[Cohort], dealt: int) -> Iterator[str]:
    yield f"| cohort | false alarms, of {dealt} | highest AUROC of a blind shortcut |"
    yield "|---|---|---|"
    for cohort in cohorts:
        reports = [audited(cohort, dealt_anew(cohort, seed)) for seed in range(dealt)]
        highest = max(
            known.everyone.value or 0.0
            for report in reports
            for finding in report.findings
            if finding.shortcut.blind
            for known in finding.outputs.values()
        )
        yield f"| {cohort.source.title} | {sum(bool(report.alarms) for report in reports)} | {highest:.2f} |"


def sensitivity(cohort: Cohort) -> Iterator[str]:
    yield "| positives with the marker | border | alarm |"
    yield "|---|---|---|"
    for share in SHARES:
        report = audited(cohort, cohort.labels, AuditShortcutsSection(), images=with_marker(cohort, share))
        yield f"| {share:.0%} | {_cell(report.findings[0]).strip('*')} | {', '.join(report.alarms) or 'no'} |"


def beside_a_model(cohorts: Sequence[Cohort]) -> Iterator[str]:
    os.environ.setdefault("RADTRANSFER_WEIGHTS", str(SHARED / "weights"))
    gate = config.Policy().min_gain_over_shortcuts
    yield "| cohort | model, test part | best shortcut, test part | difference | gate |"
    yield "|---|---|---|---|---|"
    for cohort in cohorts:
        settings = config.load(cohort.paths.params, MODEL)
        audit_shortcuts.run(settings, cohort.paths)
        train.run(settings, cohort.paths)
        judged = evaluate.run(settings, cohort.paths)
        model, beyond = judged.macro["auroc"], judged.shortcuts
        passed = "passed" if beyond["gain"]["low"] >= gate else "failed"
        yield (
            f"| {cohort.source.title} | {_ends(model)} | {beyond['best']}, {_ends(beyond['auroc'])} | "
            f"{_ends(beyond['gain'], '+')} | {passed} |"
        )


def _ends(interval: dict[str, Any], sign: str = "") -> str:
    return f"{interval['value']:{sign}.3f} [{interval['low']:{sign}.3f}, {interval['high']:{sign}.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dealt", type=int, default=20, help="times that labels are dealt out anew")
    parser.add_argument("--splits", type=int, default=5, help="other splits that are tried")
    arguments = parser.parse_args()
    output, sys.stdout = sys.stdout, sys.stderr  # stages show their progress
    cohorts = [prepared(source) for source in SOURCES]
    started = time.process_time()
    once = list(findings(cohorts))
    seconds = (time.process_time() - started) / len(cohorts)
    children, etiology, adults, demo, *_ = cohorts
    sections = (
        ONCE.format(seconds=seconds),
        once,
        SPLITS.format(splits=arguments.splits),
        steadiness(cohorts, arguments.splits),
        DEALT.format(dealt=arguments.dealt),
        silence((children, etiology, adults, demo), arguments.dealt),
        MARKER,
        sensitivity(demo),
        MODEL_BESIDE,
        beside_a_model((children, adults, demo)),
        AGAIN,
    )
    for section in sections:
        print(section if isinstance(section, str) else "\n".join(section), end="\n\n" if section != AGAIN else "\n", file=output)
        output.flush()


ONCE = """\
# Shortcut audit

What can be told of the label without seeing a finding. AUROC over all patients, cross-fitted, with 95% intervals over patients;
bold: the alarm. The shortcuts marked coarse see the whole picture and raise none: in the phantoms, which have no shortcut,
they know of the label what the opacities themselves change. Where nothing is known, leaving a patient out tilts what is learned
from the others against that patient, hence values below 0.5: most of all in the phantoms, whose hospital, view, sex and age are
balanced on purpose between those with and those without the finding. Etiology: mean over the three classes, alarm for any of
them. {seconds:.1f} s of processor time for each, pictures not counted."""

SPLITS = """\
## Other splits

The same with {splits} other splits and folds."""

DEALT = """\
## Labels that mean nothing

Labels dealt out anew among the patients, {dealt} times: any alarm is false."""

MARKER = """\
## A planted shortcut

A bright corner (4 × 5 of 64 × 64 cells) in some of the positive images of the phantoms of the demo."""

MODEL_BESIDE = """\
## Next to a model

A linear probe on the features of MobileNetV2 (ImageNet, 224 pixels), on the test part. The gate of mlflow/policy.yaml asks for
a difference whose whole interval lies above 0.01. The definition of blind and coarse shortcuts, the width of the border and the
threshold of the alarm were fixed before the phantoms 8 and 9, the etiology, the dealt labels and the markers were looked at, not
before the other three cohorts were."""

AGAIN = "Run again: `python benchmarks/shortcuts.py > benchmarks/shortcuts.md`."


if __name__ == "__main__":
    main()
