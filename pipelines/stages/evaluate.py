"""evaluate: judge the model on the test part, at the thresholds that were chosen on validation, and write the packet."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines import files, packet, versioning
from pipelines.config import Config, EvaluateSection
from pipelines.errors import MissingInputError
from pipelines.imaging.store import ArrayStore
from pipelines.inference import Model
from pipelines.metrics import curves, forest, plots
from pipelines.metrics.evaluation import METRICS, Evaluation, evaluate
from pipelines.metrics.further import TaskEvaluation, evaluate_head
from pipelines.metrics.intervals import Interval
from pipelines.metrics.mistakes import worst
from pipelines.metrics.subgroups import Subgroup, attributes, subgroups
from pipelines.metrics.thresholds import spelled
from pipelines.packet_cases import cases
from pipelines.paths import Paths
from pipelines.quality import shortcut_comparison
from pipelines.quality.shortcut_comparison import Comparison
from pipelines.records import Task, label_column, probability_column
from pipelines.tested import Tested, cohort_of, predicted, require_its_own
from pipelines.training.answers import columns as answer_columns
from pipelines.training.answers import likeliest


@dataclass(frozen=True)
class EvaluateSummary:
    """How the model did on the test part.

    Attributes:
        macro: for each metric the value and the ends of its 95% interval, mean over the outputs; None where undefined.
        shortcuts: the best shortcut, what the model knows beyond it, and which shortcuts raised the alarm.
        metrics: the file of all metrics, relative to the workspace; likewise `packet` and `figures`.
        tasks: of each task beside the main one, its first metrics in words.
    """

    images: int
    patients: int
    macro: dict[str, dict[str, float | None]]
    thresholds: dict[str, float]
    shortcuts: dict[str, Any]
    false_positives: int
    false_negatives: int
    metrics: str
    packet: str
    figures: str
    tasks: dict[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        table = Table("metric", "value", "95% interval", title=f"{self.images:,} test images of {self.patients:,} patients")
        for column in table.columns[1:]:
            column.justify = "right"
        for name, found in self.macro.items():
            ends = "–" if found["low"] is None else f"{found['low']:.3f}–{found['high']:.3f}"
            table.add_row(METRICS[name].title, "–" if found["value"] is None else f"{found['value']:.3f}", ends)
        text = StringIO()
        Console(file=text, width=64, color_system=None).print(table)
        thresholds = ", ".join(f"{escape(name)} ≥ {spelled(value)}" for name, value in self.thresholds.items())
        return (
            f"{escape(text.getvalue().rstrip())}\n"
            f"positive from (chosen on validation): {thresholds}; "
            f"{self.false_positives:,} false positives, {self.false_negatives:,} false negatives\n"
            f"{self._next_to_shortcuts()}\n"
            f"{''.join(f'{escape(name)}: {escape(words)}{chr(10)}' for name, words in self.tasks.items())}"
            f"review packet: [bold]{escape(self.packet)}[/bold]"
        )

    def _next_to_shortcuts(self) -> str:
        best, gain = self.shortcuts["best"], self.shortcuts["gain"]
        ends = "" if gain["low"] is None else f" ({gain['low']:+.3f} to {gain['high']:+.3f})"
        said = f"AUROC beyond the best shortcut, {best}: {gain['value']:+.3f}{ends}" if best else "no shortcut could be judged"
        alarm = f"; [red]shortcut alarm[/red]: {escape(self.shortcuts['alarms'])}" if self.shortcuts["alarm"] else ""
        return said + alarm


def run(config: Config, paths: Paths, commit: str | None = None) -> EvaluateSummary:
    """Write artifacts/evaluation: predictions, metrics, the tables and figures of the curves, and the review packet.

    Args:
        config: `evaluate` says how; nothing in it moves a threshold.
        paths: the workspace.
        commit: of the code, for the packet's provenance.

    Raises:
        MissingInputError: an earlier stage has not run, or the model is for another task, another split or another recipe.
        WeightsError: the model is altered.
    """
    task, settings = config.task.declared(), config.evaluate
    model = Model.load(paths.model, config.train.device)
    if differing := task.differing(model.card.task):
        raise MissingInputError(
            f"model.json: expected a model for {_told(task)}, got one for {_told(model.card.task)} ({differing}); run "
            "`radtransfer train` again, or give `evaluate` the same `--set`"
        )
    store = ArrayStore(paths.prepared)
    require_its_own(model, store, paths)
    audit, said = shortcut_comparison.read(paths, str(model.card.training["split_sha256"]), task.outputs)
    cohort = cohort_of(paths, task)
    everyone = predicted(model, store, cohort, task)
    test = everyone.labelled()
    thresholds = [model.card.thresholds[name] for name in task.outputs]
    found = _measured(test, task, thresholds, settings)
    tables = curves.tables(task, test.labels, test.scores, test.called, settings.bins)
    beyond = shortcut_comparison.compare(
        *(audit, said, test.rows, test.labels, test.scores),
        outputs=task.outputs,
        resamples=settings.bootstrap,
        seed=settings.seed,
    )
    figures = {**plots.draw(_drawn(task, test, found, tables)), **_shortcuts_drawn(beyond, found)}
    mistakes = worst(test.labels, test.scores, thresholds, settings.worst)
    further = _further(model, everyone, settings)
    _write(paths, task, everyone, model.card.thresholds, found, tables, figures)
    measured = {**found.to_dict(), "shortcuts": beyond.to_dict(), "model_sha256": model.card.sha256}
    if further:
        measured["tasks"] = {judged.head.name: judged.to_dict() for judged in further}
    files.write_json(paths.metrics, measured)
    facts = packet.Packet(
        card=model.card,
        evaluation=found,
        subgroups=_subgroups(task, test, thresholds, settings.bootstrap, settings.seed),
        figures={name.removesuffix(".svg"): content for name, content in figures.items() if name.endswith(".svg")},
        false_positives=cases(mistakes[0], model, store, test, thresholds),
        false_negatives=cases(mistakes[1], model, store, test, thresholds),
        cohort=cohort,
        ingest=files.read_json(paths.flow, made_by="ingest") if paths.flow.is_file() else None,
        quality=files.read_json(paths.quality_result, made_by="check"),
        leakage=files.read_json(paths.leakage, made_by="split"),
        shortcuts=beyond,
        history=pd.read_csv(paths.model / "history.csv"),
        resamples=settings.bootstrap,
        further=further,
        commit=commit,
        data_hash=versioning.data_hash(paths),
    )
    files.write_text(paths.packet, packet.render(facts))
    return _summary(paths, test, found, beyond, further)


def _told(task: Task) -> str:
    return ", ".join([*task.outputs, *(head.name for head in task.also)])


def _measured(test: Tested, task: Task, thresholds: Sequence[float], settings: EvaluateSection) -> Evaluation:
    return evaluate(
        test.labels,
        test.scores,
        test.rows["patient"].to_numpy(),
        outputs=task.outputs,
        thresholds=thresholds,
        bins=settings.bins,
        resamples=settings.bootstrap,
        seed=settings.seed,
    )


def _further(model: Model, test: Tested, settings: EvaluateSection) -> tuple[TaskEvaluation, ...]:
    """Judge each task beside the main one on the images of the test part whose label it knows."""
    task, judged = model.card.task, []
    for head, answers in task.further(test.answers):
        labels = pd.DataFrame({target: test.rows[label_column(target)].to_numpy() for target in head.targets})
        matrix = head.matrix(labels)
        judged.append(
            evaluate_head(
                head,
                labels=matrix,
                truth=head.ranks(labels) if head.classes else matrix[:, 0],
                answers=answers,
                said=likeliest(head, answers) if head.classes else answers[:, 0],
                patients=test.rows["patient"].to_numpy(),
                thresholds=model.card.thresholds,
                bins=settings.bins,
                resamples=settings.bootstrap,
                seed=settings.seed,
            )
        )
    return tuple(judged)


def _drawn(task: Task, test: Tested, found: Evaluation, tables: curves.Tables) -> plots.Drawn:
    headline = {"roc": "auroc", "precision_recall": "auprc", "reliability": "ece"}

    def value(metrics: Any, metric: str) -> str:
        number = metrics[metric].value
        return f"{METRICS[metric].title} {'–' if number is None else format(number, '.3f')}"

    known = {name: ~np.isnan(test.labels[:, k]) for k, name in enumerate(task.outputs)}
    several = len(task.outputs) > 1
    return plots.Drawn(
        tables=tables,
        scores={name: test.scores[known[name], k].astype(np.float64) for k, name in enumerate(task.outputs)},
        prevalence={output.name: output.positives / max(output.positives + output.negatives, 1) for output in found.outputs},
        points={
            output.name: tuple(output.metrics[name].value for name in ("sensitivity", "specificity", "ppv"))  # type: ignore[misc]
            for output in found.outputs
        },
        classes=task.classes,
        legends={
            figure: {
                output.name: (f"{output.name}, " if several else "") + value(output.metrics, metric) for output in found.outputs
            }
            for figure, metric in headline.items()
        },
    )


def _shortcuts_drawn(beyond: Comparison, found: Evaluation) -> dict[str, bytes]:
    rows = [
        forest.Row(
            title=shortcut["title"],
            blind=shortcut["blind"],
            alarm=shortcut["macro"]["alarm"],
            everyone=Interval(**shortcut["macro"]["everyone"]),
            test=shortcut["macro"]["test"]["value"],
        )
        for shortcut in beyond.audit["shortcuts"].values()
    ]
    return forest.draw(rows, found.macro["auroc"], beyond.audit["alarm_above"])


def _write(
    paths: Paths,
    task: Task,
    test: Tested,
    thresholds: Mapping[str, float],
    found: Evaluation,
    tables: curves.Tables,
    figures: dict[str, bytes],
) -> None:
    columns: dict[str, Any] = {name: test.rows[name].to_numpy() for name in ("image", "patient", "part")}
    for k, name in enumerate(task.outputs):
        columns[probability_column(name)] = test.scores[:, k]
        columns[label_column(name)] = test.labels[:, k]
        columns[f"predicted_{name}"] = test.called[:, k]
    for head, answers in task.further(test.answers):
        columns |= answer_columns(head, answers, {}, np.ones(len(answers), bool))
        called = [(name, answers[:, k] >= thresholds[name]) for k, name in enumerate(head.outputs) if name in thresholds]
        columns |= {f"predicted_{name}": positive for name, positive in called}
        columns |= {label_column(target): test.rows[label_column(target)].to_numpy() for target in head.targets}
    files.write_table(paths.evaluation / "predictions.parquet", pd.DataFrame(columns))
    for name in ("roc", "precision_recall", "reliability", "confusion"):
        files.write_text(paths.evaluation / f"{name}.csv", getattr(tables, name).to_csv(index=False))
    folder = paths.evaluation / "figures"
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in figures.items():
        files.write_bytes(folder / name, content)


def _subgroups(task: Task, test: Tested, thresholds: Sequence[float], resamples: int, seed: int) -> dict[str, list[Subgroup]]:
    groups, patients = attributes(test.rows), test.rows["patient"].to_numpy()
    return {
        name: subgroups(
            test.labels[:, k], test.scores[:, k], patients, groups, threshold=thresholds[k], resamples=resamples, seed=seed
        )
        for k, name in enumerate(task.outputs)
    }


def _summary(
    paths: Paths, test: Tested, found: Evaluation, beyond: Comparison, further: Sequence[TaskEvaluation]
) -> EvaluateSummary:
    def place(path: Any) -> str:
        return str(path.relative_to(paths.workspace).as_posix())

    return EvaluateSummary(
        images=found.images,
        patients=found.patients,
        macro={name: value.to_dict() for name, value in found.macro.items()},
        thresholds={output.name: output.threshold for output in found.outputs},
        shortcuts=beyond.to_dict(),
        false_positives=int(((test.labels == 0) & test.called).sum()),
        false_negatives=int(((test.labels == 1) & ~test.called).sum()),
        metrics=place(paths.metrics),
        packet=place(paths.packet),
        figures=place(paths.evaluation / "figures"),
        tasks={judged.head.name: _in_words(judged) for judged in further},
    )


def _in_words(judged: TaskEvaluation) -> str:
    """The first metrics of a further task with their intervals, for the terminal."""
    told = []
    for name, value in list(judged.metrics.items())[:2]:
        ends = "" if value.low is None else f" ({value.low:.3g} to {value.high:.3g})"
        unit = f" {judged.unit(name)}" if judged.unit(name) else ""
        told.append(f"{judged.title(name)} {'–' if value.value is None else format(value.value, '.3g')}{unit}{ends}")
    return f"{', '.join(told)}; {judged.images:,} images of {judged.patients:,} patients"
