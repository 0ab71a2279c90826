"""Predict for DICOM files, and say which model answered."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import files, tracking
from pipelines.config import Config
from pipelines.console import progress
from pipelines.errors import MissingInputError, SourceError
from pipelines.metrics.thresholds import spelled
from pipelines.paths import Paths
from pipelines.processes import cores
from pipelines.records import CALLED, Reason, class_column, probability_column, value_column

if TYPE_CHECKING:
    from pipelines.inference import Model
    from pipelines.tracking import Version

CHUNK = 64
FEWEST_EACH = 4  # files that are worth another process


@dataclass(frozen=True)
class Prediction:
    """The answer for one file.

    Attributes:
        source: the file, as the user named it or as found in a folder that the user named; for the terminal only.
        probabilities: by output; empty for a file that was refused.
        positive: by output that has a threshold, whether the probability reaches it.
        values: by regression task, the value in its unit.
        classes: by multiclass or ordinal task beside the main one, the class.
        refused: a `Reason` value, or None.
    """

    source: str
    probabilities: dict[str, float]
    positive: dict[str, bool]
    refused: str | None
    values: dict[str, float] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PredictSummary:
    """The answers, and whose they are.

    Attributes:
        answered_by: which model, and how far it has been reviewed.
        reviewed: whether that model is the champion.
        thresholds: probability from which an output counts as positive.
        predictions: one for each file, in order.
        not_dicom: files of the folders that are not DICOM, and were passed over.
        units: by task beside the main one that answers with a value or a class, the unit, or nothing.
    """

    answered_by: str
    reviewed: bool
    thresholds: dict[str, float]
    predictions: tuple[Prediction, ...]
    not_dicom: int
    units: dict[str, str] = field(default_factory=dict)

    @property
    def answered(self) -> bool:
        """Whether there is an answer for any file."""
        return any(item.refused is None for item in self.predictions)

    def describe(self) -> str:
        from rich.markup import escape

        colour = "green" if self.reviewed else "yellow"
        refused = sum(item.refused is not None for item in self.predictions)
        counts = f"{len(self.predictions) - refused} predicted, {refused} refused, {self.not_dicom} not DICOM and passed over"
        lines = [escape(line) for line in self._rows()]
        return "\n".join((*lines, "", f"answered by [{colour}]{escape(self.answered_by)}[/{colour}]; {counts}"))

    def _rows(self) -> Iterator[str]:
        """A table: a file to a line, with its answers first, since the names have any length."""
        titles = [f"{name} ≥ {spelled(threshold)}" for name, threshold in self.thresholds.items()]
        titles += [f"{name} ({unit})" if unit else name for name, unit in self.units.items()]
        rows = [titles, *(self._cells(item) for item in self.predictions)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row, name in zip(rows, ["file", *(item.source for item in self.predictions)], strict=True):
            yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=True)), name])

    def _cells(self, item: Prediction) -> list[str]:
        if item.refused is not None:
            return [f"refused: {item.refused}", *[""] * (len(self.thresholds) + len(self.units) - 1)]
        called = [f"{spelled(item.probabilities[name])}{' positive' if item.positive[name] else ''}" for name in self.thresholds]
        return [*called, *(item.classes.get(name) or f"{item.values[name]:.4g}" for name in self.units)]


def run(config: Config, paths: Paths, sources: Sequence[Path]) -> PredictSummary:
    """Predict with the champion; without one with the model of this workspace, saying how far it has been reviewed.

    Nothing is written, and the names of the files go nowhere but into the summary.

    Raises:
        SourceError: a source is not there, or there is nothing in any.
        MissingInputError: there is neither a champion nor a model in the workspace.
        ServiceError: MLflow does not answer, or the champion's weights are not the registered ones.
    """
    wanted, found = _files(sources)
    with _model(config, paths) as (model, answered_by, reviewed):
        predictions = tuple(_predictions(model, [*wanted, *found], config.prepare.seconds_per_file))
        thresholds = dict(model.card.thresholds)
        units = {head.name: head.unit for head in model.card.task.also if head.kind not in CALLED}
    # a file that was named is refused aloud, whatever it is
    passed_over = {n for n, item in enumerate(predictions) if n >= len(wanted) and item.refused == Reason.NOT_DICOM.value}
    kept = tuple(item for n, item in enumerate(predictions) if n not in passed_over)
    return PredictSummary(answered_by, reviewed, thresholds, kept, len(passed_over), units)


def _files(sources: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The files that were named, and those found in the folders that were named."""
    for position, source in enumerate(sources, 1):
        if not (source.is_file() or source.is_dir()):  # a pipe or a device may have no end
            raise SourceError(f"PATH number {position}: expected a DICOM file or a folder, found none")
    named = [source for source in sources if not source.is_dir()]
    found = [path for source in sources if source.is_dir() for path in sorted(source.rglob("*")) if path.is_file()]
    if not named and not found:
        raise SourceError("PATH: expected DICOM files, found empty folders")
    return named, found


@contextmanager
def _model(config: Config, paths: Paths) -> Iterator[tuple[Model, str, bool]]:
    """Give the model that answers, its name for people, and whether a person has promoted it."""
    from pipelines.inference import Model

    name = config.registration.model
    champion = tracking.by_alias(paths, name, tracking.CHAMPION)
    if champion:
        with tracking.fetched(paths, champion) as folder:
            yield Model.load(folder, config.train.device), f"{name} version {champion.number} (champion)", True
        return
    weights = paths.model / "model.safetensors"
    if not weights.is_file():
        raise MissingInputError(
            f"{name}: expected a version with the alias {tracking.CHAMPION} in MLflow or a model in artifacts/model, "
            "found neither; run `radtransfer run`"
        )
    known = tracking.find(paths, name, {tracking.MODEL_HASH: files.sha256(weights)})
    yield Model.load(paths.model, config.train.device), _unreviewed(name, known), False


def _unreviewed(name: str, known: Version | None) -> str:
    if known is None:
        return "artifacts/model (not registered, not reviewed; there is no champion)"
    alias = f"{tracking.CHALLENGER}: not reviewed" if tracking.CHALLENGER in known.aliases else f"review.status {known.status}"
    return f"{name} version {known.number} ({alias}; there is no champion)"


def _predictions(model: Model, paths: Sequence[Path], seconds: float) -> Iterator[Prediction]:
    """Answer for files, decoded in processes of their own, so that one that crashes or hangs a decoder costs itself alone."""
    from pipelines.imaging.workers import prepare_files

    workers, remaining = min(cores(), ceil(len(paths) / FEWEST_EACH)), iter(paths)
    outcomes = prepare_files(paths, model.card.recipe, workers, seconds, forgiving=True, command="predict")
    with progress() as display:
        task = display.add_task("predict", total=len(paths), note="")
        while chunk := list(islice(remaining, CHUNK)):
            answers = model.answers(islice(outcomes, len(chunk))).to_dict("records")
            for path, row in zip(chunk, answers, strict=True):
                yield _prediction(model, path, row)
            display.advance(task, len(chunk))


def _prediction(model: Model, path: Path, row: Mapping[Hashable, Any]) -> Prediction:
    refused = row["left_out"]
    if refused is not None:
        return Prediction(str(path), {}, {}, refused)
    task = model.card.task
    return Prediction(
        source=str(path),
        probabilities={name: float(row[probability_column(name)]) for head in task.heads for name in head.outputs},
        positive={name: bool(row[f"positive_{name}"]) for name in model.card.thresholds},
        refused=None,
        values={head.name: float(row[value_column(head.name)]) for head in task.also if head.kind == "regression"},
        classes={head.name: str(row[class_column(head.name)]) for head in task.also if head.classes},
    )
