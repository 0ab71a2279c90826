"""Our own port: a C-STORE SCP (PS3.4 B.2) that a PACS pushes to, of its own accord or because we asked for a C-MOVE."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import cast

from pipelines.config_sources import ReceiveSection, TlsSection
from pipelines.dicom.sources.inbox import Inbox
from pipelines.dicom.sources.quiet import quiet
from pipelines.dicom.sources.spool import spooling
from pipelines.dicom.sources.storage import VERIFICATION, Reception, storage_contexts
from pipelines.dicom.sources.tls import server_tls
from pipelines.dicom.sources.transport import StorageServer, application_entity
from pipelines.errors import ConfigurationError

MOST_ASSOCIATIONS = 10
INTRODUCED_WITHIN_S = 10.0
"""So long a peer that has connected may take to say who it is: until then it counts as one of the associations."""


class Listener:
    """Takes images into the inbox from when it is entered until it is left; the sender of half an image is told that it failed.

    Args:
        section: where to listen, as whom, and whom to let in.
        modalities: what to take; the sender is told at once that anything else is not wanted.
        timeout_s: how long a silent sender is waited for.
    """

    def __init__(
        self, section: ReceiveSection, tls: TlsSection, modalities: tuple[str, ...], timeout_s: float, inbox: Inbox
    ) -> None:
        self.reception = Reception(inbox)
        self._section, self._inbox = section, inbox
        self._tls = server_tls(tls) if section.tls else None
        self._entity = application_entity(section.ae_title, timeout_s)
        self._entity.acse_timeout = min(timeout_s, INTRODUCED_WITHIN_S)
        self._entity.maximum_associations = MOST_ASSOCIATIONS
        self._entity.require_calling_aet = list(section.calling_aes)
        self._entity.supported_contexts = storage_contexts(modalities)
        self._entity.add_supported_context(VERIFICATION)
        self._lifetime = ExitStack()

    def __enter__(self) -> Listener:
        """Start listening.

        Raises:
            ConfigurationError: the port cannot be had.
        """
        with ExitStack() as stack:
            self._inbox.prepare()
            stack.enter_context(quiet())
            stack.enter_context(spooling(self._inbox.incoming))
            server = self._bound()
            threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
            stack.callback(server.end)
            self._lifetime = stack.pop_all()
        return self

    def _bound(self) -> StorageServer:
        address = (self._section.host, self._section.port)
        try:
            return cast(
                StorageServer,
                self._entity.make_server(
                    address, ssl_context=self._tls, evt_handlers=self.reception.handlers, server_class=StorageServer
                ),
            )
        except OSError as error:
            raise ConfigurationError(
                f"params.yaml ingest.receive: expected a free port, {address[0]}:{address[1]} cannot be had ({error.strerror}); "
                "name another, or stop what listens there (ports below 1024 are for root)"
            ) from None

    def __exit__(self, *_: object) -> None:
        self._lifetime.close()
