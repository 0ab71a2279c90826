"""Small SQLite tables of keyed pseudonyms, which only their owner may read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.dicom.quarantine import make_private

PATIENCE_S = 60.0
"""So long another process may write before this one gives up."""


@contextmanager
def transaction(path: Path, set_up: Callable[[sqlite3.Connection], object]) -> Iterator[sqlite3.Connection]:
    """Open the table, made by `set_up` where it is not there; what the block writes is written as a whole or not at all."""
    make_private(path.parent)
    connection = sqlite3.connect(path, timeout=PATIENCE_S)
    try:
        path.chmod(0o600)
        set_up(connection)
        with connection:
            yield connection
    finally:
        connection.close()
