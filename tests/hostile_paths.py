"""Files whose reading goes wrong in the process that does it; importing this loads nothing else there."""

from __future__ import annotations

import os
import signal
from pathlib import PosixPath
from typing import Any


class Deadly(PosixPath):
    """A file whose decoding takes the process down, as a codec with a bug does."""

    def open(self, *_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGSEGV)


class Locked(PosixPath):
    """A file that may not be read."""

    def open(self, *_: Any, **__: Any) -> Any:
        raise PermissionError
