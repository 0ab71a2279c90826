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
from pipelines.errors import ConfigurationError, TrainingError
from pipelines.imaging.radiograph import Recipe
from pipelines.imaging.store import ArrayStore
from pipelines.inference import Model, ModelCard
from pipelines.metrics.thresholds import choose, spelled
from pipelines.models import backbones, passports
from pipelines.models.backbones import Network
from pipelines.models.device import choose_device
from pipelines.models.passports import LoadReport, Passport
from pipelines.models.provenance import Normalisation
from pipelines.paths import Paths
from pipelines.quality.leakage import split_sha256
from pipelines.records import Task, label_column, probability_column
from pipelines.training.batches import Examples, in_order
from pipelines.training.checkpoint import Checkpoint, fingerprint
from pipelines.training.learn import learn, place
from pipelines.training.listener import Epoch, Listener, Step
from pipelines.training.loop import Fitted
from pipelines.transfer.strategies import STRATEGIES, Plan, plan

UNTRAINED = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))  # about a radiograph's own, for a network from scratch
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


@dataclass(frozen=True)
class _Start:
    """The network before training; passport and report of its weights are None from scratch."""

    network: Network
    passport: Passport | None
    report: LoadReport | None


@dataclass(frozen=True)
class _Part:
    """One part of the split: who is in it, and what is learnt from."""

    rows: pd.DataFrame
    examples: Examples


def run(config: Config, paths: Paths, listener: Listener | None = None) -> TrainSummary:
    """Train as `config.train` says and write artifacts/model; go on where an interrupted training of the same kind stopped.

    Raises:
        ConfigurationError: there is no such backbone or device, or batch norm cannot be trained under the strategy.
        MissingInputError: prepare, split or ingest has not run.
        WeightsError: the pretrained weights are missing, altered, or do not fit.
        TrainingError: the parts cannot be learnt from, or the loss is not finite.
    """
    task, settings = config.task.declared(), config.train
    store = ArrayStore(paths.prepared)
    train, validation = _parts(paths, task, store)
    device = choose_device(settings.device)
    start = _start(settings, task)
    network = place(start.network, device)
    planned = plan(network, settings.strategy)
    checkpoint = Checkpoint(paths.checkpoint, _fingerprint(config, paths, start))
    with _display(listener) as watching:
        watching.planned(planned)
        fitted = learn(network, planned, task, train.examples, validation.examples, settings, watching, checkpoint)
    training = {**_counts(train, validation), **_outcome(fitted), "split_sha256": _split_sha256(paths)}
    card = _card(task, settings, store.recipe, start, planned, training)
    model = _write(Model(card, network.eval(), device), fitted, validation, settings, paths)
    checkpoint.remove()
    return _summary(settings, planned, fitted, model)


def _parts(paths: Paths, task: Task, store: ArrayStore) -> tuple[_Part, _Part]:
    """The train and the validation part, sorted by image so that no file's order matters."""
    split = files.read_table(paths.split, made_by="split")[["image", "part"]]
    index = files.read_table(paths.index, made_by="prepare")[["image", "patient", "shard", "row"]]
    labels = files.read_table(paths.labels, made_by="ingest")
    if absent := [target for target in task.targets if target not in labels.columns]:
        raise TrainingError(
            f"labels: expected columns {', '.join(task.targets)}, {', '.join(absent)} not there; see task.targets"
        )
    rows = split.merge(index, on="image", validate="1:1").merge(labels, on="image", validate="1:1")
    if len(rows) != len(split) or (rows["shard"] < 0).any():
        raise TrainingError(
            f"split: expected prepared and labelled images, {len(split) - int((rows['shard'] >= 0).sum())} of {len(split)} "
            "are not; run `radtransfer split` again"
        )
    rows = rows.sort_values("image", ignore_index=True)
    train, validation = (_part(rows[rows["part"] == name], task, store) for name in ("train", "validation"))
    return train, validation


def _part(rows: pd.DataFrame, task: Task, store: ArrayStore) -> _Part:
    shards, places = rows["shard"].to_numpy(np.int64), rows["row"].to_numpy(np.int64)
    return _Part(rows, Examples(store, shards, places, task.matrix(rows)))


def _start(settings: TrainSection, task: Task) -> _Start:
    """The network with the weights that the configuration names, or, from scratch, with seeded random ones."""
    if settings.backbone not in backbones.BACKBONES:
        known = ", ".join(backbones.BACKBONES)
        raise ConfigurationError(f"params.yaml train.backbone: expected one of {known}, got {settings.backbone!r}")
    pretrained = STRATEGIES[settings.strategy.name].pretrained
    found = passports.find(settings.weights, settings.backbone) if pretrained else None
    normalisation = found.passport.normalisation if found else UNTRAINED
    with torch.random.fork_rng([]):
        torch.manual_seed(settings.seed)
        network = backbones.build(
            settings.backbone, outputs=len(task.outputs), dropout=settings.dropout, normalisation=normalisation
        )
    if found is None:
        return _Start(network, None, None)
    return _Start(network, found.passport, passports.load(network, found))


def _fingerprint(config: Config, paths: Paths, start: _Start) -> str:
    """What decides the trained weights, so that a checkpoint of anything else is not gone on from."""
    facts = {
        "versions": {"radtransfer": __version__, "torch": torch.__version__},
        "task": config.task.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json"),
        "recipe": files.read_json(paths.prepared / "recipe.json", made_by="prepare"),
        "weights": start.report.sha256 if start.report else None,
        **{path.name: files.sha256(path) for path in (paths.index, paths.labels, paths.split)},
    }
    return fingerprint(facts)


def _card(
    task: Task, settings: TrainSection, recipe: Recipe, start: _Start, planned: Plan, training: dict[str, Any]
) -> ModelCard:
    """The card but for the thresholds."""
    in_effect = settings.model_dump(
        mode="json",
        include={"epochs", "batch_size", "weight_decay", "class_weighting", "patience", "augment", "operating_point"},
    )
    return ModelCard(
        backbone=settings.backbone,
        task=task,
        dropout=settings.dropout,
        normalisation=start.network.normalisation,
        recipe=recipe,
        strategy={**planned.to_dict(), "settings": in_effect},
        passport=start.passport,
        weights=start.report,
        seed=settings.seed,
        thresholds={},
        training=training,
    )


def _split_sha256(paths: Paths) -> str:
    """By which `evaluate` and `register` know that their test part is one that this model never saw."""
    return split_sha256(files.read_table(paths.split, made_by="split"))


def _counts(train: _Part, validation: _Part) -> dict[str, Any]:
    parts = {"train_images": train, "validation_images": validation}
    return {name: len(part.examples.labelled()) for name, part in parts.items()}


def _outcome(fitted: Fitted) -> dict[str, Any]:
    return {
        "epochs": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "validation_auroc": fitted.validation_auroc,
    }


def _write(model: Model, fitted: Fitted, validation: _Part, settings: TrainSection, paths: Paths) -> Model:
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


def _predictions(part: _Part, scores: NDArray[np.float32], task: Task) -> pd.DataFrame:
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
    table = Table("layer group", "parameters", "learn", "batch norm", "learning rate", title=f"strategy {plan.strategy}")
    for column in table.columns[1:]:
        column.justify = "right"
    for group in plan.groups:
        rate = f"{group.learning_rate:.1e}" if group.learning_rate else "–"
        learns = f"{group.trained:,}" if group.trained else "frozen"
        table.add_row(group.name, f"{group.parameters:,}", learns, group.batch_norm or "–", rate)
    table.add_section()
    table.add_row("all", f"{plan.parameters:,}", f"{plan.trained:,}", plan.batch_norm, "")
    return table
