"""audit_shortcuts: how much border, shape, header, histogram and a blurred image know of the label, on the split of the model."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines import files
from pipelines.config import Config
from pipelines.imaging.store import ArrayStore
from pipelines.paths import Paths
from pipelines.quality import shortcut_audit, shortcuts
from pipelines.quality.leakage import split_sha256
from pipelines.quality.shortcut_audit import Audit
from pipelines.records import shortcut_column


@dataclass(frozen=True)
class AuditShortcutsSummary:
    """What the shortcuts know.

    Attributes:
        shortcuts: for each shortcut what `shortcuts.json` says of it; None where a figure is undefined.
        alarms: the shortcuts that cannot see findings but know the label, and of which outputs.
        alarm_above: the AUROC from which one knows too much.
        result: the file of all figures, relative to the workspace.
        tasks_left_out: those beside the main one, which alone is audited.
    """

    images: int
    patients: int
    shortcuts: dict[str, Any]
    alarms: dict[str, tuple[str, ...]]
    alarm_above: float
    result: str
    tasks_left_out: tuple[str, ...] = ()

    def describe(self) -> str:
        table = Table("shortcut", "sees", "all patients", "95% interval", "test part", title="AUROC of shortcuts")
        for column in table.columns[2:]:
            column.justify = "right"
        for found in self.shortcuts.values():
            everyone, test = found["macro"]["everyone"], found["macro"]["test"]
            ends = "–" if everyone["low"] is None else f"{everyone['low']:.3f}–{everyone['high']:.3f}"
            mark = " ✗" if found["macro"]["alarm"] else ""
            table.add_row(found["title"] + mark, found["sees"], _number(everyone["value"]), ends, _number(test["value"]))
        text = StringIO()
        Console(file=text, width=110, color_system=None).print(table)
        left = f"\nthe main task alone is audited, not {escape(', '.join(self.tasks_left_out))}" if self.tasks_left_out else ""
        return f"{escape(text.getvalue().rstrip())}\n{self._verdict()}{left}"

    def _verdict(self) -> str:
        if not self.alarms:
            return "no alarm: no shortcut that cannot see findings is known to tell the label"
        knowing = ", ".join(f"{name} ({', '.join(outputs)})" for name, outputs in self.alarms.items())
        return (
            f"[red]alarm[/red] (✗): the label can be told without seeing a finding, by {escape(knowing)}, with an AUROC "
            f"surely above {self.alarm_above:g}; a model may learn that instead (`radtransfer evaluate` compares)"
        )


def run(config: Config, paths: Paths) -> AuditShortcutsSummary:
    """Write artifacts/shortcuts: what each shortcut knows, and what it says of each image of the test part.

    Raises:
        MissingInputError: an earlier stage has not run.
    """
    task = config.task.declared()
    split = files.read_table(paths.split, made_by="split")
    index = files.read_table(paths.index, made_by="prepare")
    labels = files.read_table(paths.labels, made_by="ingest").set_index("image")
    rows = index.merge(split[["image", "part"]], on="image", validate="1:1").sort_values("image", ignore_index=True)
    matrix = task.matrix(labels.loc[rows["image"]])
    images = shortcuts.pictures(ArrayStore(paths.prepared), rows)
    audit, said = shortcut_audit.audit(rows, images, matrix, task.outputs, config.audit_shortcuts)
    columns = {
        shortcut_column(name, output): scores[:, k] for name, scores in said.items() for k, output in enumerate(task.outputs)
    }
    tested = rows.loc[rows["part"] == "test", ["image", "patient"]].reset_index(drop=True)
    files.write_table(paths.shortcut_scores, pd.concat([tested, pd.DataFrame(columns)], axis=1))
    files.write_json(paths.shortcuts, {"split_sha256": split_sha256(split), **audit.to_dict()})
    return _summary(paths, audit, tuple(head.title for head in task.also))


def _summary(paths: Paths, audit: Audit, tasks_left_out: tuple[str, ...]) -> AuditShortcutsSummary:
    return AuditShortcutsSummary(
        images=audit.images,
        patients=audit.patients,
        shortcuts=audit.to_dict()["shortcuts"],
        alarms=audit.alarms,
        alarm_above=audit.alarm_above,
        result=paths.shortcuts.relative_to(paths.workspace).as_posix(),
        tasks_left_out=tasks_left_out,
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
