"""What a test needs of the machine."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(message: str) -> NoReturn:
    """Skip, saying why; in CI, where nothing may be absent, fail."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
