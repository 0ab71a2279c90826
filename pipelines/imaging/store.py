"""The array store: prepared images in append-only shards, read through a memory map.

::

    recipe.json            how every image in the store was made, and the version of this format
    shard-00000.npy        array (images, size, size), uint8 or uint16
    shard-00000.parquet    one row per image that was looked at for this shard: `COLUMNS`

The array is written first and its table second, each by rename: a shard counts once its table is there, and is never
written again. A shard without a table is what a killed run left, and goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines import files
from pipelines.errors import MissingInputError
from pipelines.imaging.radiograph import Recipe
from pipelines.records import INDEX, MANIFEST

FORMAT = 3
"""Version of the files and of the chain that makes the arrays; raise it when either changes, and stores are rebuilt."""

COLUMNS = ("image", *(name for name in INDEX if name not in MANIFEST))
_MEASURED = ("mean", "std", "dark", "bright", "pixel_aspect", "reduction", "mirrored")
NUMBERS = dict.fromkeys(_MEASURED, "float64") | {"shard": "int64", "row": "int64"}

_OPEN_SHARDS = 512  # each keeps a file descriptor; a process is usually allowed 1,024


class ArrayStore:
    """Prepared images by shard and row.

    Raises:
        MissingInputError: the folder holds no store, or one in another format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        recipe = _stored_recipe(folder)
        if recipe is None:
            raise MissingInputError(
                f"{folder.name}: expected an array store in format {FORMAT}, found none; run `radtransfer prepare`"
            )
        self.recipe = recipe
        self._shard = lru_cache(maxsize=_OPEN_SHARDS)(self._map)

    @property
    def size(self) -> int:
        """Rows and columns of an image."""
        return self.recipe.size

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.recipe.dtype

    def take(self, shards: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
        """Gather images, in the order asked for.

        Args:
            shards: shard number of each image, as in the index.
            rows: row within the shard of each image.

        Returns:
            Array (images, size, size) in the store's dtype.

        Raises:
            MissingInputError: a shard is not there.
            IndexError: an image was left out (shard -1), or the shard has no such row.
        """
        shards, rows = np.asarray(shards), np.asarray(rows)
        if shards.size and min(shards.min(), rows.min()) < 0:
            raise IndexError("images that were left out have no array; select rows of the index with shard >= 0")
        images = np.empty((len(shards), self.size, self.size), self.dtype)
        order = np.lexsort((rows, shards))
        numbers, starts = np.unique(shards[order], return_index=True)
        for number, start, end in zip(numbers, starts, [*starts[1:], len(order)], strict=False):
            places = order[start:end]
            images[places] = self._shard(int(number))[rows[places]]
        return images

    def _map(self, number: int) -> NDArray[Any]:
        path = array_path(self.folder, number)
        if not path.is_file():
            raise MissingInputError(f"{path.name}: the index names it, found nothing; run `radtransfer prepare`")
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return array


def open_for_adding(folder: Path, recipe: Recipe) -> pd.DataFrame:
    """Make the folder a sound store of this recipe and give what it holds.

    A store of another recipe or format is emptied; remains of a killed run go; whole shards stay as they are.

    Returns:
        The rows of all shards, `COLUMNS`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for remains in folder.glob(".*.tmp"):
        remains.unlink()
    if _stored_recipe(folder) != recipe:
        # The recipe goes first and comes last, so that a run killed in between starts over.
        for path in (folder / "recipe.json", folder / "index.parquet", *folder.glob("shard-*")):
            path.unlink(missing_ok=True)
        files.write_json(folder / "recipe.json", {"format": FORMAT, **recipe.to_dict()})
    for path in folder.glob("shard-*"):
        if not (path.with_suffix(".npy").is_file() and path.with_suffix(".parquet").is_file()):
            path.unlink()
    return contents(folder)


def contents(folder: Path) -> pd.DataFrame:
    """The rows of all shards, `COLUMNS`, in the order of the shards."""
    parts = [pd.read_parquet(path) for path in sorted(folder.glob("shard-*.parquet"))]
    return pd.concat(parts, ignore_index=True) if parts else table([])


def next_shard(folder: Path) -> int:
    """The number of the first shard that is not there."""
    numbers = [int(path.stem.removeprefix("shard-")) for path in folder.glob("shard-*.parquet")]
    return max(numbers, default=-1) + 1


def write_shard(
    folder: Path, number: int, arrays: Iterable[NDArray[Any]], rows: Callable[[], pd.DataFrame], recipe: Recipe
) -> None:
    """Write one shard: its array, an image at a time, then its table.

    Args:
        arrays: (size, size) each, in the order of the `row` column.
        rows: gives, once the arrays are written, `COLUMNS` with `shard` equal to `number`, or -1 for an image left out.
    """
    count = 0
    with files.replacing(array_path(folder, number)) as temporary, temporary.open("wb") as stream:
        _write_header(stream, count, recipe)
        for array in arrays:
            stream.write(np.ascontiguousarray(array, recipe.dtype).data)
            count += 1
        stream.seek(0)
        _write_header(stream, count, recipe)
    files.write_table(array_path(folder, number).with_suffix(".parquet"), rows())


def _write_header(stream: BinaryIO, count: int, recipe: Recipe) -> None:
    # numpy leaves room for the first axis to grow, so the header takes as many bytes for any number of images.
    shape, descr = (count, recipe.size, recipe.size), np.lib.format.dtype_to_descr(recipe.dtype)
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})


def table(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows of a shard as a table whose column types do not depend on what is missing."""
    frame = pd.DataFrame(list(records), columns=list(COLUMNS))
    return frame.astype({name: NUMBERS.get(name, "str") for name in COLUMNS})


def array_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.npy"


def _stored_recipe(folder: Path) -> Recipe | None:
    path = folder / "recipe.json"
    if not path.is_file():
        return None
    values = files.read_json(path, made_by="prepare")
    return Recipe.from_dict(values) if values.get("format") == FORMAT else None
