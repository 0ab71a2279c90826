"""Receiving images over DICOM's own protocol: what we accept, and where a C-STORE ends up."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalIntraOralXRayImageStorageForPresentation,
    DigitalIntraOralXRayImageStorageForProcessing,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext, build_context

from pipelines.dicom.sources.inbox import Inbox
from pipelines.dicom.sources.spool import Spool
from pipelines.dicom.sources.transport import line_handlers
from pipelines.errors import ConfigurationError

MOST_CONTEXTS = 128
"""Of one association (PS3.8 9.3.2.2: odd numbers from 1 to 255)."""
SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000

VERIFICATION = UID("1.2.840.10008.1.1")
# Any archive can turn these into one another, so one presentation context serves them all.
_NATIVE = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
# Each in a context of its own: in a shared one the acceptor picks one syntax, and images stored in another could not come.
_COMPRESSED = (
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
    "1.2.840.10008.1.2.5",
)
_PROJECTION = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)
_MAMMOGRAPHY = (
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
)
_INTRA_ORAL = (
    DigitalIntraOralXRayImageStorageForPresentation,
    DigitalIntraOralXRayImageStorageForProcessing,
)
# Modality → the SOP classes that its images come in; film scanners (RG) and older CR write secondary captures.
STORAGE: dict[str, tuple[UID, ...]] = {
    "CR": _PROJECTION,
    "DX": _PROJECTION,
    "RG": _PROJECTION,
    "PX": _PROJECTION,
    "MG": _MAMMOGRAPHY,
    "IO": _INTRA_ORAL,
}


def storage_classes(modalities: Iterable[str]) -> tuple[UID, ...]:
    """The SOP classes that images of these modalities come in.

    Raises:
        ConfigurationError: a modality is not one of radiography.
    """
    found: dict[UID, None] = {}
    for name in modalities:
        if name.upper() not in STORAGE:
            raise ConfigurationError(
                f"params.yaml ingest.modalities: expected radiographs ({', '.join(STORAGE)}) to ask a PACS for, got {name!r}"
            )
        found |= dict.fromkeys(STORAGE[name.upper()])
    return tuple(found)


def storage_contexts(modalities: Iterable[str]) -> list[PresentationContext]:
    """Presentation contexts in which every image comes as it is stored."""
    return [
        build_context(storage, list(syntaxes))
        for storage in storage_classes(modalities)
        for syntaxes in (_NATIVE, *((syntax,) for syntax in _COMPRESSED))
    ]


class Reception:
    """Takes what C-STORE brings into the inbox, and counts; several associations may bring at once."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._changed = threading.Condition()
        self._expected: dict[str, bool] = {}
        self.received = self.failed = self.refused = 0

    @property
    def handlers(self) -> list[evt.EventHandlerType]:
        """What an association that brings images is to call."""
        return [*line_handlers(), (evt.EVT_C_STORE, self._store), (evt.EVT_REJECTED, self._count_refused)]

    def expect(self, uid: str) -> None:
        """Take note of when an instance comes."""
        with self._changed:
            self._expected[self._inbox.pseudonyms.uid(uid)] = False

    def arrived(self, uid: str, within_s: float) -> bool:
        """Whether an expected instance came, waiting for it if need be; it is not expected any more."""
        image = self._inbox.pseudonyms.uid(uid)
        with self._changed:
            self._changed.wait_for(lambda: self._expected[image], within_s)
            return self._expected.pop(image)

    def _store(self, event: evt.Event) -> int:
        """Answer a C-STORE: success only once the file is on the disk, in its place."""
        try:
            image = self._delivered(cast(C_STORE, event.request))
        except Exception as error:  # whatever a hostile peer or a full disk brings about must not stop the others
            with self._changed:
                self.failed += 1
            return OUT_OF_RESOURCES if isinstance(error, OSError) else CANNOT_UNDERSTAND
        with self._changed:
            self.received += 1
            if image in self._expected:
                self._expected[image] = True
            self._changed.notify_all()
        return SUCCESS

    def _delivered(self, request: C_STORE) -> str:
        """Deliver the file that a request came with, unless it could not be written; pynetdicom removes it then."""
        spool = cast(Spool, request._dataset_file)
        if spool.trouble:
            raise spool.trouble
        return self._inbox.deliver(Path(spool.name), str(request.AffectedSOPInstanceUID))

    def _count_refused(self, _: evt.Event) -> None:
        with self._changed:
            self.refused += 1
