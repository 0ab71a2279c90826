"""prefect.yaml declares what `radtransfer schedule` serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.utilities.importtools import import_object

from flows import retrain as retraining
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
