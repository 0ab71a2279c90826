"""Worker processes: how many, how they start, that they end with the process that started them; and what memory one keeps."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc, malloc.h
FROM_THE_HEAP = (2**30, 2**25)  # bytes of one allocation; before 2.35 glibc takes no more than the second
KEPT = 2**31 - 1  # freed bytes at the heap's end


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
    return ProcessPoolExecutor(workers, mp_context=_context(module), initializer=_begin, initargs=(start, arguments))


def noting_pool(
    workers: int, module: str, start: Callable[..., Any], *arguments: Any
) -> tuple[ProcessPoolExecutor, Sequence[int]]:
    """A `pool` whose processes can each note a number, which stays readable when they die; first they hold -1.

    Args:
        start: called in each process with the function that notes a number, then `arguments`.
    """
    context = _context(module)
    notes = context.RawArray("q", [-1] * workers)
    begin = (_begin_noting, (notes, context.Value("i", 0), start, arguments))
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=begin), notes


def _begin_noting(notes: Any, taken: Any, start: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    with taken.get_lock():
        place = taken.value
        taken.value += 1
    start(partial(notes.__setitem__, place), *arguments)


@dataclass(frozen=True)
class Ended:
    """How a process of its own came to its end.

    Attributes:
        started: whether it came as far as the call.
        result: what the call returned, or None.
        signal: the number of the signal that ended it; 0 for none.
    """

    started: bool
    result: Any
    signal: int


def alone(module: str, start: Callable[[], Any], function: Callable[..., Any], *arguments: Any) -> Ended:
    """Call `function` in a process of its own and wait for its end; what the function raises is raised here.

    Args:
        module: as for `pool`.
        start: called in the process before the function.
    """
    context = _context(module)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, start, function, arguments), daemon=True)
    messages: list[Any] = []
    try:
        process.start()
        sender.close()
        with contextlib.suppress(EOFError):
            while True:
                messages.append(receiver.recv())
        process.join()
    finally:
        process.kill()
        receiver.close()
    if len(messages) > 1 and isinstance(messages[1], Exception):
        raise messages[1]
    result = messages[1] if len(messages) > 1 else None
    return Ended(bool(messages), result, max(0, -(process.exitcode or 0)))


def _call(sender: Connection, start: Callable[[], Any], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    _begin(start, ())
    sender.send(None)
    try:
        sender.send(function(*arguments))
    except Exception as error:
        sender.send(error)


def _context(module: str) -> ForkServerContext | SpawnContext:
    # Not "fork": the parent may run threads (progress display, torch, an orchestrator) whose locks a fork would copy.
    if os.name != "posix":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


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


@cache
def keep_memory() -> None:
    """Keep what this process frees, instead of handing it back to the system only to be given it again, page by page.

    A step of a training on the CPU takes and frees hundreds of megabytes several times over, and up to a quarter of its time
    goes into that; to keep them takes up to a tenth more memory (benchmarks/memory.md). Only glibc has the switch (mallopt(3));
    elsewhere nothing happens. The numbers that are computed are the same.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    # told to keep the heap but not to allocate from it, it would map every large block anew
    if any(mallopt(M_MMAP_THRESHOLD, size) for size in FROM_THE_HEAP):
        mallopt(M_TRIM_THRESHOLD, KEPT)
