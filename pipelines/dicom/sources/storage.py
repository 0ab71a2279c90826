"""Receiving images over DICOM's own protocol: what we accept, and where a C-STORE ends up."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from socketserver import TCPServer
from tempfile import NamedTemporaryFile
from typing import Any, cast
from weakref import WeakKeyDictionary

import pynetdicom
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
from pynetdicom import _config as settings
from pynetdicom import dimse_messages, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.transport import ThreadedAssociationServer

from pipelines.config import TlsSection
from pipelines.dicom.sources.inbox import LARGEST, Inbox
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
        self._bytes: WeakKeyDictionary[Association, int] = WeakKeyDictionary()
        self._expected: dict[str, bool] = {}
        self.received = self.failed = self.refused = 0

    @property
    def handlers(self) -> list[evt.EventHandlerType]:
        """What an association that brings images is to call."""
        watching: list[evt.EventHandlerType] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_PDU_RECV, self._watch),
            (evt.EVT_REJECTED, self._count_refused),
        ]
        return HASTE + watching

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
        self._bytes.pop(event.assoc, None)
        path = Path(event.dataset_path)
        try:
            image = self._inbox.deliver(path, str(cast(C_STORE, event.request).AffectedSOPInstanceUID))
        except Exception as error:  # whatever a hostile peer or a full disk brings about must not stop the others
            path.unlink(missing_ok=True)
            with self._changed:
                self.failed += 1
            return OUT_OF_RESOURCES if isinstance(error, OSError) else CANNOT_UNDERSTAND
        with self._changed:
            self.received += 1
            if image in self._expected:
                self._expected[image] = True
            self._changed.notify_all()
        return SUCCESS

    def _watch(self, event: evt.Event) -> None:
        """End an association that sends an image larger than any radiograph."""
        self._bytes[event.assoc] = self._bytes.get(event.assoc, 0) + event.pdu.pdu_length
        if self._bytes[event.assoc] > LARGEST:
            event.assoc.abort()

    def _count_refused(self, _: evt.Event) -> None:
        with self._changed:
            self.refused += 1


class StorageServer(ThreadedAssociationServer):
    """pynetdicom's server, but a peer that connects and falls silent before its TLS handshake keeps no other waiting."""

    def get_request(self) -> tuple[Any, Any]:
        client, address = self.socket.accept()  # type: ignore[union-attr]
        if self.ssl_context:
            client.settimeout(self.ae.network_timeout)
            client = self.ssl_context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        return client, address

    def end(self) -> None:
        """Let nobody in any more, and end the associations there are."""
        TCPServer.shutdown(self)
        for association in self.active_associations:
            association.abort()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: socketserver would print the traceback and the peer's address."""


@contextmanager
def spooling(folder: Path) -> Iterator[None]:
    """Have pynetdicom write what it receives to private files in `folder` as it comes, not to memory nor to /tmp."""
    # pynetdicom does not ask where to, and tempfile.tempdir would move everybody's temporary files
    ours: tuple[tuple[Any, str, Any], ...] = (
        (dimse_messages, "NamedTemporaryFile", partial(NamedTemporaryFile, dir=folder)),
        (settings, "STORE_RECV_CHUNKED_DATASET", True),
        (settings, "LOG_HANDLER_LEVEL", "none"),
    )
    theirs = [(place, name, getattr(place, name)) for place, name, _ in ours]
    try:
        for place, name, value in ours:
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in theirs:
            setattr(place, name, value)


def server_tls(tls: TlsSection) -> ssl.SSLContext:
    """Encryption for our own port; with an authority named, peers must show a certificate of it (PS3.15 B.9).

    Raises:
        ConfigurationError: no certificate of ours is named, or it cannot be read.
    """
    if not tls.certificate:
        raise ConfigurationError("params.yaml ingest.tls.certificate: expected our certificate for ingest.receive.tls, got null")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load(context, tls)
    if tls.ca:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_tls(tls: TlsSection) -> ssl.SSLContext:
    """Encryption towards a PACS, whose certificate must be of `ingest.tls.ca` or of an authority that the system trusts.

    Raises:
        ConfigurationError: a named file cannot be read.
    """
    context = ssl.create_default_context()
    _load(context, tls)
    return context


def _load(context: ssl.SSLContext, tls: TlsSection) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key, password=lambda: b"")  # never ask at a terminal
        if tls.ca:
            context.load_verify_locations(tls.ca)
    except (OSError, ssl.SSLError):
        raise ConfigurationError(
            "params.yaml ingest.tls: expected PEM files (ca, certificate, key without a passphrase), got some that cannot be read"
        ) from None


def hasten(event: evt.Event) -> None:
    """Have neither side hold back small messages until the other acknowledges: that costs 40 ms for each request.

    Ours go out as they are written (TCP_NODELAY). A peer that does not do likewise waits for us, so we acknowledge at once
    (TCP_QUICKACK, which the system takes back now and then).
    """
    with suppress(OSError, AttributeError):  # the connection may have ended, and not every system has the second
        connection: Any = event.assoc.dul.socket.socket  # type: ignore[union-attr]
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


HASTE: list[evt.EventHandlerType] = [(when, hasten) for when in (evt.EVT_CONN_OPEN, evt.EVT_DATA_SENT, evt.EVT_DATA_RECV)]


def application_entity(title: str, timeout_s: float) -> pynetdicom.AE:
    """One end of an association, with our patience."""
    made = pynetdicom.AE(title)
    made.acse_timeout = made.dimse_timeout = made.network_timeout = made.connection_timeout = timeout_s
    made.maximum_pdu_size = 1 << 17
    return made
