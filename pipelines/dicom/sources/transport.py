"""pynetdicom's connections, made quick, and bounded against peers that stall, lie about lengths, or come in crowds."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from functools import partial
from socketserver import TCPServer
from typing import Any, cast
from weakref import WeakKeyDictionary

import pynetdicom
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket, ThreadedAssociationServer

from pipelines.dicom.sources.inbox import LARGEST

MOST_CONNECTIONS = 50
LONGEST_PDU = 1 << 20
"""Bytes. We ask for pieces of an eighth of it (PS3.8 D.1), and requests for associations are shorter still."""
LARGEST_ANSWER = 1 << 24
"""Bytes of a message that is held in memory: all but images."""


def application_entity(title: str, timeout_s: float) -> pynetdicom.AE:
    """One end of an association, with our patience."""
    made = pynetdicom.AE(title)
    made.acse_timeout = made.dimse_timeout = made.network_timeout = made.connection_timeout = timeout_s
    made.maximum_pdu_size = 1 << 17
    return made


class StorageServer(ThreadedAssociationServer):
    """pynetdicom's server, but a peer that connects and falls silent, before TLS or in the middle, keeps no other waiting."""

    def get_request(self) -> tuple[Any, Any]:
        client, address = self.socket.accept()  # type: ignore[union-attr]
        client.settimeout(self.ae.network_timeout)
        if self.ssl_context:
            client = self.ssl_context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        return client, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Hang up on a crowd before it costs threads."""
        return len(self.active_associations) < MOST_CONNECTIONS

    def end(self) -> None:
        """Let nobody in any more, and end the associations there are."""
        TCPServer.shutdown(self)
        for association in self.active_associations:
            association.abort()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: socketserver would print the traceback and the peer's address."""


def line_handlers() -> list[evt.EventHandlerType]:
    """What every association is to call, so that it is quick and bounded."""
    sizes = _Sizes()
    return [
        (evt.EVT_CONN_OPEN, _bound),
        *((when, _hasten) for when in (evt.EVT_CONN_OPEN, evt.EVT_DATA_SENT, evt.EVT_DATA_RECV)),
        (evt.EVT_PDU_RECV, sizes.grow),
        (evt.EVT_DIMSE_RECV, sizes.end),
    ]


class _Sizes:
    """How long the message is that each association is receiving; one that grows too long ends its association."""

    def __init__(self) -> None:
        self._bytes: WeakKeyDictionary[Association, int] = WeakKeyDictionary()

    def grow(self, event: evt.Event) -> None:
        size = self._bytes[event.assoc] = self._bytes.get(event.assoc, 0) + event.pdu.pdu_length
        spooled = getattr(event.assoc.dimse.message, "_data_set_file", None)
        if size > (LARGEST if spooled else LARGEST_ANSWER):
            event.assoc.abort()

    def end(self, event: evt.Event) -> None:
        self._bytes.pop(event.assoc, None)


def _bound(event: evt.Event) -> None:
    """Have a connection read by `_receive`."""
    line = event.assoc.dul.socket
    if line is not None:
        line.recv = partial(_receive, line, cast(float, event.assoc.network_timeout))  # type: ignore[method-assign]


def _receive(line: AssociationSocket, within_s: float, amount: int) -> bytearray:
    """Read `amount` bytes, or fewer where the peer hangs up.

    pynetdicom would make room for what the peer announces, up to 4 GiB and before it knows who that is, and would wait for it
    without end.

    Raises:
        OSError: no PDU is that long, or it did not come in time.
    """
    connection: Any = line.socket
    read, deadline = 0, time.monotonic() + within_s
    try:
        if amount > LONGEST_PDU:
            raise ConnectionAbortedError("a PDU longer than any")
        received = bytearray(amount)
        while read < amount:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            count = connection.recv_into(memoryview(received)[read:])
            if not count:
                break
            read += count
        connection.settimeout(within_s)
    except OSError:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # pynetdicom takes it for closed
        raise
    return received[:read]


def _hasten(event: evt.Event) -> None:
    """Have neither side hold back small messages until the other acknowledges: that costs 40 ms for each request.

    Ours go out as they are written (TCP_NODELAY). A peer that does not do likewise waits for us, so we acknowledge at once
    (TCP_QUICKACK, which the system takes back now and then).
    """
    with suppress(OSError, AttributeError):  # the connection may have ended, and not every system has the second
        connection: Any = event.assoc.dul.socket.socket  # type: ignore[union-attr]
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
