"""Servers from the command line: `ingest` without a folder, `receive`, and what `doctor` says of a source."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_dicom import ROOT, radiograph
from orthanc_server import AE, Orthanc, free_port
from typer.testing import CliRunner

from pipelines import __main__, config, doctor, files, workspace
from pipelines.paths import Paths


@pytest.fixture
def paths(paths: Paths) -> Paths:
    files.write_text(paths.params, config.render(config.Config()))
    files.write_text(paths.pipeline, workspace.pipeline_text())
    return paths


def invoke(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(__main__.app, [str(argument) for argument in arguments])
    return result.exit_code, json.loads(result.stdout)


def test_ingest_without_a_folder_asks_the_server_of_params_yaml(pacs: Orthanc, paths: Paths) -> None:
    pacs.store(radiograph(1))
    workspace.create(paths)
    told = ("--set", "ingest.kind=dicomweb", "--set", f"ingest.dicomweb.url={pacs.dicomweb}")
    code, summary = invoke("ingest", "--workspace", paths.workspace, "--json", *told)
    assert (code, summary["ingest"]["fetched"], summary["ingest"]["images"]) == (0, 1, 1)
    assert yaml.safe_load(paths.params.read_text())["ingest"]["kind"] == "dicomweb"
    assert ROOT not in json.dumps(summary)


def test_a_server_that_does_not_answer_ends_with_1_and_says_what_where_and_how_often(paths: Paths) -> None:
    port = free_port()
    settings = ("ingest.kind=dimse", "ingest.dimse.host=127.0.0.1", f"ingest.dimse.port={port}", "ingest.network.back_off_s=0")
    code, error = invoke("ingest", "-w", paths.workspace, "--json", *(part for text in settings for part in ("--set", text)))
    assert (code, error["error"]) == (1, "ServiceError")
    assert f"PACS 127.0.0.1:{port}: expected a connection, it was refused" in error["message"]
    assert "tried 4 times" in error["message"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_receive_listens_until_it_is_stopped_and_says_what_came(orthanc: Orthanc, paths: Paths, number: int) -> None:
    command = [sys.executable, "-m", "pipelines", "receive", "--workspace", str(paths.workspace), "--json"]
    settings = ["--set", f"ingest.receive.port={orthanc.move_port}"]
    with subprocess.Popen([*command, *settings], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "listening as RADTRANSFER at 127.0.0.1:" not in process.stderr.readline():
            assert process.poll() is None
        assert orthanc.push(orthanc.store(radiograph(1))).ok
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out) == {"received": 1, "failed": 0, "refused": 0, "waiting": 1}


def test_a_listener_whose_port_is_taken_ends_with_2(orthanc: Orthanc, paths: Paths) -> None:
    code, error = invoke("receive", "-w", paths.workspace, "--json", "--set", f"ingest.receive.port={orthanc.dicom_port}")
    assert (code, error["error"]) == (2, "ConfigurationError")
    assert "expected a free port" in error["message"]


def said(paths: Paths, **section: Any) -> tuple[str, str]:
    """What doctor finds about a source."""
    paths.params.write_text(config.render(config.Config.model_validate({"ingest": section})))
    (finding,) = doctor._source(paths, [])
    return finding.state, finding.words


def test_doctor_says_whether_the_source_answers(orthanc: Orthanc, paths: Paths, tmp_path: Path) -> None:
    pacs = {"host": "127.0.0.1", "port": orthanc.dicom_port, "called_ae": AE}
    assert said(paths, kind="dimse", dimse=pacs) == ("ok", f"the PACS 127.0.0.1:{orthanc.dicom_port} answers")
    assert said(paths, kind="dicomweb", dicomweb={"url": orthanc.dicomweb})[0] == "ok"
    assert said(paths, source=str(tmp_path)) == ("ok", "the folder can be read")
    assert said(paths, kind="inbox") == ("ok", "0 files wait in the inbox")
    assert said(paths)[0] == "note"
    assert not paths.inbox.exists()


def test_doctor_says_what_is_wrong_with_a_source(orthanc: Orthanc, paths: Paths, tmp_path: Path) -> None:
    nobody = free_port()
    assert said(paths, kind="dicomweb") == (
        "missing",
        "params.yaml ingest.dicomweb.url: expected the address of a DICOMweb server, got null",
    )
    assert said(paths, kind="dicomweb", dicomweb={"url": f"http://127.0.0.1:{nobody}/x"})[1].endswith("tried once")
    assert "called_ae" in said(paths, kind="dimse", dimse={"host": "127.0.0.1", "port": orthanc.dicom_port})[1]
    assert said(paths, source=str(tmp_path / "nothing"))[0] == "missing"
