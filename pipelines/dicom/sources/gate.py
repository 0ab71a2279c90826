"""Keep pynetdicom's reactor from taking answers that are meant for us."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pynetdicom.association import Association


class Gate(threading.Event):
    """An event that can be closed so that, afterwards, the thread which waits for it is known to be held.

    An association has a thread that serves requests of the peer, and its `send_…` methods pause that thread before they ask.
    But pynetdicom 3.0 takes it for paused while it is on its way through the open event; it then swallows the first answer, and
    a query that has one match seems to have none (about one in 300, on a busy machine).
    """

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._held = 0
        self._opened = True

    def is_set(self) -> bool:
        return self._opened

    def set(self) -> None:
        with self._changed:
            self._opened = True
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            self._opened = False

    def wait(self, timeout: float | None = None) -> bool:
        with self._changed:  # who passes an open gate is never seen as held, since the lock is not let go of
            self._held += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: self._opened, timeout)
            finally:
                self._held -= 1

    def close(self, ended: Callable[[], bool], within_s: float) -> None:
        """Close the gate and wait until somebody is held by it, or has ended."""
        with self._changed:
            self._opened = False
            self._changed.wait_for(lambda: self._held > 0 or ended(), within_s)


def install(association: Association) -> None:
    """Put a gate in the place of the event by which an association pauses its thread."""
    association._reactor_checkpoint = Gate()


def hold(association: Association, within_s: float = 5.0) -> None:
    """Hold the association's thread before something is asked; pynetdicom lets it go on after the answer."""
    gate = association._reactor_checkpoint
    if isinstance(gate, Gate):
        gate.close(lambda: not association.is_alive(), within_s)
