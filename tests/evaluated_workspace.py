"""A workspace as it is before `evaluate`, made in a second: 60 noise images, a tiny network, a split, certificates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipelines import config, files
from pipelines.config import Config
from pipelines.imaging import store
from pipelines.imaging.radiograph import Recipe
from pipelines.inference import Model, ModelCard
from pipelines.models import backbones
from pipelines.models.passports import LoadReport, Passport
from pipelines.models.provenance import Normalisation
from pipelines.paths import Paths
from pipelines.quality.leakage import certify, split_sha256
from pipelines.records import CALLED, INDEX, PARTS, SPLIT, Task
from pipelines.stages import audit_shortcuts
from pipelines.transfer.strategies import plan

SIZE = 32
IMAGES = 60
TASKS: dict[str, dict[str, Any]] = {
    "binary": {"targets": ["opacity"]},
    "multilabel": {"kind": "multilabel", "targets": ["opacity", "effusion"]},
    "multiclass": {"kind": "multiclass", "targets": ["finding"], "classes": ["none", "bacterial", "viral"]},
    "several": {
        "targets": ["opacity"],
        "also": {
            "age": {"kind": "regression", "targets": ["years"], "unit": "years", "bounds": [0, 120]},
            "severity": {"kind": "ordinal", "classes": ["none", "mild", "severe"]},
            "projection": {"kind": "multiclass", "classes": ["PA", "AP"]},
            "pleura": {"kind": "multilabel", "targets": ["effusion", "thickening"]},
            "fracture": {"kind": "binary"},
        },
    },
}
PASSPORT = Passport(
    name="shapes",
    backbone="resnet10",
    source="imagenet",
    architecture="resnet10",
    file="shapes.safetensors",
    sha256="c" * 64,
    licence="Apache-2.0",
    key_map="radtransfer",
    trained_on="a million photographs",
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    notes="for <tests> only",
)


def make(folder: Path, kind: str = "binary", passport: Passport | None = PASSPORT) -> tuple[Config, Paths]:
    """Everything that `evaluate` reads."""
    sections = {"audit_shortcuts": {"bootstrap": 100}, "evaluate": {"bootstrap": 100, "bins": 5, "worst": 3}}
    train = {"device": "cpu", "strategy": {"name": "differential"}}
    settings = config.validate(Config, {"task": TASKS[kind], "train": train, **sections}, "tests")
    paths, task = Paths(folder), settings.task.declared()
    index, labels = _index(paths), _labels(task)
    split = index[index["left_out"].isna()].iloc[:IMAGES]
    split = split.assign(part=[PARTS[number // 2 % 3] for number in range(IMAGES)])[[*SPLIT]]
    model = _model(task, settings, passport, split_sha256(split))
    files.write_table(paths.index, index)
    files.write_table(paths.labels, labels)
    files.write_table(paths.split, split.sample(frac=1, random_state=3))
    files.write_json(paths.leakage, certify(split, index, labels, task).to_dict())
    files.write_json(paths.quality_result, {"passed": True, "images": len(index), "expectations": _expectations()})
    files.write_json(paths.flow, {"found": len(index) + 5, "not_dicom": 2, "quarantined": {"truncated": 3}})
    history = "epoch,train_loss,validation_loss,validation_auroc,learning_rate_head\n1,0.7,0.69,0.6,0.001\n2,0.5,0.6,0.8,0.001\n"
    files.write_text(paths.model / "history.csv", history)
    model.write(paths.model)
    audit_shortcuts.run(settings, paths)
    return settings, paths


def _index(paths: Paths) -> pd.DataFrame:
    """Two images per patient, one of which is prepared but unlabelled, and one left out."""
    recipe = Recipe(SIZE, "uint8", (0.5, 99.5))
    store.open_for_adding(paths.prepared, recipe)
    rows = [_row(number, 0 if number <= IMAGES else -1) for number in range(IMAGES + 2)]
    store.write_shard(paths.prepared, 0, _arrays(), lambda: store.table(rows), recipe)
    return pd.DataFrame(rows, columns=[*INDEX])


def _arrays() -> Any:
    """Noise of differing brightness."""
    generator = np.random.default_rng(5)
    return np.stack([generator.integers(0, 80 + 2 * number, (SIZE, SIZE)) for number in range(IMAGES + 1)]).astype(np.uint8)


def _row(number: int, shard: int) -> dict[str, Any]:
    return dict.fromkeys(INDEX) | {
        "image": f"2.25.{1000 + number}",
        "study": f"study{number // 2}",
        "patient": f"patient{number // 2}",
        "site": ("b" * 8, "a" * 8)[number // 6 % 2],
        "body_part": "CHEST",
        "view": ("PA", "AP", None)[number % 3],
        "age_years": float(number),
        "sex": ("F", "M")[number // 2 % 2],
        "pixel_hash": f"{number:064d}",
        "perceptual_hash": f"{number * 0x0F1E2D3C4B5A6978 % 2**64:016x}",
        "shard": shard,
        "row": number if shard == 0 else -1,
        "left_out": None if shard == 0 else "undecodable_pixels",
    }


def _labels(task: Task) -> pd.DataFrame:
    names, generator = [f"2.25.{1000 + number}" for number in range(IMAGES)], np.random.default_rng(8)
    if task.kind == "multiclass":
        classes = generator.choice(task.classes, IMAGES).tolist()
        return pd.DataFrame({"image": names, task.targets[0]: classes})
    columns = {name: generator.integers(0, 2, IMAGES).astype(float) for name in task.targets}
    table = pd.DataFrame({"image": names, **columns, **_further(task, generator)})
    if task.kind == "multilabel":
        table.loc[::7, task.targets[1]] = np.nan
    return table


def _further(task: Task, generator: np.random.Generator) -> dict[str, Any]:
    """Labels of further tasks: years that the images show by their brightness, the rest at random; a third unknown."""
    found: dict[str, Any] = {}
    for head in task.also:
        for target in head.targets:
            known = generator.random(IMAGES) > 1 / 3
            if head.kind == "regression":
                found[target] = np.where(known, 20.0 + np.arange(IMAGES), np.nan)
            elif head.classes:
                found[target] = [
                    str(name) if there else None for name, there in zip(_drawn(head.classes, generator), known, strict=True)
                ]
            else:
                found[target] = np.where(known, generator.integers(0, 2, IMAGES), np.nan)
    return found


def _drawn(classes: tuple[str, ...], generator: np.random.Generator) -> Any:
    return generator.choice(classes, IMAGES)


def _model(task: Task, settings: Config, passport: Passport | None, split: str) -> Model:
    torch.manual_seed(4)
    normalisation = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    network = backbones.build("resnet10", outputs=task.width, dropout=0.2, normalisation=normalisation).eval()
    network.head[-1].weight.data.mul_(20)
    network.head[-1].bias.data.zero_()
    card = ModelCard(
        backbone="resnet10",
        task=task,
        dropout=0.2,
        normalisation=normalisation,
        recipe=Recipe(SIZE, "uint8", (0.5, 99.5)),
        strategy={
            **plan(network, settings.train.strategy).to_dict(),
            "settings": {"operating_point": {"rule": "sensitivity", "value": 0.9}},
        },
        passport=passport,
        weights=passport and LoadReport(60, (), ("fc.weight", "fc.bias"), "d" * 64),
        seed=17,
        thresholds={},
        scales={head.name: (50.0, 10.0) for head in task.also if head.kind == "regression"},
        training={"epochs": 2, "best_epoch": 2, task.score_name: 0.8, "split_sha256": split},
    )
    model = Model(card, network, torch.device("cpu"))
    middle = task.apart(np.median(model.everything(_arrays()), axis=0)[None])
    called = [pair for pair in zip(task.heads, middle, strict=True) if pair[0] is task or pair[0].kind in CALLED]
    thresholds = {name: value for head, own in called for name, value in zip(head.outputs, own[0].tolist(), strict=True)}
    return replace(model, card=replace(card, thresholds=thresholds))


def _expectations() -> list[dict[str, Any]]:
    common = {"table": "images", "failing_rows": []}
    return [
        {"name": "enough images", "says": "At least 50 images.", "severity": "error", "passed": True, "observed": "60", **common},
        {"name": "sharp", "says": "Images are <sharp>.", "severity": "warning", "passed": False, "observed": "3 of 60", **common},
    ]
