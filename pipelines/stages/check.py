"""check: hold the prepared images and their labels against what is expected of them, before anything is learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines import files
from pipelines.errors import QualityError
from pipelines.quality import docs, tables
from pipelines.quality.expectations import expectations
from pipelines.quality.validation import Finding, Validation, validate

if TYPE_CHECKING:
    from pipelines.config import Config
    from pipelines.paths import Paths

CAPTIONS = {"images": "images taken in", "prepared": "prepared", "usable": "prepared and labelled", "patients": "their patients"}

NAMED = 3
"""Failing rows named in an error message."""


@dataclass(frozen=True)
class CheckSummary:
    """What the check found.

    Attributes:
        passed: no expectation of severity `error` failed.
        images: images that were taken in.
        prepared: images that were prepared.
        usable: images that are prepared and labelled.
        patients: patients of the usable images.
        expectations: how many expectations were asked.
        errors: names of the failed expectations of severity `error`.
        warnings: names of the failed ones of severity `warning`.
        docs: the Data Docs, relative to the workspace.
    """

    passed: bool
    images: int
    prepared: int
    usable: int
    patients: int
    expectations: int
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    docs: str

    def describe(self) -> str:
        from rich.markup import escape

        verdict = "[green]passed[/green]" if self.passed else "[red]not passed[/red]"
        lines = [
            f"Quality {verdict}: {self.expectations} expectations on {self.usable:,} prepared and labelled images "
            f"of {self.patients:,} patients ({self.images:,} taken in, {self.images - self.prepared:,} left out)"
        ]
        lines += [f"  [red]error[/red]    {escape(name)}" for name in self.errors]
        lines += [f"  [yellow]warning[/yellow]  {escape(name)}" for name in self.warnings]
        return "\n".join([*lines, f"Data Docs: {self.docs}"])


def run(config: Config, paths: Paths) -> CheckSummary:
    """Write the result and the Data Docs to artifacts/quality/, then stop if the data are not fit.

    Raises:
        QualityError: an expectation of severity `error` failed; result and Data Docs are written all the same.
    """
    task = config.task.declared()
    index = files.read_table(paths.index, made_by="prepare")
    labels = files.read_table(paths.labels, made_by="ingest")
    built = tables.build(index, labels, task)
    validation = validate(built, expectations(config.check, task))
    counts = _counts(built)
    inputs = {"index": files.sha256(paths.index), "labels": files.sha256(paths.labels)}
    files.write_text(paths.data_docs, docs.page(validation, {CAPTIONS[name]: number for name, number in counts.items()}))
    files.write_json(paths.quality_result, _result(validation, counts) | {"classes": _classes(built), "inputs": inputs})
    if errors := validation.failed("error"):
        raise QualityError(_explained(errors))
    return CheckSummary(
        passed=True,
        **counts,
        expectations=len(validation.findings),
        errors=(),
        warnings=tuple(item.expectation.name for item in validation.failed("warning")),
        docs=paths.data_docs.relative_to(paths.workspace).as_posix(),
    )


def _counts(built: Mapping[str, Any]) -> dict[str, int]:
    return {
        "images": len(built["index"]),
        "prepared": len(built["images"]),
        "usable": len(built["cohort"]),
        "patients": int(built["cohort"]["patient"].nunique()),
    }


def _classes(built: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Images and patients with and without each output, by its name."""
    rows = built["classes"].drop(columns="prevalence").set_index("output")
    return {str(name): {str(key): int(value) for key, value in row.items()} for name, row in rows.iterrows()}


def _result(validation: Validation, counts: Mapping[str, int]) -> dict[str, Any]:
    errors, warnings = validation.failed("error"), validation.failed("warning")
    return {
        "passed": not errors,
        "errors": len(errors),
        "warnings": len(warnings),
        **counts,
        "expectations": [
            {
                "name": item.expectation.name,
                "says": item.expectation.says,
                "severity": item.expectation.severity,
                "table": item.expectation.table,
                "passed": item.passed,
                "observed": item.observed,
                "failing_rows": list(item.failing_rows),
            }
            for item in validation.findings
        ],
    }


def _explained(errors: Sequence[Finding]) -> str:
    lines = [f"check: {len(errors)} of the expectations with severity error failed:"]
    for item in errors:
        named = ", ".join(item.failing_rows[:NAMED])
        more = len(item.failing_rows) - NAMED
        rows = f" ({named}{f' and {more} more' if more > 0 else ''})" if named else ""
        lines.append(f"  {item.expectation.name}: {item.expectation.says} Found: {item.observed}{rows}")
    return "\n".join(
        [
            *lines,
            "artifacts/quality/result.json names every failing row and artifacts/quality/docs/index.html shows them; "
            "correct the data, take in the labels again with `radtransfer ingest SOURCE --labels FILE.csv`, or correct the "
            "section check of params.yaml",
        ]
    )
