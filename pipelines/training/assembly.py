"""What a training starts from: the parts of the split, the settings as the data recommend them, the network with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipelines import files
from pipelines.config import Config, TrainSection
from pipelines.errors import ConfigurationError, TrainingError
from pipelines.imaging.radiograph import Recipe
from pipelines.imaging.store import ArrayStore
from pipelines.models import backbones, passports, starting
from pipelines.models.device import choose_device
from pipelines.models.starting import SCRATCH, Start
from pipelines.paths import Paths
from pipelines.quality.partition import groups, presence
from pipelines.records import Task
from pipelines.training import target_hospital
from pipelines.training.batches import Examples
from pipelines.training.learn import place
from pipelines.transfer import adaptation, recommendation
from pipelines.transfer.strategies import STRATEGIES, Plan, plan


@dataclass(frozen=True)
class Part:
    """One part of the split: who is in it, and what is learnt from."""

    rows: pd.DataFrame
    examples: Examples


@dataclass(frozen=True)
class Target:
    """The hospital to adapt to.

    Attributes:
        learnt: what is looked at in training, without labels.
        held_out: what is looked at to judge whether it helped, with labels where there are some.
        tested: images of patients of the test part, which are left alone.
    """

    learnt: Part
    held_out: Part
    tested: int

    def describe(self, method: str | None) -> str:
        learnt, held_out = (
            f"{len(part.rows):,} images of {part.rows['patient'].nunique():,} patients" for part in (self.learnt, self.held_out)
        )
        alone = f", {self.tested:,} of test patients left alone" if self.tested else ""
        return f"adaptation by {method} to {learnt}, whose labels are not looked at; {held_out} held out to judge{alone}"


@dataclass(frozen=True)
class Assembly:
    """Everything that a training needs.

    Attributes:
        settings: `train`, with a strategy of the table in the place of `recommended`.
        recommended: the line that says what was recommended and why; None where the strategy was named.
        recipe: by which the images were prepared.
        started: the network, on its device, and where its weights come from.
        plan: of the strategy for that network; not in effect yet.
        target: of the adaptation that `train.adaptation` asks for, or None; none of its images is in the other two parts.
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
    target: Target | None = None


def assemble(config: Config, paths: Paths) -> Assembly:
    """Read what earlier stages wrote, and build the network as `config.train` says.

    Raises:
        ConfigurationError: there is no such backbone or device, or the strategy cannot be what it is told to be.
        MissingInputError: prepare, split or ingest has not run.
        WeightsError: the pretrained weights are missing, altered, or do not fit.
        TrainingError: the parts of the split are not prepared, a target is not in the label table, or a part has no image of
            some class but at the hospital to adapt to.
    """
    task, store = config.task.declared(), ArrayStore(paths.prepared)
    train, validation, target = with_target(config.train, paths, task, store)
    if target:
        _require_classes({"train": train, "validation": validation}, task)
    settings, line = settled(config.train, train.examples, task)
    settings = adaptation.settled(settings)
    device = choose_device(settings.device)
    started = started_network(settings, task, store.recipe.size)
    place(started.network, device)
    adaptation.check_network(settings, started.network)
    planned = plan(started.network, settings.strategy)
    adaptation.check_plan(settings, planned)
    return Assembly(task, settings, line, store.recipe, train, validation, started, planned, device, target)


def with_target(settings: TrainSection, paths: Paths, task: Task, store: ArrayStore) -> tuple[Part, Part, Target | None]:
    """The train and the validation part without images of the hospital to adapt to, and that hospital, if there is one.

    Raises:
        ConfigurationError: there is no such hospital, or no other one with labels; else as for `parts`.
    """
    train, validation = parts(paths, task, store)
    if settings.adaptation.method is None:
        return train, validation, None
    target, images = _target(settings, paths, task, store)
    train, validation = (_part(part.rows[~part.rows["image"].isin(images)], task, store) for part in (train, validation))
    return train, validation, target


def _require_classes(left: Mapping[str, Part], task: Task) -> None:
    """That what the split gave each part is still there without the hospital to adapt to."""
    for name, part in left.items():
        if classes := lacking(part.examples.labels, task):
            raise TrainingError(
                f"{name} part without the hospital to adapt to: expected images with and without each finding, found none "
                f"{', '.join(classes)}; name other train.adaptation.sites, add labelled images, or change split.seed"
            )


def lacking(labels: NDArray[np.float32], task: Task) -> list[str]:
    """The classes of the main task, as `presence` names them, of which there is no image among labels (images, columns)."""
    names, present = presence(labels[:, : len(task.columns)], task)
    return [name for number, name in enumerate(names) if not present[:, number].any()]


def parts(paths: Paths, task: Task, store: ArrayStore) -> tuple[Part, Part]:
    """The train and the validation part, sorted by image so that no file's order matters.

    Raises:
        MissingInputError: prepare, split or ingest has not run.
        TrainingError: the parts of the split are not prepared, or a target is not in the label table.
    """
    split = files.read_table(paths.split, made_by="split")[["image", "study", "pixel_hash", "part"]]
    index = files.read_table(paths.index, made_by="prepare")[["image", "patient", "shard", "row"]]
    labels = files.read_table(paths.labels, made_by="ingest")
    if absent := [target for target in task.labels if target not in labels.columns]:
        raise TrainingError(
            f"labels: expected columns {', '.join(task.labels)}, {', '.join(absent)} not there; take them in with "
            "`radtransfer ingest SOURCE --labels FILE.csv`, or correct task.targets and task.also"
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
    return Part(rows, Examples(store, shards, places, task.everything(rows), groups(rows)))


def _target(settings: TrainSection, paths: Paths, task: Task, store: ArrayStore) -> tuple[Target, set[str]]:
    """The hospital to adapt to, without labels but for judging, and all its images, so that none counts as another's."""
    index = files.read_table(paths.index, made_by="prepare")
    labels = files.read_table(paths.labels, made_by="ingest")
    split = files.read_table(paths.split, made_by="split")
    chosen = target_hospital.choose(settings.adaptation, index, split, settings.seed)
    unknown = labels.iloc[:0]
    learnt, held_out = (
        _part(rows[["image", "patient", "study", "pixel_hash", "shard", "row"]].merge(known, on="image", how="left"), task, store)
        for rows, known in ((chosen.learnt, unknown), (chosen.held_out, labels))
    )
    return Target(learnt, held_out, chosen.tested), chosen.images


def settled(settings: TrainSection, train: Examples, task: Task) -> tuple[TrainSection, str | None]:
    """The settings with a strategy of the table, and why, where it was left to the data."""
    if settings.strategy.name != recommendation.RECOMMENDED:
        return settings, None
    main = train.labels[:, : len(task.columns)]
    found = recommendation.fingerprint(main, train.grouped(), pretrained=settings.weights != SCRATCH)
    answer = recommendation.recommend(settings.strategy, found)
    return settings.model_copy(update={"strategy": answer.settings}), answer.line


def started_network(settings: TrainSection, task: Task, size: int, key: str = passports.KEY) -> Start:
    """The network with the weights that the configuration names at `key`, or, from scratch, with seeded random ones."""
    backbones.check_size(settings.backbone, size)
    pretrained = STRATEGIES[settings.strategy.name].pretrained
    if pretrained and settings.weights == SCRATCH:
        raise ConfigurationError(
            f"params.yaml train.weights: expected a source of weights for the strategy {settings.strategy.name}, got {SCRATCH}; "
            "set train.strategy.name=scratch"
        )
    weights = settings.weights if pretrained else SCRATCH
    return starting.start(settings.backbone, weights, outputs=task.width, dropout=settings.dropout, seed=settings.seed, key=key)
