"""What worker processes are given to do, well and badly; they load this module anew each time, so it imports little."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from pathlib import Path

CRASH, HANG, WAIT, MEMORY, ERROR = -1, -2, -3, -4, -5


def work(number: int) -> int:
    """Twice a number, or what a decoder with a bug does."""
    if number == CRASH:
        ctypes.string_at(0)
    if number == HANG:
        while True:
            pass
    if number == WAIT:
        time.sleep(3600)
    if number == MEMORY:
        try:
            return len(bytearray(1 << 30))
        except MemoryError:
            return 0
    if number == ERROR:
        raise OSError(28, "no space left")
    time.sleep(0.002)
    return 2 * number


def nothing() -> None:
    pass


def recorded(item: Path) -> int:
    if multiprocessing.current_process().daemon:  # a process for one item alone, not one of the pool
        with item.parent.with_suffix(".alone").open("a") as stream:
            stream.write(f"{item.name} ")
    time.sleep(0.005)
    if item.name == "13":
        os.kill(os.getpid(), signal.SIGKILL)
    return 0
