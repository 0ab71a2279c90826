"""Keep the libraries that talk to servers from telling what they read: their logs and warnings quote identifiers."""

from __future__ import annotations

import logging
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

LOGGERS = ("pynetdicom", "dicomweb_client", "pydicom", "urllib3")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence them, in every thread, for as long as the block runs."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for name in _loggers():
            stack.enter_context(_off(logging.getLogger(name)))
        stack.enter_context(_unprinted_threads())
        yield


def _loggers() -> list[str]:
    """The loggers and those below them, which can have levels of their own."""
    below = tuple(f"{name}." for name in LOGGERS)
    return [*LOGGERS, *(name for name in list(logging.root.manager.loggerDict) if name.startswith(below))]


@contextmanager
def _off(logger: logging.Logger) -> Iterator[None]:
    disabled, level, logger.disabled = logger.disabled, logger.level, True
    logger.setLevel(logging.CRITICAL + 1)  # for loggers below that are made in the meantime
    try:
        yield
    finally:
        logger.disabled = disabled
        logger.setLevel(level)


@contextmanager
def _unprinted_threads() -> Iterator[None]:
    """Have threads that die of what a peer sent print no traceback."""
    usual = threading.excepthook

    def hook(what: threading.ExceptHookArgs) -> None:
        if not any("pynetdicom" in frame.filename for frame in traceback.extract_tb(what.exc_traceback)):
            usual(what)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = usual
