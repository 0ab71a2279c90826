from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.errors import MissingInputError
from pipelines.files import write_json
from pipelines.imaging import store
from pipelines.imaging.radiograph import Recipe
from pipelines.imaging.store import ArrayStore

RECIPE = Recipe(4, "uint16", (0.5, 99.5))


def _fill(folder: Path, number: int, count: int) -> NDArray[Any]:
    arrays = np.random.default_rng(number).integers(0, 65536, (count, 4, 4), dtype=np.uint16)
    rows = [{"image": f"2.25.{number}{row}", "shard": number, "row": row} for row in range(count)]
    store.write_shard(folder, number, arrays, lambda: store.table(rows), RECIPE)
    return arrays


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Path, list[NDArray[Any]]]:
    store.open_for_adding(tmp_path, RECIPE)
    return tmp_path, [_fill(tmp_path, number, count) for number, count in enumerate((3, 2, 5))]


def test_images_come_in_the_order_asked_for(filled: tuple[Path, list[NDArray[Any]]]) -> None:
    folder, arrays = filled
    shards, rows = np.array([2, 0, 1, 2, 0, 2]), np.array([4, 0, 1, 0, 2, 4])
    taken = ArrayStore(folder).take(shards, rows)
    assert taken.dtype == np.uint16
    np.testing.assert_array_equal(taken, np.stack([arrays[shard][row] for shard, row in zip(shards, rows, strict=True)]))


def test_no_images_are_an_empty_array(filled: tuple[Path, list[NDArray[Any]]]) -> None:
    assert ArrayStore(filled[0]).take(np.array([], int), np.array([], int)).shape == (0, 4, 4)


def test_the_store_knows_its_size_and_dtype(filled: tuple[Path, list[NDArray[Any]]]) -> None:
    opened = ArrayStore(filled[0])
    assert (opened.size, opened.dtype, opened.recipe) == (4, np.dtype(np.uint16), RECIPE)


def test_images_that_were_left_out_cannot_be_taken(filled: tuple[Path, list[NDArray[Any]]]) -> None:
    with pytest.raises(IndexError, match="left out"):
        ArrayStore(filled[0]).take(np.array([0, -1]), np.array([0, -1]))


def test_a_missing_shard_is_named(filled: tuple[Path, list[NDArray[Any]]]) -> None:
    store.array_path(filled[0], 1).unlink()
    with pytest.raises(MissingInputError, match=r"shard-00001\.npy.*radtransfer prepare"):
        ArrayStore(filled[0]).take(np.array([1]), np.array([0]))


def test_more_shards_than_may_be_open_at_once_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_OPEN_SHARDS", 2)
    store.open_for_adding(tmp_path, RECIPE)
    arrays = [_fill(tmp_path, number, 1) for number in range(5)]
    opened = ArrayStore(tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(opened.take(np.arange(5), np.zeros(5, int)), np.concatenate(arrays))


@pytest.mark.parametrize("content", [None, {"format": store.FORMAT + 1, **RECIPE.to_dict()}])
def test_a_folder_without_a_store_of_this_format_is_refused(content: dict[str, Any] | None, tmp_path: Path) -> None:
    if content:
        write_json(tmp_path / "recipe.json", content)
    with pytest.raises(MissingInputError, match=f"format {store.FORMAT}"):
        ArrayStore(tmp_path)


def test_whole_shards_are_kept_and_remains_removed(filled: tuple[Path, list[NDArray[Any]]]) -> None:
    folder, _ = filled
    store.array_path(folder, 2).with_suffix(".parquet").unlink()
    (folder / ".shard-00002.npy.abc.tmp").write_bytes(b"half")
    held = store.open_for_adding(folder, RECIPE)
    assert held["image"].tolist() == ["2.25.00", "2.25.01", "2.25.02", "2.25.10", "2.25.11"]
    assert store.next_shard(folder) == 2
    assert sorted(path.name for path in folder.iterdir()) == [
        "recipe.json",
        *(f"shard-0000{number}.{end}" for number in (0, 1) for end in ("npy", "parquet")),
    ]


@pytest.mark.parametrize(
    "other", [Recipe(8, "uint16", (0.5, 99.5)), Recipe(4, "uint8", (0.5, 99.5)), Recipe(4, "uint16", (1, 99))]
)
def test_another_recipe_empties_the_store(other: Recipe, filled: tuple[Path, list[NDArray[Any]]]) -> None:
    folder, _ = filled
    (folder / "index.parquet").write_bytes(b"of the old recipe")
    assert store.open_for_adding(folder, other).empty
    assert [path.name for path in folder.iterdir()] == ["recipe.json"]
    assert ArrayStore(folder).recipe == other


def test_a_shard_in_which_every_image_is_left_out_is_whole(tmp_path: Path) -> None:
    store.open_for_adding(tmp_path, RECIPE)
    rows = store.table([{"image": "2.25.1", "shard": -1, "row": -1, "left_out": "constant_image"}])
    store.write_shard(tmp_path, 0, [], lambda: rows, RECIPE)
    held = store.open_for_adding(tmp_path, RECIPE)
    assert held["left_out"].tolist() == ["constant_image"]
    assert np.load(store.array_path(tmp_path, 0)).shape == (0, 4, 4)


def test_a_shard_is_written_an_image_at_a_time_and_is_an_ordinary_npy_file(tmp_path: Path) -> None:
    recipe = Recipe(256, "uint16", (0.5, 99.5))

    def arrays() -> Iterator[NDArray[Any]]:
        for number in range(64):
            yield np.full((256, 256), number, np.uint16)

    tracemalloc.start()
    store.write_shard(tmp_path, 0, arrays(), lambda: store.table([]), recipe)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000  # all of them have 8 MB
    expected = np.broadcast_to(np.arange(64, dtype=np.uint16)[:, None, None], (64, 256, 256))
    np.testing.assert_array_equal(np.load(tmp_path / "shard-00000.npy"), expected)
    np.save(tmp_path / "plain.npy", expected)
    assert (tmp_path / "plain.npy").read_bytes() == (tmp_path / "shard-00000.npy").read_bytes()
