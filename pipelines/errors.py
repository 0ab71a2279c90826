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
    └── ServiceError                     git, DVC, MLflow or Prefect did not do what it was asked

A message says what, where, expected, actual and the remedy. It never holds identified data: no header values, no source
file names, no label keys. Files are named by their pseudonym or by their line in the quarantine list.
"""

from __future__ import annotations

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
    """git, DVC, MLflow or Prefect did not do what it was asked."""
