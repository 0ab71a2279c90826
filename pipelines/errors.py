"""Every error that radtransfer raises on purpose.

::

    RadtransferError            exit 1   the work failed
    ├── UsageError              exit 2   wrong usage or configuration
    │   ├── ConfigurationError           params.yaml, policy.yaml, --set, or the environment
    │   ├── MissingKeyError              no pseudonym key
    │   └── SourceError                  a source or a label table that is not there or cannot be read
    ├── RefusedFileError                 one file cannot be used; carries a `Reason`, never stops the other files
    ├── LabelError                       a label that the task does not declare
    ├── MissingInputError                an earlier stage has not run
    ├── QualityError                     an expectation of severity `error` failed
    ├── LeakageError                     a split in which a patient, study or image spans two parts
    ├── WeightsError                     a checkpoint that is missing, altered or does not fit
    ├── TrainingError                    training cannot start, go on or be resumed
    ├── GateError                        the registration policy said no
    ├── StorageError                     a disk is full
    ├── ServiceError                     git, DVC, MLflow, Prefect or a worker process did not do what it was asked
    └── UnforeseenError                  anything else, with its text withheld

A message says what, where, expected, actual and the remedy. It never holds identified data: no header values, no source
file names, no label keys. Files are named by their pseudonym or by their line in the quarantine list.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.records import Reason


class RadtransferError(Exception):
    """The work failed. The root of the tree; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(RadtransferError):
    """What was asked cannot be asked: wrong usage or configuration."""

    exit_code = 2


class ConfigurationError(UsageError):
    """params.yaml, policy.yaml, a `--set` or an environment variable is not valid."""


class MissingKeyError(UsageError):
    """No pseudonym key in the environment."""


class SourceError(UsageError):
    """A source of radiographs or a table of labels is not there or cannot be read."""


class RefusedFileError(RadtransferError):
    """One file cannot be used.

    `reason` is the code that the quarantine list and the index carry; the message adds what can be said without
    identified data.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class LabelError(RadtransferError):
    """A label is not one that the task declares."""


class MissingInputError(RadtransferError):
    """An earlier stage has not run, or its output is gone."""


class QualityError(RadtransferError):
    """An expectation of severity `error` failed."""


class LeakageError(RadtransferError):
    """A patient, a study or an identical image spans two parts of the split, or a class is missing from one."""


class WeightsError(RadtransferError):
    """A checkpoint is missing, altered, or does not fit the network."""


class TrainingError(RadtransferError):
    """Training cannot start, go on or be resumed."""


class GateError(RadtransferError):
    """The registration policy said no."""


class ServiceError(RadtransferError):
    """git, DVC, MLflow, Prefect or a worker process did not do what it was asked."""


class StorageError(RadtransferError):
    """A disk is full."""


class UnforeseenError(RadtransferError):
    """Something that radtransfer did not expect; the text of the original error is withheld, since it may quote a header."""


@contextmanager
def discreet() -> Iterator[None]:
    """Let our own errors through, and withhold the text of any other.

    Raises:
        StorageError: a disk is full.
        UnforeseenError: in the place of another exception that is not ours; it names the exception's type and place.
    """
    try:
        yield
    except RadtransferError:
        raise
    except Exception as error:
        if _tells_of_a_full_disk(error):
            raise StorageError(_FULL) from None
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_ours(frame.filename)]
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "a library"
        raise UnforeseenError(
            f"{type(error).__name__} in {where}; its text is withheld, since it may hold patient data: "
            "set RADTRANSFER_DEBUG=1 to see it"
        ) from None


_FULL = (
    "no space is left on a disk that holds the workspace, the quarantine, the inbox or temporary files; what is finished stays: "
    "make space and run the command again, it goes on where it stopped"
)


def _tells_of_a_full_disk(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return True
    return "No space left on device" in str(error) or "database or disk is full" in str(error)


def _is_ours(filename: str) -> bool:
    return Path(filename).is_relative_to(Path(__file__).parent)
