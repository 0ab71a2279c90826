"""Listen for a PACS that pushes: what arrives waits in the inbox until `radtransfer ingest` takes it in."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.config import Config
from pipelines.console import progress
from pipelines.dicom import dataset
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.sources.opening import open_inbox
from pipelines.paths import Paths

SWEEP_EVERY_S = 600.0
_GLANCE_S = 0.5


@dataclass(frozen=True)
class ReceiveSummary:
    """What came while we listened; counts only.

    Attributes:
        received: images that are in the inbox; one that was pushed twice counts twice.
        failed: images that could not be stored; their senders were told.
        refused: senders that were not let in.
        waiting: files that wait in the inbox now.
    """

    received: int
    failed: int
    refused: int
    waiting: int

    def describe(self) -> str:
        troubles = {"not stored": self.failed, "senders refused": self.refused}
        return "\n".join(
            (
                f"[bold]{self.received:,} images received[/bold]; {self.waiting:,} files wait in the inbox",
                *(f"[yellow]{count:,} {what}[/yellow]" for what, count in troubles.items() if count),
                "take them in with [bold]radtransfer ingest[/bold] (ingest.kind: inbox, dicomweb or dimse)",
            )
        )


def run(config: Config, paths: Paths, listening: Callable[[str], None], stop: threading.Event | None = None) -> ReceiveSummary:
    """Take pushed images into the inbox until interrupted (SIGINT, SIGTERM) or `stop` is set.

    Args:
        listening: told where, once the port is open.

    Raises:
        MissingKeyError: no pseudonym key in the environment, or another one than the data set was made with.
        ConfigurationError: the port cannot be had, the inbox lies within the workspace, or a certificate cannot be read.
    """
    from pipelines.dicom.sources.listener import Listener

    section, pseudonyms = config.ingest.receive, Pseudonyms.from_environment()
    dataset.check_key(dataset.held_files(paths), pseudonyms)
    inbox = open_inbox(paths, pseudonyms)
    stopped = stop or _stopped_by_signals()
    listener = Listener(section, config.ingest.tls, config.ingest.modalities, config.ingest.network.timeout_s, inbox)
    reception = listener.reception
    with listener, progress() as display:
        listening(f"{section.ae_title} at {section.host}:{section.port}")
        task = display.add_task("receive", total=None, note="")
        sweep = 0.0
        ended = False
        while not ended:
            ended = stopped.wait(_GLANCE_S)
            note = f"{reception.failed:,} failed, {reception.refused:,} refused"
            display.update(task, completed=reception.received, note=note)
            sweep += _GLANCE_S
            if sweep >= SWEEP_EVERY_S:
                inbox.sweep()
                sweep = 0.0
    return ReceiveSummary(reception.received, reception.failed, reception.refused, len(inbox.waiting()))


def _stopped_by_signals() -> threading.Event:
    """An event that Ctrl-C or a polite kill sets."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    return stopped
