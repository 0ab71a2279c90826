"""Have pynetdicom write what it receives to the inbox as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from weakref import finalize

from pynetdicom import _config as settings
from pynetdicom import dimse_messages


class Spool:
    """A private file that a C-STORE is written to; it is gone when nobody holds this object any more, unless it was moved.

    A write that fails is remembered, not raised: pynetdicom would end the association without a word to the sender, and leave
    the file.

    Attributes:
        trouble: why the file is not whole, None where it is.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        self._stream = NamedTemporaryFile(dir=folder, **options)  # noqa: SIM115
        self.name: str = self._stream.name
        self.trouble: OSError | None = None
        finalize(self, Path(self.name).unlink, missing_ok=True)

    @property
    def file(self) -> Spool:
        """What pynetdicom flushes."""
        return self

    def write(self, data: bytes) -> int:
        if self.trouble is None:
            try:
                return self._stream.write(data)
            except OSError as error:
                self.trouble = error
        return len(data)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self.trouble = self.trouble or error

    def close(self) -> None:
        with suppress(OSError):
            self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def spooling(folder: Path) -> Iterator[None]:
    """Have pynetdicom write what it receives to private files in `folder` as it comes, not to memory nor to /tmp."""
    # pynetdicom does not ask where to, and tempfile.tempdir would move everybody's temporary files
    ours: tuple[tuple[Any, str, Any], ...] = (
        (dimse_messages, "NamedTemporaryFile", partial(Spool, folder)),
        (settings, "STORE_RECV_CHUNKED_DATASET", True),
        (settings, "LOG_HANDLER_LEVEL", "none"),
    )
    theirs = [(place, name, getattr(place, name)) for place, name, _ in ours]
    try:
        for place, name, value in ours:
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in theirs:
            setattr(place, name, value)
