"""Ingest from servers: a real Orthanc, asked in every way, and pushing by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_dicom import CANARY, ROOT, radiograph, write
from orthanc_server import AE, Orthanc, free_port, proxied
from pydicom import dcmread

from pipelines.config import Config
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.quarantine import name_of
from pipelines.dicom.sources import remote
from pipelines.errors import ConfigurationError, MissingKeyError, ServiceError
from pipelines.ingest_summary import IngestSummary
from pipelines.paths import Paths
from pipelines.stages import ingest, receive

KINDS = ("dicomweb", "get", "move")
HASTY = {"timeout_s": 5, "attempts": 2, "back_off_s": 0}


ELSEWHERE = textwrap.dedent("""
    import json, sys
    from pathlib import Path
    from pipelines.config import Config
    from pipelines.paths import Paths
    from pipelines.stages import ingest
    ingest.run(Config.model_validate(json.loads(sys.argv[1])), Paths(Path(sys.argv[2])))
""")


def settings(pacs: Orthanc, kind: str, **more: Any) -> dict[str, Any]:
    """The ingest section for a kind of source."""
    return {
        "kind": "dicomweb" if kind == "dicomweb" else "inbox" if kind == "inbox" else "dimse",
        "dicomweb": {"url": pacs.dicomweb},
        "dimse": {
            "host": "127.0.0.1",
            "port": pacs.dicom_port,
            "called_ae": AE,
            "retrieve": kind if kind in ("get", "move") else "get",
        },
        "receive": {"port": pacs.move_port},
        "network": HASTY,
        **more,
    }


def run(paths: Paths, section: dict[str, Any], labels: Path | None = None) -> IngestSummary:
    return ingest.run(Config.model_validate({"ingest": section}), paths, labels=labels)


def image(number: int) -> str:
    return Pseudonyms.from_environment().uid(f"{ROOT}.1.{number}")


def held(paths: Paths) -> set[str]:
    return {path.stem for path in paths.dicom.rglob("*.dcm")}


def waiting(paths: Paths) -> list[str]:
    return sorted(path.name for path in paths.inbox.rglob("*.dcm"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_new_on_a_server_joins_the_data_set_and_leaves_the_inbox(paths: Paths, pacs: Orthanc, kind: str) -> None:
    pacs.store(radiograph(1))
    pacs.store(radiograph(2, Modality="DX"))
    pacs.store(radiograph(3, Modality="CT"))
    first = run(paths, settings(pacs, kind))
    assert (first.fetched, first.seen, first.new, first.images) == (2, 0, 2, 2)
    assert held(paths) == {image(1), image(2)}
    assert waiting(paths) == []
    pacs.store(radiograph(4))
    second = run(paths, settings(pacs, kind))
    assert (second.fetched, second.seen, second.new, second.images) == (1, 2, 1, 3)
    third = run(paths, settings(pacs, kind))
    assert (third.fetched, third.seen, third.new, third.found) == (0, 3, 0, 0)
    assert "0 images fetched[/bold], 3 seen before" in third.describe()


@pytest.mark.parametrize("kind", KINDS)
def test_the_query_of_params_yaml_decides_what_is_fetched(paths: Paths, pacs: Orthanc, kind: str) -> None:
    pacs.store(radiograph(1, StudyDate="20240110"))
    pacs.store(radiograph(2, StudyDate="20240110", BodyPartExamined="HAND"))
    pacs.store(radiograph(3, StudyDate="20230110"))
    section = settings(pacs, kind, query={"body_parts": ["CHEST"], "date_from": "20240101", "date_to": "20240131"})
    assert run(paths, section).fetched == 1
    assert held(paths) == {image(1)}


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_used_is_set_aside_once_and_not_fetched_again(paths: Paths, pacs: Orthanc, kind: str) -> None:
    pacs.store(radiograph(1))
    pacs.store(radiograph(2, BurnedInAnnotation="YES"))
    first = run(paths, settings(pacs, kind))
    assert first.quarantined == {"burned_in_annotation": 1}
    assert waiting(paths) == []
    second = run(paths, settings(pacs, kind))
    assert (second.fetched, second.seen) == (0, 2)
    assert json.loads(paths.flow.read_text())["found"] == 2
    third = run(paths, settings(pacs, kind, burned_in="keep"))
    assert (third.fetched, third.new, third.images) == (1, 1, 2)


def test_what_was_set_aside_is_known_to_the_process_of_the_next_night(paths: Paths, pacs: Orthanc) -> None:
    pacs.store(radiograph(1, BurnedInAnnotation="YES"))
    section = settings(pacs, "dicomweb")
    run(paths, section)
    command = [sys.executable, "-c", ELSEWHERE, json.dumps({"ingest": section}), str(paths.workspace)]
    subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": "1"}, check=True, capture_output=True)
    summary = json.loads(paths.ingest_summary.read_text())
    assert (summary["fetched"], summary["seen"]) == (0, 1)


def test_an_image_that_came_from_a_folder_is_not_fetched_from_a_server(paths: Paths, pacs: Orthanc, tmp_path: Path) -> None:
    pacs.store(radiograph(1))
    write(tmp_path / "source" / "a.dcm", radiograph(1))
    ingest.run(Config(), paths, tmp_path / "source")
    assert run(paths, settings(pacs, "dicomweb")).fetched == 0
    assert run(paths, settings(pacs, "get")).fetched == 0


def test_a_data_set_that_lost_an_image_gets_it_back(paths: Paths, pacs: Orthanc) -> None:
    pacs.store(radiograph(1))
    run(paths, settings(pacs, "dicomweb"))
    for path in (*paths.dicom.rglob("*.dcm"), paths.manifest):
        path.unlink()
    assert run(paths, settings(pacs, "dicomweb")).new == 1


def test_labels_join_what_came_from_a_server(paths: Paths, pacs: Orthanc, tmp_path: Path) -> None:
    pacs.store(radiograph(1))
    table = tmp_path / "labels.csv"
    table.write_text(f"SOPInstanceUID,pneumonia\n{ROOT}.1.1,1\n")
    assert run(paths, settings(pacs, "get"), table).labelled == 1


def test_a_folder_named_on_the_command_line_goes_before_the_server(paths: Paths, pacs: Orthanc, tmp_path: Path) -> None:
    pacs.store(radiograph(1))
    write(tmp_path / "source" / "a.dcm", radiograph(2))
    ingest.run(Config.model_validate({"ingest": settings(pacs, "dicomweb")}), paths, tmp_path / "source")
    assert held(paths) == {image(2)}


def test_many_images_come_in_parts(paths: Paths, pacs: Orthanc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.RemoteSource, "part", 2)
    for number in range(1, 6):
        pacs.store(radiograph(number, BurnedInAnnotation="YES" if number == 2 else "NO"))
    summary = run(paths, settings(pacs, "dicomweb"))
    assert (summary.fetched, summary.found, summary.new, summary.quarantined) == (5, 5, 4, {"burned_in_annotation": 1})
    assert held(paths) == {image(number) for number in (1, 3, 4, 5)}


def test_a_server_that_gives_out_ends_the_run_after_what_came_is_taken_in(paths: Paths, pacs: Orthanc) -> None:
    for number in range(1, 4):
        pacs.store(radiograph(number))
    with proxied(pacs) as proxy:

        def give_out(answer: Any) -> None:
            answer.status = 503 if answer.number >= 1 else answer.status

        proxy.faults["/series?"] = give_out
        section = settings(pacs, "dicomweb", dicomweb={"url": proxy.dicomweb})
        with pytest.raises(ServiceError, match="expected an answer, got HTTP status 503; tried 2 times"):
            run(paths, section)
        assert len(held(paths)) == 1
        assert json.loads(paths.ingest_summary.read_text())["images"] == 1
        proxy.faults.clear()
        assert run(paths, section).fetched == 2


def test_an_image_that_a_server_does_not_deliver_is_counted_and_asked_for_again(paths: Paths, pacs: Orthanc) -> None:
    for number in range(1, 4):
        pacs.store(radiograph(number))
    with proxied(pacs) as proxy:
        proxy.faults[f"/instances/{ROOT}.1.2"] = lambda answer: setattr(answer, "cut", 300)
        section = settings(pacs, "dicomweb", dicomweb={"url": proxy.dicomweb})
        summary = run(paths, section)
        assert (summary.fetched, summary.not_delivered) == (2, 1)
        assert "1 not delivered[/yellow] by the server: the next run asks for them again" in summary.describe()
        proxy.faults.clear()
        assert run(paths, section).fetched == 1
    assert len(held(paths)) == 3


@pytest.mark.parametrize("kind", ["dicomweb", "get"])
def test_a_run_that_is_killed_at_any_moment_loses_nothing_and_fetches_nothing_twice(
    paths: Paths, pacs: Orthanc, kind: str
) -> None:
    count = 20
    for number in range(1, count + 1):
        pacs.store(radiograph(number, BurnedInAnnotation="YES" if number % 5 == 0 else "NO"))
    with proxied(pacs) as proxy:
        section = settings(pacs, kind, dicomweb={"url": proxy.dicomweb})
        killed = 0
        for enough in (3, 12):
            started = subprocess.Popen([sys.executable, "-c", ELSEWHERE, json.dumps({"ingest": section}), str(paths.workspace)])
            _await(lambda enough=enough: _here(paths) >= enough or started.poll() is not None)  # noqa: B023
            started.kill()
            killed += started.wait() == -signal.SIGKILL
        here = _here(paths)
        summary = run(paths, section)
        assert (summary.images, summary.fetched, killed > 0) == (16, count - here, True)
        assert run(paths, section).fetched == 0
        fetched = [path for path in proxy.requests if "/instances/" in path]
    assert held(paths) == {image(number) for number in range(1, count + 1) if number % 5}
    assert len(list(paths.quarantine.glob("*.bin"))) == count // 5
    assert waiting(paths) == []
    if kind == "dicomweb":  # each kill may cost the one that was on its way
        assert count <= len(fetched) <= count + 2


def _here(paths: Paths) -> int:
    """How many images have come, wherever on their way they are."""
    ready = list(paths.inbox.glob("ready/*.dcm"))
    let_go = {path.name for path in paths.quarantine.glob("*.bin")} - {name_of(path) for path in ready}
    return len(held(paths) | {path.name.rsplit(".", 2)[0] for path in ready}) + len(let_go)


def _await(condition: Any, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


class Receiving:
    """`radtransfer receive` in a thread."""

    def __init__(self, config: Config, paths: Paths) -> None:
        self.stop, self.ready = threading.Event(), threading.Event()
        self.summary: receive.ReceiveSummary | None = None
        self.thread = threading.Thread(target=self.listen, args=(config, paths))
        self.thread.start()
        assert self.ready.wait(20)

    def listen(self, config: Config, paths: Paths) -> None:
        self.summary = receive.run(config, paths, lambda _: self.ready.set(), self.stop)

    def end(self) -> None:
        self.stop.set()
        self.thread.join()


@pytest.fixture
def receiving(paths: Paths, pacs: Orthanc) -> Iterator[Receiving]:
    started = Receiving(Config.model_validate({"ingest": settings(pacs, "inbox")}), paths)
    yield started
    started.end()


@pytest.mark.usefixtures("receiving")
def test_what_a_pacs_pushes_is_taken_in_by_the_next_ingest(paths: Paths, pacs: Orthanc) -> None:
    names = [pacs.store(radiograph(number, BurnedInAnnotation="YES" if number == 3 else "NO")) for number in (1, 2, 3)]
    assert all(pacs.push(name).ok for name in names)
    assert len(waiting(paths)) == 3
    first = run(paths, settings(pacs, "inbox"))
    assert (first.fetched, first.new, first.quarantined) == (3, 2, {"burned_in_annotation": 1})
    assert waiting(paths) == []
    for name in names:
        pacs.push(name)
    second = run(paths, settings(pacs, "inbox"))
    assert (second.fetched, second.seen, second.found) == (0, 3, 0)
    assert waiting(paths) == []


def test_the_listener_says_what_came(paths: Paths, pacs: Orthanc, receiving: Receiving) -> None:
    pacs.push(pacs.store(radiograph(1)))
    receiving.end()
    assert receiving.summary == receive.ReceiveSummary(received=1, failed=0, refused=0, waiting=1)
    assert "1 images received[/bold]; 1 files wait in the inbox" in receiving.summary.describe()


@pytest.mark.parametrize("kind", ["inbox", "dicomweb"])
def test_the_inbox_must_lie_outside_the_workspace(
    paths: Paths, pacs: Orthanc, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("RADTRANSFER_INBOX", str(paths.workspace / "inbox"))
    with pytest.raises(ConfigurationError, match="RADTRANSFER_INBOX: expected a folder outside the workspace and its git"):
        run(paths, settings(pacs, kind))


def test_the_listener_refuses_another_key_than_that_of_the_data_set(
    paths: Paths, pacs: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    pacs.store(radiograph(1))
    run(paths, settings(pacs, "dicomweb"))
    monkeypatch.setenv("RADTRANSFER_PSEUDONYM_KEY", "another-key-for-tests-0123456789")
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(MissingKeyError, match="expected the key that data/ was made with"):
        receive.run(Config(), paths, lambda _: None, stopped)


@pytest.mark.parametrize("kind", KINDS)
def test_no_identifier_leaves_the_inbox(
    paths: Paths, pacs: Orthanc, kind: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    planted = {"PatientName": CANARY, "PatientID": CANARY, "AccessionNumber": CANARY, "StudyDescription": CANARY}
    pacs.store(radiograph(1, **planted))
    pacs.store(radiograph(2, BurnedInAnnotation="YES", **planted))
    with caplog.at_level("DEBUG"):
        run(paths, settings(pacs, kind))
    said = "".join(capfd.readouterr()) + caplog.text
    written = [path for path in (*paths.workspace.rglob("*"), *paths.inbox.rglob("*")) if path.is_file()]
    for text in (CANARY, ROOT):
        assert text not in said
        assert [path for path in written if text.encode() in path.read_bytes() or text in path.name] == []
    assert {dcmread(path).PatientID[0] for path in paths.dicom.rglob("*.dcm")} == {"p"}
    assert {path.stat().st_mode & 0o077 for path in paths.inbox.rglob("*")} == {0}


def test_nothing_is_connected_or_made_before_it_is_needed(paths: Paths) -> None:
    port = free_port()
    section = {"kind": "dimse", "dimse": {"host": "127.0.0.1", "port": port}, "network": HASTY}
    with pytest.raises(ServiceError, match=f"PACS 127.0.0.1:{port}: expected a connection"):
        run(paths, section)
    assert os.listdir(paths.inbox / "ready") == []  # noqa: PTH208
