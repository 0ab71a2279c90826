"""A prepared, labelled and split workspace of noise with blobs, and a tiny pretrained network for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipelines import files
from pipelines.imaging.radiograph import Recipe
from pipelines.imaging.store import open_for_adding, table, write_shard
from pipelines.models import backbones, passports, starting
from pipelines.models.provenance import Normalisation
from pipelines.paths import Paths
from pipelines.records import SPLIT

SIZE, SHARDS, PER_SHARD = 48, 3, 20


def write_workspace(folder: Path) -> Paths:
    """Three shards of noise with blobs: 36 images to learn from, 24 to validate on; some labels unknown."""
    paths, recipe, generator = Paths(folder), Recipe(SIZE, "uint8", (0.5, 99.5)), np.random.default_rng(5)
    open_for_adding(paths.prepared, recipe)
    rows: list[dict[str, Any]] = []
    for shard in range(SHARDS):
        images = generator.integers(0, 90, (PER_SHARD, SIZE, SIZE)).astype(np.uint8)
        names = [f"2.25.{shard * PER_SHARD + row}" for row in range(PER_SHARD)]
        for row, image in enumerate(images):
            left, right = row % 2, row // 2 % 2
            image[10:24, 4:18] += np.uint8(150 * left)
            image[10:24, 28:42] += np.uint8(150 * right)
            rows.append({"image": names[row], "shard": shard, "row": row, "left": float(left), "right": float(right)})
        write_shard(paths.prepared, shard, images, lambda: table([]), recipe)
    frame = pd.DataFrame(rows)
    frame["patient"] = [f"patient-{number // 2}" for number in range(len(frame))]
    frame["part"] = np.where(np.arange(len(frame)) // 2 % 5 < 3, "train", "validation")
    frame["kind"] = np.select([frame["left"] + frame["right"] == 0, frame["left"] == 1], ["none", "left"], "right")
    frame.loc[::9, "right"] = np.nan
    frame = frame.assign(study=frame["patient"], pixel_hash=frame["image"])
    files.write_table(paths.index, frame[["image", "patient", "study", "pixel_hash", "shard", "row"]])
    files.write_table(paths.labels, frame[["image", "left", "right", "kind"]])
    files.write_table(paths.split, frame.sample(frac=1, random_state=1)[[*SPLIT]])
    return paths


def save_tiny(folder: Path, seed: int) -> passports.Found:
    torch.manual_seed(seed)
    half = Normalisation((0.4, 0.4, 0.4), (0.2, 0.2, 0.2))
    network = backbones.build("resnet10", outputs=1, dropout=0.0, normalisation=half)
    return passports.save_backbone(
        network,
        folder / "tiny.safetensors",
        name="tiny",
        source="test",
        licence="Apache-2.0",
        trained_on="nothing",
    )


def save_blind(folder: Path) -> passports.Found:
    """A network that sees nothing of an image, beside the tiny one."""
    save_tiny(folder, seed=4)
    network = starting.start("resnet10", "tiny", outputs=1, dropout=0.0, seed=0).network
    with torch.no_grad():
        for parameter in network.trunk.parameters():
            parameter.mul_(0)
    return passports.save_backbone(
        network, folder / "blind.safetensors", name="blind", source="test", licence="none", trained_on="nothing"
    )
