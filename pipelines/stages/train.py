"""train: transfer a pretrained network to the task, choose thresholds on validation, and write the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Table

from pipelines import __version__, console, files
from pipelines.config import Config, TrainSection
from pipelines.inference import Model, ModelCard
from pipelines.metrics.thresholds import choose, spelled
from pipelines.models import heads
from pipelines.models.starting import Start
from pipelines.paths import Paths
from pipelines.quality.leakage import split_sha256
from pipelines.records import Task, label_column, probability_column
from pipelines.training.assembly import Assembly, Part, assemble
from pipelines.training.batches import in_order
from pipelines.training.checkpoint import Checkpoint, fingerprint
from pipelines.training.learn import learn
from pipelines.training.listener import Epoch, Listener, Step
from pipelines.training.loop import Fitted
from pipelines.transfer.strategies import STRATEGIES, Plan

# settings of `train` that the model card repeats
IN_CARD = {
    *("epochs", "batch_size", "weight_decay", "class_weighting", "patience", "augment", "operating_point"),
    *("stochastic_depth", "label_smoothing", "mixup", "ema"),
}
IMAGES_AT_ONCE = 1024  # held in memory for the validation predictions


@dataclass(frozen=True)
class TrainSummary:
    """What the training came to.

    Attributes:
        weights: name of the weight passport, or None from scratch.
        epochs: how many were trained, of which `best_epoch` was kept.
        validation_auroc: mean over the outputs, of the best epoch.
        trainable: parameters that learned, of `parameters`.
        images_per_second: on the wall clock; of the backbone's pass for cached features.
        resumed_from_epoch: the last epoch of an interrupted run, or None.
        thresholds: of each output.
    """

    backbone: str
    strategy: str
    weights: str | None
    best_epoch: int
    epochs: int
    validation_auroc: float
    trainable: int
    parameters: int
    images_per_second: float
    resumed_from_epoch: int | None
    thresholds: dict[str, float]

    def describe(self) -> str:
        start = f"weights {self.weights}" if self.weights else "random weights"
        resumed = f", resumed after epoch {self.resumed_from_epoch}" if self.resumed_from_epoch else ""
        thresholds = ", ".join(f"{escape(name)} {spelled(value)}" for name, value in self.thresholds.items())
        return (
            f"[bold]{self.backbone}[/bold] from {start}, {STRATEGIES[self.strategy].describes} ({self.strategy})\n"
            f"{self.trainable:,} of {self.parameters:,} parameters learned, {self.images_per_second:,.0f} images/s\n"
            f"validation AUROC [bold]{self.validation_auroc:.3f}[/bold] "
            f"at epoch {self.best_epoch} of {self.epochs}{resumed}\n"
            f"thresholds: {thresholds}"
        )


def run(config: Config, paths: Paths, listener: Listener | None = None) -> TrainSummary:
    """Train as `config.train` says and write artifacts/model; go on where an interrupted training of the same kind stopped.

    Raises:
        ConfigurationError: there is no such backbone or device, or batch norm cannot be trained under the strategy.
        MissingInputError: prepare, split or ingest has not run.
        WeightsError: the pretrained weights are missing, altered, or do not fit.
        TrainingError: the parts cannot be learnt from, or the loss is not finite.
    """
    assembled = assemble(config, paths)
    network, train, validation = assembled.started.network, assembled.train, assembled.validation
    checkpoint = Checkpoint(paths.checkpoint, _fingerprint(config, paths, assembled.started))
    with _display(listener) as watching:
        if assembled.recommended:
            watching.noted(assembled.recommended)
        watching.planned(assembled.plan)
        parts = (train.examples, validation.examples)
        fitted = learn(network, assembled.plan, assembled.task, *parts, assembled.settings, watching, checkpoint)
    training = {**_counts(train, validation), **_outcome(fitted), "split_sha256": _split_sha256(paths)}
    card = _card(assembled, training)
    model = _write(Model(card, network.eval(), assembled.device), fitted, validation, assembled.settings, paths)
    checkpoint.remove()
    return _summary(assembled.settings, assembled.plan, fitted, model)


def _fingerprint(config: Config, paths: Paths, started: Start) -> str:
    """What decides the trained weights, so that a checkpoint of anything else is not gone on from."""
    facts = {
        "versions": {"radtransfer": __version__, "torch": torch.__version__},
        "task": config.task.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json"),
        "recipe": files.read_json(paths.prepared / "recipe.json", made_by="prepare"),
        "weights": started.report.sha256 if started.report else None,
        **{path.name: files.sha256(path) for path in (paths.index, paths.labels, paths.split)},
    }
    return fingerprint(facts)


def _card(assembled: Assembly, training: dict[str, Any]) -> ModelCard:
    """The card but for the thresholds."""
    settings, started = assembled.settings, assembled.started
    strategy = {**assembled.plan.to_dict(), "settings": settings.model_dump(mode="json", include=IN_CARD)}
    if assembled.recommended:
        strategy["recommended"] = assembled.recommended
    return ModelCard(
        backbone=settings.backbone,
        task=assembled.task,
        dropout=settings.dropout,
        normalisation=started.network.normalisation,
        recipe=assembled.recipe,
        strategy=strategy,
        passport=started.passport,
        weights=started.report,
        seed=settings.seed,
        thresholds={},
        training=training,
        head=heads.describe(started.network.head),
    )


def _split_sha256(paths: Paths) -> str:
    """By which `evaluate` and `register` know that their test part is one that this model never saw."""
    return split_sha256(files.read_table(paths.split, made_by="split"))


def _counts(train: Part, validation: Part) -> dict[str, Any]:
    parts = {"train_images": train, "validation_images": validation}
    return {name: len(part.examples.labelled()) for name, part in parts.items()}


def _outcome(fitted: Fitted) -> dict[str, Any]:
    return {
        "epochs": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "validation_auroc": fitted.validation_auroc,
        **fitted.details,
    }


def _write(model: Model, fitted: Fitted, validation: Part, settings: TrainSection, paths: Paths) -> Model:
    """Choose the thresholds, and write the history, the validation predictions, the weights and the card."""
    task, examples, point = model.card.task, validation.examples, settings.operating_point
    scores = np.concatenate(
        [
            model.probabilities(examples.store.take(examples.shards[some], examples.rows[some]))
            for some in in_order(len(examples), IMAGES_AT_ONCE)
        ]
    )
    thresholds = {
        name: choose(examples.labels[:, number], scores[:, number], point.rule, point.value)
        for number, name in enumerate(task.outputs)
    }
    history = pd.DataFrame([asdict(epoch) for epoch in fitted.history])
    files.write_text(paths.model / "history.csv", history.to_csv(index=False))
    files.write_table(paths.model / "validation.parquet", _predictions(validation, scores, task))
    return replace(model, card=replace(model.card, thresholds=thresholds)).write(paths.model)


def _predictions(part: Part, scores: NDArray[np.float32], task: Task) -> pd.DataFrame:
    columns: dict[str, Any] = {name: part.rows[name].to_numpy() for name in ("image", "patient", "part")}
    for number, name in enumerate(task.outputs):
        columns[probability_column(name)] = scores[:, number]
        columns[label_column(name)] = part.examples.labels[:, number]
    return pd.DataFrame(columns)


def _summary(settings: TrainSection, planned: Plan, fitted: Fitted, model: Model) -> TrainSummary:
    return TrainSummary(
        backbone=settings.backbone,
        strategy=settings.strategy.name,
        weights=model.card.passport.name if model.card.passport else None,
        best_epoch=fitted.best_epoch,
        epochs=len(fitted.history),
        validation_auroc=fitted.validation_auroc,
        trainable=planned.trained,
        parameters=planned.parameters,
        images_per_second=fitted.images_per_second,
        resumed_from_epoch=fitted.resumed_from,
        thresholds=dict(model.card.thresholds),
    )


@contextmanager
def _display(listener: Listener | None) -> Iterator[Listener]:
    """The listener given, or one that shows the training in the terminal."""
    if listener is not None:
        yield listener
        return
    with console.progress() as progress:
        yield Display(progress)


class Display:
    """Shows a training: the layer groups before it, a progress bar with images/s and rates, each epoch's validation."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._names: tuple[str, ...] = ()

    def planned(self, plan: Plan) -> None:
        self._names = tuple(group.name for group in plan.groups)
        self._progress.console.print(layer_table(plan))

    def noted(self, text: str) -> None:
        self._progress.console.print(text)

    def extracting(self, done: int, total: int) -> None:
        if self._task is None:
            self._task = self._progress.add_task("features", total=total, note="")
        self._progress.update(self._task, completed=done)
        if done == total:
            self._task = None

    def epoch_started(self, epoch: int, epochs: int, images: int) -> None:
        self._task = self._progress.add_task(f"epoch {epoch}/{epochs}", total=images, note="")

    def stepped(self, step: Step) -> None:
        if self._task is not None:
            rates = " ".join(f"{name} {rate:.0e}" for name, rate in zip(self._names, step.learning_rates, strict=True) if rate)
            self._progress.update(self._task, advance=step.images, note=f"loss {step.loss:.3f}  {rates}")

    def epoch_ended(self, epoch: Epoch, *, best: bool) -> None:
        """Leave one line of the epoch; its bar goes, so that a long training does not outgrow the terminal."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        mark = " [green]best[/green]" if best else ""
        self._progress.console.print(
            f"epoch {epoch.epoch:>3}  train loss {epoch.train_loss:.3f}  validation loss {epoch.validation_loss:.3f}  "
            f"validation AUROC {epoch.validation_auroc:.3f}{mark}"
        )


def layer_table(plan: Plan) -> Table:
    """The layer groups of a plan, from stem to head, as a table for the terminal."""
    later = any(group.from_epoch > 1 for group in plan.groups)
    columns = ("layer group", "parameters", "learn", "batch norm", "learning rate", *(("from epoch",) if later else ()))
    table = Table(*columns, title=f"strategy {plan.strategy}")
    for column in table.columns[1:]:
        column.justify = "right"
    for group in plan.groups:
        rate = f"{group.learning_rate:.1e}" if group.learning_rate else "–"
        learns = f"{group.trained:,}" if group.trained else "frozen"
        row = (group.name, f"{group.parameters:,}", learns, group.batch_norm or "–", rate)
        table.add_row(*row, *([str(group.from_epoch)] * later))
    table.add_section()
    table.add_row("all", f"{plan.parameters:,}", f"{plan.trained:,}", plan.batch_norm, "")
    return table
