"""An Orthanc for these tests, and an inbox."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from orthanc_server import Orthanc, Proxy, Relay, proxied, relayed, running

from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.sources.inbox import Inbox
from pipelines.dicom.sources.patience import Patience

HASTY = Patience(timeout_s=5, attempts=3, back_off_s=0.01)


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def pacs(orthanc: Orthanc) -> Orthanc:
    """An Orthanc with nothing in it."""
    orthanc.clear()
    return orthanc


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
