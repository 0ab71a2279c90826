from __future__ import annotations

from pathlib import Path

import pytest
from made_dicom import radiograph
from orthanc_server import running

from flows.ingest import ingest
from pipelines import workspace
from pipelines.paths import Paths


def test_the_nightly_ingest_asks_the_configured_server_for_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pseudonym_key: str
) -> None:
    monkeypatch.setenv("RADTRANSFER_QUARANTINE", str(tmp_path / "quarantine"))
    monkeypatch.setenv("RADTRANSFER_INBOX", str(tmp_path / "inbox"))
    paths = Paths(tmp_path / "ws")
    with running(tmp_path / "orthanc") as orthanc:
        workspace.create(paths, overrides=["ingest.kind=dicomweb", f"ingest.dicomweb.url={orthanc.dicomweb}"])
        orthanc.store(radiograph(1))
        first = ingest(str(paths.workspace))
        assert len(list(paths.dicom.rglob("*.dcm"))) == 1
        second = ingest(str(paths.workspace))
        orthanc.store(radiograph(2))
        third = ingest(str(paths.workspace))
    assert first.data_hash == second.data_hash != third.data_hash
    assert len(list(paths.dicom.rglob("*.dcm"))) == 2
