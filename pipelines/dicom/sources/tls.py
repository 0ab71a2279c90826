"""Encryption, with certificates always checked, by one set of PEM files: for DICOM in both directions, and for DICOMweb."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.config_sources import TlsSection
from pipelines.errors import ConfigurationError


def server_tls(tls: TlsSection) -> ssl.SSLContext:
    """Encryption for our own port; with an authority named, peers must show a certificate of it (PS3.15 B.9).

    Raises:
        ConfigurationError: no certificate of ours is named, or a named file cannot be read.
    """
    if not tls.certificate:
        raise ConfigurationError("params.yaml ingest.tls.certificate: expected our certificate for ingest.receive.tls, got null")
    with _readable():
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.ca)
        _show_ours(context, tls)
    if tls.ca:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_tls(tls: TlsSection) -> ssl.SSLContext:
    """Encryption towards a server, whose certificate must be of `ingest.tls.ca` or, without, of one that the system trusts.

    Raises:
        ConfigurationError: a named file cannot be read.
    """
    with _readable():
        context = ssl.create_default_context(cafile=tls.ca)
        _show_ours(context, tls)
    return context


def _show_ours(context: ssl.SSLContext, tls: TlsSection) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.certificate:
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: b"")  # never ask at a terminal


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError:  # also ssl.SSLError
        raise ConfigurationError(
            "params.yaml ingest.tls: expected PEM files (ca, certificate, key without a passphrase), got some that cannot be read"
        ) from None
