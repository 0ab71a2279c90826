"""prefect.yaml declares what `radtransfer schedule` serves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.utilities.importtools import import_object

from flows import retrain as retraining
from pipelines import versioning, workspace
from pipelines.errors import ConfigurationError
from pipelines.paths import Paths


@pytest.fixture
def deployments(repository: Path) -> dict[str, Any]:
    declared = yaml.safe_load((repository / "prefect.yaml").read_text())
    return {deployment["name"]: deployment for deployment in declared["deployments"]}


@pytest.mark.parametrize("name", ["nightly", "ingest"])
def test_an_entrypoint_is_a_flow_and_its_parameters_are_the_flows(name: str, deployments: dict[str, Any]) -> None:
    deployment = deployments[name]
    flow = import_object(deployment["entrypoint"])
    assert isinstance(flow, Flow)
    assert set(deployment["parameters"]) <= set(flow.parameters.properties)
    flow.validate_parameters(deployment["parameters"])


def test_schedule_serves_the_deployment_that_prefect_yaml_declares(
    deployments: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served: dict[str, Any] = {}
    monkeypatch.setattr(type(retraining.retrain), "serve", lambda self, **settings: served.update(settings, flow=self))
    cron = deployments["nightly"]["schedules"][0]["cron"]
    retraining.serve(Paths(tmp_path), cron)
    assert served["flow"] is import_object(deployments["nightly"]["entrypoint"])
    assert served["cron"] == cron
    assert served["limit"] == deployments["nightly"]["concurrency_limit"] == 1
    assert served["parameters"] == {"workspace": str(tmp_path)}


@pytest.mark.parametrize("cron", ["0", "99 * * * *", "nightly"])
def test_a_schedule_that_is_none_is_refused(cron: str) -> None:
    with pytest.raises(ConfigurationError, match=r'--cron: expected five fields such as "0 2 \* \* \*"'):
        retraining.check_cron(cron)


def scheduled(address: str) -> list[dict[str, Any]]:
    """The flow runs that the server is going to start."""
    question = json.dumps({"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}).encode()
    request = urllib.request.Request(f"{address}/api/flow_runs/filter", question, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        runs: list[dict[str, Any]] = json.load(answer)
    return runs


def test_schedule_runs_on_a_server_of_the_workspaces_own_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    workspace.create(Paths(tmp_path))
    environment = {name: value for name, value in versioning.environment().items() if not name.startswith("PREFECT_")}
    process = subprocess.Popen(
        [Path(sys.executable).parent / "radtransfer", "schedule", "--cron", "0 2 * * *", "--json"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        address = json.loads(process.stdout.readline())["prefect"]
        deadline = time.monotonic() + 300
        while not (runs := scheduled(address)) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert runs, (tmp_path / ".prefect" / "server.log").read_text()[-2000:]
        assert runs[0]["parameters"] == {"workspace": str(tmp_path)}
        assert runs[0]["expected_start_time"][11:16] == "02:00"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out == ""
    finally:
        process.kill()
