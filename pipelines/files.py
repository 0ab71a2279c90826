"""Atomic writes and content hashes: a killed run leaves the old file or the new one, never half of one."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import MissingInputError

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` to write to, and put it in the place of `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as JSON with sorted keys; NaN and infinity are refused (`ValueError`)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path, *, made_by: str) -> dict[str, Any]:
    """Read a JSON object that the stage or command `made_by` wrote.

    Raises:
        MissingInputError: the file is not there.
    """
    _require(path, made_by)
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet; the same table gives the same bytes."""
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False)


def read_table(path: Path, *, made_by: str) -> pd.DataFrame:
    """Read a Parquet table that the stage or command `made_by` wrote.

    Raises:
        MissingInputError: the file is not there.
    """
    import pandas as pd

    _require(path, made_by)
    return pd.read_parquet(path)


def _require(path: Path, made_by: str) -> None:
    if not path.is_file():
        raise MissingInputError(f"{path.name}: expected what `radtransfer {made_by}` writes, found nothing; run it first")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
