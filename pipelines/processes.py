"""Worker processes: how many, how they start, and that they end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pool(workers: int, module: str, start: Callable[..., Any], *arguments: Any) -> ProcessPoolExecutor:
    """Processes that leave Ctrl-C to their parent, and end when it does.

    Args:
        workers: how many.
        module: imported once for all of them, where the system can.
        start: called with `arguments` in each process before its first task.
    """
    # Not "fork": the parent may run threads (progress display, torch, an orchestrator) whose locks a fork would copy.
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    if os.name == "posix":
        context.set_forkserver_preload([module])
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(start, arguments))


def _begin(start: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start(*arguments)


def _end_with_parent() -> None:
    """Leave when the parent is gone: one that is killed cannot tell its workers, and they would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
