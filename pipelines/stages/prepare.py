"""prepare: DICOM into fixed-size grayscale arrays, each image decoded once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from pipelines import files
from pipelines.config import Config, PrepareSection
from pipelines.console import progress
from pipelines.errors import MissingInputError
from pipelines.imaging import store
from pipelines.imaging.radiograph import Prepared, Recipe
from pipelines.imaging.workers import Outcome, prepare_files
from pipelines.paths import Paths
from pipelines.processes import cores
from pipelines.records import INDEX, MANIFEST


@dataclass(frozen=True)
class PrepareSummary:
    """What prepare did.

    Attributes:
        images: images in the manifest.
        prepared: of these, in the store now.
        new: decoded by this run; the others were there.
        left_out: how many images of the manifest are left out, by `Reason` value.
        seconds: what the run took.
        images_per_second: new images by the time that decoding and writing took; 0 where there were none.
    """

    images: int
    prepared: int
    new: int
    left_out: dict[str, int]
    seconds: float
    images_per_second: float

    def describe(self) -> str:
        lines = [f"[bold]{self.prepared:,}[/] of {self.images:,} images prepared, {self.new:,} of them looked at now"]
        if self.new:
            lines[0] += f" ({self.images_per_second:,.0f} images/s)"
        lines += [f"  left out: {count:,} × {reason}" for reason, count in self.left_out.items()]
        return "\n".join(lines)


def run(config: Config, paths: Paths) -> PrepareSummary:
    """Bring `artifacts/prepared` up to date with the manifest.

    Images that the store holds are not decoded again. New ones fill shards in the order of their pseudonyms, so that a run
    that was killed goes on with the shard it was at and ends with the bytes of one that was not.

    Raises:
        MissingInputError: there is no manifest, or files that it names are not there.
    """
    started = time.perf_counter()
    section = config.prepare
    recipe = recipe_of(section)
    manifest = files.read_table(paths.manifest, made_by="ingest").sort_values("image", ignore_index=True)
    held = store.open_for_adding(paths.prepared, recipe)
    new = manifest[~manifest["image"].isin(held["image"])]
    _require_files(new, paths)
    before = time.perf_counter()
    _add(new, recipe, section, paths)
    adding = time.perf_counter() - before
    index = _index(manifest, store.contents(paths.prepared))
    files.write_table(paths.index, index)
    return _summary(index, len(new), time.perf_counter() - started, adding)


def recipe_of(section: PrepareSection) -> Recipe:
    """What of the configuration decides the arrays."""
    return Recipe(**{field.name: getattr(section, field.name) for field in fields(Recipe)})


def _require_files(new: pd.DataFrame, paths: Paths) -> None:
    missing = sum(not (paths.data / file).is_file() for file in new["file"])
    if missing:
        raise MissingInputError(
            f"data: {missing:,} of the {len(new):,} new files of manifest.parquet are not there; "
            "fetch them with `dvc pull` or `dvc checkout`, or run `radtransfer ingest` again"
        )


def _add(new: pd.DataFrame, recipe: Recipe, section: PrepareSection, paths: Paths) -> None:
    if new.empty:
        return
    workers = min(section.workers or cores(), len(new))
    outcomes = prepare_files([paths.data / file for file in new["file"]], recipe, workers, section.seconds_per_file)
    first = store.next_shard(paths.prepared)
    with progress() as display:
        counted = _counted(outcomes, display, len(new))
        for number, start in enumerate(range(0, len(new), section.shard_images), first):
            images = new["image"].iloc[start : start + section.shard_images]
            _write_shard(number, images, counted, recipe, paths)


def _write_shard(number: int, images: pd.Series[str], outcomes: Iterator[Outcome], recipe: Recipe, paths: Paths) -> None:
    records: list[dict[str, Any]] = []
    arrays = _arrays(number, images, outcomes, records)
    store.write_shard(paths.prepared, number, arrays, lambda: store.table(records), recipe)


def _arrays(
    number: int, images: pd.Series[str], outcomes: Iterator[Outcome], records: list[dict[str, Any]]
) -> Iterator[NDArray[Any]]:
    """Pass the arrays of a shard on, one at a time, and add the row of each image to `records`."""
    row = 0
    for image, outcome in zip(images, islice(outcomes, len(images)), strict=True):
        if outcome.prepared is None:
            reason = outcome.left_out.value if outcome.left_out else None
            records.append({"image": image, "shard": -1, "row": -1, "left_out": reason})
            continue
        records.append({"image": image, **_recorded(outcome.prepared), "shard": number, "row": row})
        row += 1
        yield outcome.prepared.array


def _recorded(prepared: Prepared) -> dict[str, Any]:
    return {field.name: getattr(prepared, field.name) for field in fields(prepared) if field.name != "array"}


def _counted(outcomes: Iterator[Outcome], display: Any, total: int) -> Iterator[Outcome]:
    """Pass outcomes on, showing how many images and MB/s of files went by."""
    task = display.add_task("prepare", total=total, note="")
    started, read = time.perf_counter(), 0
    for outcome in outcomes:
        read += outcome.bytes
        speed = read / 1e6 / max(time.perf_counter() - started, 1e-9)
        display.update(task, advance=1, note=f"{speed:,.1f} MB/s")
        yield outcome


def _index(manifest: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """One row per image of the manifest, sorted by pseudonym; facts come from the manifest, measurements from the store."""
    facts = manifest[[name for name in INDEX if name in MANIFEST]]
    index = facts.merge(rows, on="image", how="left", validate="one_to_one")
    return index[list(INDEX)].astype({"shard": "int64", "row": "int64"})


def _summary(index: pd.DataFrame, new: int, seconds: float, adding: float) -> PrepareSummary:
    left_out = Counter(index["left_out"].dropna())
    return PrepareSummary(
        images=len(index),
        prepared=int((index["shard"] >= 0).sum()),
        new=new,
        left_out=dict(sorted(left_out.items())),
        seconds=round(seconds, 3),
        images_per_second=round(new / adding, 1) if new else 0.0,
    )
