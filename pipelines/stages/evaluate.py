"""evaluate: judge the model on the test part, at the thresholds that were chosen on validation, and write the packet."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines import console, files, packet, versioning
from pipelines.config import Config, EvaluateSection
from pipelines.errors import MissingInputError
from pipelines.imaging.store import ArrayStore
from pipelines.inference import Model
from pipelines.metrics import curves, forest, plots
from pipelines.metrics.evaluation import METRICS, Evaluation, evaluate
from pipelines.metrics.intervals import Interval
from pipelines.metrics.mistakes import Mistake, worst
from pipelines.metrics.saliency import grad_cam, overlay
from pipelines.metrics.subgroups import UNKNOWN, Subgroup, attributes, subgroups
from pipelines.metrics.thresholds import spelled
from pipelines.paths import Paths
from pipelines.quality import shortcut_comparison
from pipelines.quality.leakage import split_sha256
from pipelines.quality.shortcut_comparison import Comparison
from pipelines.records import Task, label_column, probability_column
from pipelines.training.batches import as_tensor, scaled

CHUNK = 256  # images read at a time
LARGEST = 320  # rows and columns of an image in the packet


@dataclass(frozen=True)
class EvaluateSummary:
    """How the model did on the test part.

    Attributes:
        macro: for each metric the value and the ends of its 95% interval, mean over the outputs; None where undefined.
        shortcuts: the best shortcut, what the model knows beyond it, and which shortcuts raised the alarm.
        metrics: the file of all metrics, relative to the workspace; likewise `packet` and `figures`.
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
            f"review packet: [bold]{escape(self.packet)}[/bold]"
        )

    def _next_to_shortcuts(self) -> str:
        best, gain = self.shortcuts["best"], self.shortcuts["gain"]
        ends = "" if gain["low"] is None else f" ({gain['low']:+.3f} to {gain['high']:+.3f})"
        said = f"AUROC beyond the best shortcut, {best}: {gain['value']:+.3f}{ends}" if best else "no shortcut could be judged"
        alarm = f"; [red]shortcut alarm[/red]: {escape(self.shortcuts['alarms'])}" if self.shortcuts["alarm"] else ""
        return said + alarm


@dataclass(frozen=True)
class _Test:
    """The test part, sorted by image: its rows of the index, labels, probabilities and calls, each (images, outputs)."""

    rows: pd.DataFrame
    labels: NDArray[np.float32]
    scores: NDArray[np.float32]
    called: NDArray[np.bool_]


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
    if model.card.task != task:
        raise MissingInputError(
            f"model.json: expected a model for {', '.join(task.outputs)}, got one for {', '.join(model.card.task.outputs)}; "
            "run `radtransfer train` again"
        )
    store = ArrayStore(paths.prepared)
    _require_its_own(model, store, paths)
    audit, said = shortcut_comparison.read(paths, str(model.card.training["split_sha256"]), task.outputs)
    cohort = _cohort(paths, task)
    test = _predicted(model, store, cohort, task)
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
    _write(paths, task, test, found, tables, figures)
    files.write_json(paths.metrics, {**found.to_dict(), "shortcuts": beyond.to_dict(), "model_sha256": model.card.sha256})
    facts = packet.Packet(
        card=model.card,
        evaluation=found,
        subgroups=_subgroups(task, test, thresholds, settings.bootstrap, settings.seed),
        figures={name.removesuffix(".svg"): content for name, content in figures.items() if name.endswith(".svg")},
        false_positives=_cases(mistakes[0], model, store, test, thresholds),
        false_negatives=_cases(mistakes[1], model, store, test, thresholds),
        cohort=cohort,
        ingest=files.read_json(paths.flow, made_by="ingest") if paths.flow.is_file() else None,
        quality=files.read_json(paths.quality_result, made_by="check"),
        leakage=files.read_json(paths.leakage, made_by="split"),
        shortcuts=beyond,
        history=pd.read_csv(paths.model / "history.csv"),
        resamples=settings.bootstrap,
        commit=commit,
        data_hash=versioning.data_hash(paths),
    )
    files.write_text(paths.packet, packet.render(facts))
    return _summary(paths, test, found, beyond)


def _require_its_own(model: Model, store: ArrayStore, paths: Paths) -> None:
    """Refuse a test part that the model may have learnt from, a certificate of another split, and other prepared images."""
    split = split_sha256(files.read_table(paths.split, made_by="split"))
    certified = files.read_json(paths.leakage, made_by="split")["split_sha256"]
    if certified != split:
        raise MissingInputError(
            f"leakage.json: expected the certificate of split {split[:12]}, got that of {certified[:12]}; run `radtransfer split`"
        )
    if (trained := str(model.card.training.get("split_sha256"))) != split:
        raise MissingInputError(
            f"split.parquet: expected split {trained[:12]}, which the model was trained on, got {split[:12]}, whose test part "
            "may hold patients that it learnt from; run `radtransfer train` again"
        )
    if store.recipe != model.card.recipe:
        raise MissingInputError(
            f"prepared: expected images made by {model.card.recipe}, as in training, got {store.recipe}; "
            "run `radtransfer train` again"
        )


def _cohort(paths: Paths, task: Task) -> pd.DataFrame:
    """Every image of the index, sorted, with its `part` (None for one in no part) and its labels as `y_NAME`."""
    index = files.read_table(paths.index, made_by="prepare").sort_values("image", ignore_index=True)
    split = files.read_table(paths.split, made_by="split")[["image", "part"]]
    labels = files.read_table(paths.labels, made_by="ingest")
    known = pd.DataFrame(task.matrix(labels), columns=[label_column(name) for name in task.outputs])
    known.insert(0, "image", labels["image"].to_numpy())
    return index.merge(split, on="image", how="left", validate="1:1").merge(known, on="image", how="left", validate="1:1")


def _predicted(model: Model, store: ArrayStore, cohort: pd.DataFrame, task: Task) -> _Test:
    rows = cohort[cohort["part"] == "test"].reset_index(drop=True)
    shards, places = rows["shard"].to_numpy(np.int64), rows["row"].to_numpy(np.int64)
    chunks = [np.empty((0, len(task.outputs)), np.float32)]
    with console.progress() as progress:
        bar = progress.add_task("test", total=len(rows), note="")
        for start in range(0, len(rows), CHUNK):
            inside = slice(start, start + CHUNK)
            chunks.append(model.probabilities(store.take(shards[inside], places[inside])))
            progress.update(bar, advance=len(chunks[-1]))
    scores = np.concatenate(chunks)
    labels = rows[[label_column(name) for name in task.outputs]].to_numpy(np.float32)
    called = scores >= np.array([model.card.thresholds[name] for name in task.outputs])
    return _Test(rows, labels, scores, called)


def _measured(test: _Test, task: Task, thresholds: Sequence[float], settings: EvaluateSection) -> Evaluation:
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


def _drawn(task: Task, test: _Test, found: Evaluation, tables: curves.Tables) -> plots.Drawn:
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


def _write(paths: Paths, task: Task, test: _Test, found: Evaluation, tables: curves.Tables, figures: dict[str, bytes]) -> None:
    columns: dict[str, Any] = {name: test.rows[name].to_numpy() for name in ("image", "patient", "part")}
    for k, name in enumerate(task.outputs):
        columns[probability_column(name)] = test.scores[:, k]
        columns[label_column(name)] = test.labels[:, k]
        columns[f"predicted_{name}"] = test.called[:, k]
    files.write_table(paths.evaluation / "predictions.parquet", pd.DataFrame(columns))
    for name in ("roc", "precision_recall", "reliability", "confusion"):
        files.write_text(paths.evaluation / f"{name}.csv", getattr(tables, name).to_csv(index=False))
    folder = paths.evaluation / "figures"
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in figures.items():
        files.write_bytes(folder / name, content)


def _subgroups(task: Task, test: _Test, thresholds: Sequence[float], resamples: int, seed: int) -> dict[str, list[Subgroup]]:
    groups, patients = attributes(test.rows), test.rows["patient"].to_numpy()
    return {
        name: subgroups(
            test.labels[:, k], test.scores[:, k], patients, groups, threshold=thresholds[k], resamples=resamples, seed=seed
        )
        for k, name in enumerate(task.outputs)
    }


def _cases(
    mistakes: Sequence[Mistake], model: Model, store: ArrayStore, test: _Test, thresholds: Sequence[float]
) -> list[packet.Case]:
    groups = attributes(test.rows)
    return [_case(mistake, model, store, test, groups, thresholds[mistake.output]) for mistake in mistakes]


def _case(
    mistake: Mistake, model: Model, store: ArrayStore, test: _Test, groups: dict[str, list[str]], threshold: float
) -> packet.Case:
    row = test.rows.iloc[mistake.row]
    stored = store.take(np.array([row["shard"]]), np.array([row["row"]]))
    tensor = scaled(as_tensor(stored).to(model.device))
    evidence = _fitted(grad_cam(model.network, model.network.saliency_layer, tensor, mistake.output, model.network.maps)[0])
    image = _fitted(tensor[0, 0].to(torch.float32).cpu().numpy())
    gray = np.rint(255 * image).astype(np.uint8)
    facts = [groups[attribute][mistake.row] for attribute in ("View", "Sex", "Age", "Site")]
    if facts[2] != UNKNOWN:
        facts[2] += " years"
    return packet.Case(
        image=row["image"],
        who=" · ".join(fact for fact in facts if fact != UNKNOWN),
        output=model.card.task.outputs[mistake.output],
        probability=mistake.probability,
        threshold=threshold,
        picture=_png(gray),
        evidence=_png(overlay(gray, evidence)[..., ::-1]),
    )


def _fitted(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most `LARGEST` rows and columns."""
    if len(image) <= LARGEST:
        return image
    return cv2.resize(image, (LARGEST, LARGEST), interpolation=cv2.INTER_AREA).astype(np.float32)


def _png(image: NDArray[np.uint8]) -> bytes:
    """PNG of a gray image or of one in OpenCV's order of colours (blue, green, red)."""
    return bytes(cv2.imencode(".png", np.ascontiguousarray(image), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1])


def _summary(paths: Paths, test: _Test, found: Evaluation, beyond: Comparison) -> EvaluateSummary:
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
    )
