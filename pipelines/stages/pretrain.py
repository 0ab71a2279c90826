"""pretrain: learn a backbone from the team's own radiographs without labels, as a source of transfer like any other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.progress import Progress, TaskID

from pipelines import __version__, console, files
from pipelines.config import Config, PretrainSection
from pipelines.errors import ConfigurationError, TrainingError
from pipelines.imaging.store import ArrayStore
from pipelines.models import backbones, passports, starting
from pipelines.models.device import choose_device
from pipelines.models.network import Network
from pipelines.models.passports import Passport
from pipelines.models.starting import Start
from pipelines.paths import Paths, weights_folder
from pipelines.quality.leakage import split_sha256
from pipelines.quality.partition import groups
from pipelines.records import SELF_SUPERVISED
from pipelines.training.batches import Examples
from pipelines.training.checkpoint import Checkpoint, fingerprint
from pipelines.training.learn import place
from pipelines.training.self_supervised import METHODS, Pretrained, Watcher, pretrain


@dataclass(frozen=True)
class PretrainSummary:
    """What the pretraining came to.

    Attributes:
        weights: the name by which `train.weights` finds them.
        held_out: images that share a patient, a study or pixels with the validation and test part, not looked at.
        losses: of the first and the last epoch.
        spread: of the features' directions, 0…1; see `Pretrained`.
        resumed_from_epoch: the last epoch of an interrupted run, or None.
    """

    weights: str
    backbone: str
    start: str
    method: str
    images: int
    patients: int
    held_out: int
    epochs: int
    losses: tuple[float, float]
    spread: float
    images_per_second: float
    resumed_from_epoch: int | None

    def describe(self) -> str:
        kept = (
            f", {self.held_out:,} images of the validation and test part's patients, studies or pixels not looked at"
            if self.held_out
            else ""
        )
        resumed = f", resumed after epoch {self.resumed_from_epoch}" if self.resumed_from_epoch else ""
        return (
            f"[bold]{self.backbone}[/bold] from {self.start}, {self.method}: {METHODS[self.method].describes}\n"
            f"{self.images:,} radiographs of {self.patients:,} patients without labels{kept}\n"
            f"{self.epochs} epochs{resumed}, loss {self.losses[0]:.3f} → {self.losses[1]:.3f}, "
            f"spread of the features {self.spread:.2f}, {self.images_per_second:,.0f} images/s\n"
            f"to transfer from it: [bold]radtransfer train --set train.backbone={self.backbone} "
            f"--set train.weights={self.weights}[/bold]"
        )


def run(config: Config, paths: Paths, watcher: Watcher | None = None) -> PretrainSummary:
    """Learn as `config.pretrain` says, and put the weights with their passport into the weights folder.

    Whatever shares a patient, a study or pixels with the validation and test part is left out, so that what is measured on
    them later stays honest.

    Raises:
        ConfigurationError: there is no such backbone or device, or the name stands for other weights.
        MissingInputError: prepare or split has not run.
        WeightsError: the weights to start from are missing or do not fit.
        TrainingError: too few images, others of this name are there, or the pretraining failed.
    """
    settings = config.pretrain
    _check_name(settings.name)
    rows, held_out = _rows(paths)
    store = ArrayStore(paths.prepared)
    start = _start(config, store.size)
    network, began = start.network, start.passport
    identity = _fingerprint(config, paths, rows, start)
    _check_free(settings.name, identity)
    network = place(network, choose_device(settings.device))
    checkpoint = Checkpoint(paths.pretraining, identity)
    with _display(watcher, settings, len(rows)) as watching:
        outcome = pretrain(network, _examples(store, rows), settings, watching, checkpoint)
    split = split_sha256(files.read_table(paths.split, made_by="split"))
    _publish(network, settings, rows, began, outcome, f"training {identity[:16]}{_judged_apart(split, began)}")
    checkpoint.remove()
    return PretrainSummary(
        weights=settings.name,
        backbone=network.name,
        start=began.name if began else "random weights",
        method=settings.method,
        images=len(rows),
        patients=rows["patient"].nunique(),
        held_out=held_out,
        epochs=len(outcome.losses),
        losses=(outcome.losses[0], outcome.losses[-1]),
        spread=outcome.spread,
        images_per_second=outcome.images_per_second,
        resumed_from_epoch=outcome.resumed_from,
    )


def _rows(paths: Paths) -> tuple[pd.DataFrame, int]:
    """The prepared images that share no patient, study or pixels with the validation and test part; how many others there are."""
    index = files.read_table(paths.index, made_by="prepare")[["image", "patient", "study", "pixel_hash", "shard", "row"]]
    index = index[index["shard"] >= 0].sort_values("image", ignore_index=True)
    split = files.read_table(paths.split, made_by="split")
    group = groups(index)
    judged = group[index["image"].isin(split.loc[split["part"] != "train", "image"])]
    rows = index[~np.isin(group, judged)].reset_index(drop=True)
    return rows, len(index) - len(rows)


def _examples(store: ArrayStore, rows: pd.DataFrame) -> Examples:
    unknown: NDArray[np.float32] = np.full((len(rows), 1), np.nan, np.float32)
    return Examples(store, rows["shard"].to_numpy(np.int64), rows["row"].to_numpy(np.int64), unknown)


def _start(config: Config, size: int) -> Start:
    settings, name = config.pretrain, config.pretrain.backbone or config.train.backbone
    backbones.check_size(name, size, "params.yaml pretrain.backbone" if settings.backbone else backbones.KEY)
    return starting.start(name, settings.weights, outputs=1, dropout=0.0, seed=settings.seed, key="params.yaml pretrain.weights")


def _fingerprint(config: Config, paths: Paths, rows: pd.DataFrame, start: Start) -> str:
    """What decides the weights that come of it."""
    facts = {
        "versions": {"radtransfer": __version__, "torch": torch.__version__},
        "pretrain": config.pretrain.model_dump(mode="json"),
        "backbone": config.pretrain.backbone or config.train.backbone,
        "recipe": files.read_json(paths.prepared / "recipe.json", made_by="prepare"),
        "images": rows["image"].tolist(),
        "index": files.sha256(paths.index),
        "start": start.report.sha256 if start.report else None,
    }
    return fingerprint(facts)


def _check_name(name: str) -> None:
    """Refuse a name by which other weights would be found; that of the source is also the stage's own default."""
    if name != SELF_SUPERVISED and passports.taken(name, weights_folder()):
        raise ConfigurationError(
            f"params.yaml pretrain.name: expected a name of its own, {name} stands for other weights; choose another name"
        )


def _check_free(name: str, identity: str) -> None:
    """Refuse to replace weights that another pretraining, or somebody else, made under the same name."""
    folder = weights_folder()
    held = [file for file in (folder / f"{name}.safetensors", folder / f"{name}.json") if file.is_file()]
    notes = {passport.name: passport.notes for passport in passports.beside(folder, "")}
    if held and identity[:16] not in notes.get(name, ""):
        raise TrainingError(
            f"params.yaml pretrain.name: expected a free name, {' and '.join(map(str, held))} came from another training; "
            "choose another name, or delete what is there"
        )


def _publish(
    network: Network,
    settings: PretrainSection,
    rows: pd.DataFrame,
    began: Passport | None,
    outcome: Pretrained,
    marks: str,
) -> None:
    origin = f"{began.name} ({began.licence})" if began else "random weights"
    passports.save_backbone(
        network,
        weights_folder() / f"{settings.name}.safetensors",
        name=settings.name,
        source=SELF_SUPERVISED,
        licence="that of the radiographs and of the weights it started from; not published",
        trained_on=f"{len(rows)} radiographs of {rows['patient'].nunique()} patients, without labels",
        notes=f"{settings.method} ({METHODS[settings.method].source}), {len(outcome.losses)} epochs from {origin}; {marks}",
    )


def _judged_apart(split: str, began: Passport | None) -> str:
    """By which the packet knows that no patient of the validation or test part was looked at, here or where it began."""
    mark = f"split {split[:16]}"
    if began and began.source == SELF_SUPERVISED and mark not in began.notes:
        return ""
    return f"; no patient of the validation or test part of {mark} was looked at"


@contextmanager
def _display(watcher: Watcher | None, settings: PretrainSection, images: int) -> Iterator[Watcher]:
    """The watcher given, or one that shows the pretraining in the terminal."""
    if watcher is not None:
        yield watcher
        return
    with console.progress() as progress:
        yield _Display(progress, settings.epochs, images)


class _Display:
    """A progress bar with images/s, and a line for each epoch."""

    def __init__(self, progress: Progress, epochs: int, images: int) -> None:
        self._progress, self._epochs, self._images = progress, epochs, images
        self._task: TaskID | None = None

    def noted(self, text: str) -> None:
        self._progress.console.print(text)

    def stepped(self, epoch: int, images: int, loss: float) -> None:
        if self._task is None:
            self._task = self._progress.add_task(f"epoch {epoch}/{self._epochs}", total=self._images, note="")
        self._progress.update(self._task, advance=images, note=f"loss {loss:.3f}")

    def epoch_ended(self, epoch: int, loss: float, spread: float) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        self._progress.console.print(f"epoch {epoch:>3}  loss {loss:.3f}  spread {spread:.2f}")
