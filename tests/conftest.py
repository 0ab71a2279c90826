"""What every test may ask for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prerequisites import absent

from pipelines.paths import Paths

if TYPE_CHECKING:
    from orthanc_server import Orthanc

REPOSITORY = Path(__file__).parents[1]

# a test run in the background of a script is started with Ctrl-C ignored, and so would be the programs that tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)

# several tests run at once, and threads that wait for one another on a busy core cost more than they give
for _library in ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
    os.environ.setdefault(_library, "1")

# where several workers share the files, these come first, longest first, so that none of them is left for one worker at the end
LONG = (
    "test_end_to_end.py",
    "test_real_radiographs.py",
    "test_tracking.py",
    "test_workspace.py",
    "test_deployments.py",
    "test_retrain.py",
    "test_compare_flow.py",
    "test_ingest_hostile.py",
    "test_docker.py",
    "test_isolation.py",
    "test_ingest_sources.py",
    "test_source_commands.py",
    "test_ingest_flow.py",
    "test_ingest_again.py",
    "test_ingest.py",
    "test_train.py",
    "test_compare.py",
    "test_prepare.py",
    "test_check.py",
    "test_workers.py",
    "test_register.py",
    "test_cli.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real radiographs and weights; in CI it must be there."""
    folder = Path(os.environ.get("RADTRANSFER_SHARED") or REPOSITORY.parent / "shared")
    if not (folder / "data" / "paediatric_cxr").is_dir():
        absent(f"no real radiographs in {folder}; set RADTRANSFER_SHARED")
    return folder


@pytest.fixture
def pseudonym_key(monkeypatch: pytest.MonkeyPatch) -> str:
    key = "a-key-for-tests-only-0123456789abcdef"
    monkeypatch.setenv("RADTRANSFER_PSEUDONYM_KEY", key)
    return key


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pseudonym_key: str) -> Paths:
    """An empty workspace, a pseudonym key, and a quarantine and an inbox beside them."""
    monkeypatch.setenv("RADTRANSFER_QUARANTINE", str(tmp_path / "quarantine"))
    monkeypatch.setenv("RADTRANSFER_INBOX", str(tmp_path / "inbox"))
    (tmp_path / "workspace").mkdir()
    return Paths(tmp_path / "workspace")


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    from orthanc_server import running

    with running(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def pacs(orthanc: Orthanc) -> Orthanc:
    """An Orthanc with nothing in it."""
    orthanc.clear()
    return orthanc
