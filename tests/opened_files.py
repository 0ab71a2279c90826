"""Which files a block of code opens, as the kernel tells it (inotify), in whatever process."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_OPENED, _FOLDER, _NONBLOCK = 0x20, 0x40000000, 0x800


@contextmanager
def opened(folder: Path) -> Iterator[list[str]]:
    """Fill the list with the names of the files below `folder` that were opened, when the block ends."""
    if not sys.platform.startswith("linux"):
        pytest.skip("inotify is Linux's")
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(_NONBLOCK)
    assert handle >= 0
    for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        assert libc.inotify_add_watch(handle, os.fsencode(place), _OPENED) >= 0
    names: list[str] = []
    try:
        yield names
        names += _events(handle)
    finally:
        os.close(handle)


def _events(handle: int) -> list[str]:
    names = []
    while True:
        try:
            content = os.read(handle, 1 << 16)
        except BlockingIOError:
            return names
        while content:
            _, mask, _, length = struct.unpack_from("iIII", content)
            if mask & _OPENED and not mask & _FOLDER:
                names.append(os.fsdecode(content[16 : 16 + length].rstrip(b"\0")))
            content = content[16 + length :]
