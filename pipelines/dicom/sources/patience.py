"""Try again what may pass, with growing pauses, and give up in plain words."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pipelines.errors import ServiceError

Answer = TypeVar("Answer")
LONGEST_PAUSE_S = 60.0


class PassingError(ServiceError):
    """Trouble that may be over at the next try: a refused connection, a timeout, an overloaded server.

    `after_s` is the pause that the server asked for, 0 where it did not.
    """

    def __init__(self, words: str, after_s: float = 0.0) -> None:
        super().__init__(words)
        self.after_s = after_s


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, and how often to try.

    Attributes:
        timeout_s: longest wait for an answer, in seconds.
        attempts: how often to try in all.
        back_off_s: the first pause in seconds; each next one is twice as long, up to a minute.
    """

    timeout_s: float
    attempts: int
    back_off_s: float

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """Ask until there is an answer.

        Raises:
            PassingError: the last one, where every try met one; the message says how often it was tried.
        """
        for attempt in range(1, self.attempts + 1):
            try:
                return question()
            except PassingError as error:
                if attempt == self.attempts:
                    times = "once" if attempt == 1 else f"{attempt} times"
                    raise PassingError(f"{error}; tried {times}") from None
                time.sleep(min(LONGEST_PAUSE_S, max(error.after_s, self.back_off_s * 2 ** (attempt - 1))))
        raise ValueError(f"attempts: expected at least 1, got {self.attempts}")
