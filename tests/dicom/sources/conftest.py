"""What stands before an Orthanc and breaks its answers, an inbox, and certificates."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from orthanc_server import Orthanc, Proxy, Relay, proxied, relayed

from pipelines.config_sources import TlsSection
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.sources.inbox import Inbox
from pipelines.dicom.sources.patience import Patience

HASTY = Patience(timeout_s=5, attempts=3, back_off_s=0.01)


@pytest.fixture
def proxy(pacs: Orthanc) -> Iterator[Proxy]:
    with proxied(pacs) as front:
        yield front


@pytest.fixture
def relay(pacs: Orthanc) -> Iterator[Relay]:
    with relayed(pacs.dicom_port) as front:
        yield front


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    made = Inbox(tmp_path / "inbox", Pseudonyms(b"a-key-for-tests-only-0123456789abcdef"))
    made.prepare()
    return made


@pytest.fixture
def hasty() -> Patience:
    return HASTY


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> TlsSection:
    """One self-signed certificate for 127.0.0.1, which is its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=us", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:TRUE"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return TlsSection(ca=str(certificate), certificate=str(certificate), key=str(key))
