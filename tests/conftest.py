"""What every test may ask for."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

# a test run in the background of a script is started with Ctrl-C ignored, and so would be the programs that tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real radiographs and weights; in CI it must be there."""
    folder = Path(os.environ.get("RADTRANSFER_SHARED") or REPOSITORY.parent / "shared")
    if not (folder / "data" / "paediatric_cxr").is_dir():
        message = f"no real radiographs in {folder}; set RADTRANSFER_SHARED"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture
def pseudonym_key(monkeypatch: pytest.MonkeyPatch) -> str:
    key = "a-key-for-tests-only-0123456789abcdef"
    monkeypatch.setenv("RADTRANSFER_PSEUDONYM_KEY", key)
    return key
