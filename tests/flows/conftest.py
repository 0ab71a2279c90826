from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import config, files
from pipelines.paths import Paths


@pytest.fixture(scope="package", autouse=True)
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One temporary Prefect database for all flow tests."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_HOME, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        temporary_settings({PREFECT_HOME: tmp_path_factory.mktemp("prefect"), PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
        prefect_test_harness(server_startup_timeout=300),
    ):
        yield


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A workspace whose stages have run."""
    paths = Paths(tmp_path / "ws")
    files.write_text(paths.params, config.render(config.Config()))
    quality = {"passed": True, "images": 60, "expectations": [{"name": "few views", "severity": "warning", "passed": False}]}
    files.write_json(paths.quality_result, quality)
    files.write_json(paths.metrics, {"macro": {"auroc": {"value": 0.9, "low": 0.8, "high": None}}})
    files.write_text(paths.packet, "<html></html>")
    return paths
