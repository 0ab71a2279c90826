"""Work on many items in worker processes, in order, with bounded time and memory; an item that kills its process costs itself.

A decoder written in C can crash, loop for ever, or ask for any amount of memory. Each worker sets its own alarm before an
item, which ends it (nothing else stops a loop in C), has a limit to its memory, and notes which item it is at. When a worker
dies, the items that were being worked on are done again one by one in processes of their own, and the others go on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipelines import processes
from pipelines.errors import ServiceError

Item = TypeVar("Item")
Result = TypeVar("Result")

_WALL = 10  # an item that waits, and does not work, has this many times as long
_NOBODY = -1


class Lost(Enum):
    """What became of an item that has no result."""

    CRASHED = auto()
    HUNG = auto()


@dataclass(frozen=True)
class Bounds:
    """What one item may take.

    Attributes:
        seconds: processor time; ten times as much by the clock.
        memory: bytes beyond what a worker has when it starts.
    """

    seconds: float
    memory: int


@dataclass(frozen=True)
class Crew(Generic[Item, Result]):
    """Who does what.

    Attributes:
        name: of the command, for errors.
        work: what is done with an item, a function of a module.
        start: called with `arguments` in each process before its first item.
        module: imported once for all processes.
        workers: how many.
        together: items that are handed over at once.
        ahead: how many such lots may be under way or waiting to be taken.
    """

    name: str
    work: Callable[[Item], Result]
    bounds: Bounds
    start: Callable[..., Any]
    arguments: tuple[Any, ...]
    module: str
    workers: int
    together: int
    ahead: int

    def results(self, items: Iterable[Item]) -> Iterator[Result | Lost]:
        """The result of each item, in order.

        In a daemonic process, which may start no others, all is done here, and nothing is bounded.

        Raises:
            ServiceError: processes end as they start.
        """
        if multiprocessing.current_process().daemon:
            self.start(*self.arguments)
            yield from map(self.work, items)
            return
        queue = _Queue(enumerate(items), self.together)
        waiting: deque[tuple[list[tuple[int, Item]], Future[list[Result]] | None]] = deque()
        pool, notes = self._pool()
        try:
            while True:
                while len(waiting) < self.ahead and (lot := queue.next_lot()):
                    waiting.append((lot, None if lot[0][0] in queue.suspects else self._submit(pool, lot)))
                if not waiting:
                    return
                lot, future = waiting.popleft()
                if future is None:
                    yield self._alone(lot[0])
                    continue
                try:
                    found = future.result()
                except BrokenProcessPool:
                    pool.shutdown(wait=True)
                    queue.take_back([lot, *(other for other, _ in waiting)], notes)
                    waiting.clear()
                    pool, notes = self._pool()
                    continue
                yield from found
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _pool(self) -> tuple[ProcessPoolExecutor, Any]:
        pool, notes = processes.noting_pool(self.workers, self.module, _begin, self)
        try:
            pool.submit(os.getpid).result()
        except BrokenProcessPool as error:
            raise self._unable() from error
        return pool, notes

    def _submit(self, pool: ProcessPoolExecutor, lot: list[tuple[int, Item]]) -> Future[list[Result]]:
        try:
            return pool.submit(_work_on, lot)
        except BrokenProcessPool as error:
            failed: Future[list[Result]] = Future()
            failed.set_exception(error)
            return failed

    def _alone(self, item: tuple[int, Item]) -> Result | Lost:
        ended = processes.alone(self.module, _nothing, _work_alone, self, item)
        if not ended.started:
            raise self._unable()
        if ended.result is not None:
            result: Result = ended.result[0]
            return result
        hung = os.name == "posix" and ended.signal in (signal.SIGPROF, signal.SIGALRM)
        return Lost.HUNG if hung else Lost.CRASHED

    def _unable(self) -> ServiceError:
        return ServiceError(
            f"{self.name}: worker processes end as they start, so no file can be judged; "
            'a script that calls this needs `if __name__ == "__main__":`, else look at the memory of this machine'
        )


class _Queue(Generic[Item]):
    """What is still to be done, in order; a suspect comes in a lot of its own."""

    def __init__(self, numbered: Iterator[tuple[int, Item]], together: int) -> None:
        self.suspects: set[int] = set()
        self._numbered = numbered
        self._again: deque[tuple[int, Item]] = deque()
        self._together = together

    def next_lot(self) -> list[tuple[int, Item]]:
        lot: list[tuple[int, Item]] = []
        while self._again and len(lot) < self._together:
            if self._again[0][0] in self.suspects:
                return lot or [self._again.popleft()]
            lot.append(self._again.popleft())
        return lot or list(islice(self._numbered, self._together))

    def take_back(self, lots: list[list[tuple[int, Item]]], notes: Iterable[int]) -> None:
        """Do lots again whose processes died: those items alone at which the processes were."""
        stranded = [item for lot in lots for item in lot]
        noted = set(notes) & {number for number, _ in stranded} - self.suspects
        # A process that died between items: what was to come next is looked at alone, so that the work gets on.
        self.suspects |= noted or {number for number, _ in lots[0]}
        self._again.extendleft(reversed(stranded))


_crew: Crew[Any, Any] | None = None
_note: Callable[[int], None] = lambda number: None  # noqa: E731


def _begin(note: Callable[[int], None], crew: Crew[Any, Any]) -> None:
    global _crew, _note
    _crew, _note = crew, note
    if os.name == "posix":
        for alarm in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(alarm, signal.SIG_DFL)
        _limit_memory(crew.bounds.memory)
    crew.start(*crew.arguments)


def _nothing() -> None:
    """A process that works alone begins with its work."""


def _work_alone(crew: Crew[Any, Any], item: tuple[int, Any]) -> list[Any]:
    _begin(lambda number: None, crew)
    return _work_on([item])


def _work_on(lot: list[tuple[int, Any]]) -> list[Any]:
    if _crew is None:
        raise RuntimeError("a worker without work")
    found = []
    for number, item in lot:
        _note(number)
        _set_alarms(_crew.bounds.seconds)
        try:
            found.append(_crew.work(item))
        finally:
            _set_alarms(0)
    _note(_NOBODY)
    return found


def _set_alarms(seconds: float) -> None:
    """End this process after so many seconds of work, or ten times as many by the clock; 0 takes the alarms back."""
    if os.name == "posix":
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, _WALL * seconds)


def _limit_memory(more: int) -> None:
    """Let this process ask for so many bytes beyond what it has, where the system can tell and can refuse."""
    import resource

    try:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:  # no Linux: what a process holds is not known here
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = held + more
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
