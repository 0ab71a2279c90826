"""What a failure means to Prefect: whether a second try may end otherwise, and how the log tells of it."""

from __future__ import annotations

import logging
import os
from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from pipelines.errors import RadtransferError, ServiceError, UnforeseenError


def worth_retrying(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a second try may end otherwise: a service or a disk may come back, a wrong setting, key or table does not."""
    return isinstance(state.result(raise_on_failure=False), ServiceError | UnforeseenError)


def _adds_words(record: logging.LogRecord) -> bool:
    """Whether a record says more than the one that ends the run: not an interrupt, nor our own error (RADTRANSFER_DEBUG)."""
    if record.getMessage().startswith("Crash detected!"):
        return False
    ours = record.exc_info is not None and isinstance(record.exc_info[1], RadtransferError)
    return not ours or bool(os.environ.get("RADTRANSFER_DEBUG"))


def speak_plainly() -> None:
    """Have Prefect tell of our own errors in one line for each run that they end, since tracebacks would bury them."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_adds_words)
