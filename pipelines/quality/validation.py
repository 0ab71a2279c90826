"""Running the expectations with Great Expectations, in memory: no project folder, no server, nothing reported to anyone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any

import great_expectations as gx
from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults, ProgressBarsConfig

from pipelines.quality.expectations import Expectation
from pipelines.quality.tables import ROW_NAMES

if TYPE_CHECKING:
    import pandas as pd

SEVERITIES = {"error": "critical", "warning": "warning"}
"""Our severities in the words of Great Expectations."""

UNDECIDED = "could not be decided"
"""What is observed where Great Expectations stumbled, for instance over a text among numbers."""


@dataclass(frozen=True)
class Finding:
    """What became of one expectation.

    Attributes:
        expectation: the expectation.
        passed: whether it holds.
        observed: what was seen, in plain words.
        failing_rows: pseudonyms of the images (or names of the outputs) that break it, each once, in the table's order.
    """

    expectation: Expectation
    passed: bool
    observed: str
    failing_rows: tuple[str, ...]


@dataclass(frozen=True)
class Validation:
    """The findings, and for each table what Great Expectations renders its Data Docs from."""

    findings: tuple[Finding, ...]
    results: Mapping[str, Any]

    def failed(self, severity: str) -> tuple[Finding, ...]:
        return tuple(item for item in self.findings if not item.passed and item.expectation.severity == severity)


def validate(tables: Mapping[str, pd.DataFrame], expected: Sequence[Expectation]) -> Validation:
    """Hold the tables against the expectations.

    An expectation about a column that is missing fails without being asked.
    """
    context = _context()
    source = context.data_sources.add_pandas("radtransfer")
    findings: dict[str, Finding] = {}
    results = {}
    for name, group in groupby(sorted(expected, key=lambda item: [*tables].index(item.table)), key=lambda item: item.table):
        table = tables[name].reset_index(drop=True)
        items = list(group)
        askable = [item for item in items if set(item.columns) <= set(table.columns)]
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table})
        results[name] = batch.validate(
            gx.ExpectationSuite(name=name, expectations=[_asked(item) for item in askable]), result_format=_wanted(name)
        )
        findings |= {item.name: _unanswerable(item, set(table.columns)) for item in items if item not in askable}
        findings |= _findings(results[name], {item.name: item for item in askable}, table)
    return Validation(tuple(findings[item.name] for item in expected), results)


def _context() -> Any:
    """A context in memory; its configuration names no Data Docs site, for which a stray temporary folder would be made."""
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    return gx.get_context(project_config=config, mode="ephemeral")


def _asked(item: Expectation) -> Any:
    kind = getattr(gx.expectations, item.type)
    return kind(**item.kwargs, severity=SEVERITIES[item.severity], description=item.says, meta={"name": item.name})


def _wanted(table: str) -> dict[str, Any]:
    return {
        "result_format": "COMPLETE",
        "unexpected_index_column_names": [ROW_NAMES[table]],
        "return_unexpected_index_query": False,
    }


def _unanswerable(item: Expectation, columns: set[str]) -> Finding:
    missing = [column for column in item.columns if column not in columns]
    return Finding(item, False, f"no column {', '.join(missing)}", ())


def _findings(answers: Any, items: Mapping[str, Expectation], table: pd.DataFrame) -> dict[str, Finding]:
    found = {}
    for answer in answers.results:
        item = items[answer.expectation_config.meta["name"]]
        found[item.name] = Finding(
            item, bool(answer.success), _observed(answer, item, table), _failing(answer, ROW_NAMES[item.table])
        )
        _trim(answer)
    return found


def _failing(answer: Any, row_name: str) -> tuple[str, ...]:
    if answer.success:
        return ()
    rows = answer.result.get("unexpected_index_list") or []
    return tuple(dict.fromkeys(row[row_name] for row in rows if isinstance(row.get(row_name), str)))


def _observed(answer: Any, item: Expectation, table: pd.DataFrame) -> str:
    result = answer.result
    if item.table == "classes" and "unexpected_count" in result:
        return ", ".join(f"{name} {value:.4g}" for name, value in zip(table["output"], table[item.columns[0]], strict=True))
    if "unexpected_count" in result:
        wrong, rows = result["unexpected_count"], result["element_count"]
        return f"{wrong:,} of {rows:,} rows do not fit" if wrong else f"all {rows:,} rows fit"
    if missing := result.get("details", {}).get("mismatched", {}).get("missing"):
        return f"missing: {', '.join(missing)}"
    seen = result.get("observed_value")
    if isinstance(seen, list):
        return "every column is there"
    return UNDECIDED if seen is None else f"{seen:,}" if isinstance(seen, int) else str(seen)


def _trim(answer: Any) -> None:
    """Make an answer fit for the Data Docs.

    Lists as long as the table and tracebacks with the machine's paths go; texts are escaped, since Great Expectations puts
    unexpected values into its HTML as they are.
    """
    for key in ("unexpected_list", "unexpected_index_list"):
        answer.result.pop(key, None)
    for key in [key for key in answer.result if key.startswith("partial_unexpected")]:
        answer.result[key] = _escaped(answer.result[key])
    if not answer.result:
        answer.result = {"observed_value": UNDECIDED}
    answer.exception_info = {"raised_exception": False, "exception_message": None, "exception_traceback": None}


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escape(value) if isinstance(value, str) else value
