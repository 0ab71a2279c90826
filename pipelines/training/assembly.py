"""What a training starts from: the parts of the split, the settings as the data recommend them, the network with its weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from pipelines import files
from pipelines.config import Config, TrainSection
from pipelines.errors import ConfigurationError, TrainingError
from pipelines.imaging.radiograph import Recipe
from pipelines.imaging.store import ArrayStore
from pipelines.models import backbones, starting
from pipelines.models.device import choose_device
from pipelines.models.starting import SCRATCH, Start
from pipelines.paths import Paths
from pipelines.records import Task
from pipelines.training.batches import Examples
from pipelines.training.learn import place
from pipelines.transfer import recommendation
from pipelines.transfer.strategies import STRATEGIES, Plan, plan


@dataclass(frozen=True)
class Part:
    """One part of the split: who is in it, and what is learnt from."""

    rows: pd.DataFrame
    examples: Examples


@dataclass(frozen=True)
class Assembly:
    """Everything that a training needs.

    Attributes:
        settings: `train`, with a strategy of the table in the place of `recommended`.
        recommended: the line that says what was recommended and why; None where the strategy was named.
        recipe: by which the images were prepared.
        started: the network, on its device, and where its weights come from.
        plan: of the strategy for that network; not in effect yet.
    """

    task: Task
    settings: TrainSection
    recommended: str | None
    recipe: Recipe
    train: Part
    validation: Part
    started: Start
    plan: Plan
    device: torch.device


def assemble(config: Config, paths: Paths) -> Assembly:
    """Read what earlier stages wrote, and build the network as `config.train` says.

    Raises:
        ConfigurationError: there is no such backbone or device, or the strategy cannot be what it is told to be.
        MissingInputError: prepare, split or ingest has not run.
        WeightsError: the pretrained weights are missing, altered, or do not fit.
        TrainingError: the parts of the split are not prepared, or a target is not in the label table.
    """
    task, store = config.task.declared(), ArrayStore(paths.prepared)
    train, validation = parts(paths, task, store)
    settings, line = _settled(config.train, train.examples)
    device = choose_device(settings.device)
    started = _started(settings, task, store.recipe.size)
    place(started.network, device)
    planned = plan(started.network, settings.strategy)
    return Assembly(task, settings, line, store.recipe, train, validation, started, planned, device)


def parts(paths: Paths, task: Task, store: ArrayStore) -> tuple[Part, Part]:
    """The train and the validation part, sorted by image so that no file's order matters.

    Raises:
        MissingInputError: prepare, split or ingest has not run.
        TrainingError: the parts of the split are not prepared, or a target is not in the label table.
    """
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


def _part(rows: pd.DataFrame, task: Task, store: ArrayStore) -> Part:
    shards, places = rows["shard"].to_numpy(np.int64), rows["row"].to_numpy(np.int64)
    patients = pd.factorize(rows["patient"])[0].astype(np.int64)
    return Part(rows, Examples(store, shards, places, task.matrix(rows), patients))


def _settled(settings: TrainSection, train: Examples) -> tuple[TrainSection, str | None]:
    """The settings with a strategy of the table, and why, where it was left to the data."""
    if settings.strategy.name != recommendation.RECOMMENDED:
        return settings, None
    found = recommendation.fingerprint(train.labels, train.grouped(), pretrained=settings.weights != SCRATCH)
    answer = recommendation.recommend(settings.strategy, found)
    return settings.model_copy(update={"strategy": answer.settings}), answer.line


def _started(settings: TrainSection, task: Task, size: int) -> Start:
    """The network with the weights that the configuration names, or, from scratch, with seeded random ones."""
    backbones.check_size(settings.backbone, size)
    pretrained = STRATEGIES[settings.strategy.name].pretrained
    if pretrained and settings.weights == SCRATCH:
        raise ConfigurationError(
            f"params.yaml train.weights: expected a source of weights for the strategy {settings.strategy.name}, got {SCRATCH}; "
            "set train.strategy.name=scratch"
        )
    weights = settings.weights if pretrained else SCRATCH
    return starting.start(settings.backbone, weights, outputs=len(task.outputs), dropout=settings.dropout, seed=settings.seed)
