from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pipelines.dicom.sources import inbox as module
from pipelines.dicom.sources.inbox import Inbox

UID = "1.2.3.4"


def deliver(inbox: Inbox, content: bytes = b"a file", uid: str = UID) -> str:
    with inbox.arriving() as path:
        path.write_bytes(content)
        return inbox.deliver(path, uid)


def test_a_file_is_named_by_pseudonyms_only(inbox: Inbox) -> None:
    image = deliver(inbox)
    (waiting,) = inbox.waiting()
    assert waiting.image == image == inbox.pseudonyms.uid(UID)
    assert waiting.name == f"{image}.{waiting.content}.dcm"
    assert UID not in waiting.name
    assert (inbox.ready / waiting.name).read_bytes() == b"a file"


def test_only_its_owner_may_look_into_it(inbox: Inbox) -> None:
    deliver(inbox)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [inbox.folder, *inbox.folder.rglob("*")]}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


def test_an_arrival_that_fails_leaves_nothing(inbox: Inbox) -> None:
    def interrupted() -> None:
        with inbox.arriving() as path:
            path.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert inbox.waiting() == []
    assert list(inbox.incoming.iterdir()) == []


def test_a_file_that_was_not_delivered_is_not_waiting(inbox: Inbox) -> None:
    with inbox.arriving() as path:
        path.write_bytes(b"half")
        assert inbox.waiting() == []


def test_the_same_file_twice_waits_once_and_another_of_the_same_image_besides(inbox: Inbox) -> None:
    deliver(inbox)
    deliver(inbox)
    assert len(inbox.waiting()) == 1
    deliver(inbox, b"another")
    assert [file.image for file in inbox.waiting()] == [inbox.pseudonyms.uid(UID)] * 2


def test_what_killed_processes_left_is_swept_away_and_what_is_being_written_is_not(inbox: Inbox) -> None:
    old, new = inbox.incoming / "old.dcm", inbox.incoming / "new.dcm"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    (inbox.incoming / "folder").mkdir()
    inbox.prepare()
    assert sorted(path.name for path in inbox.incoming.iterdir()) == ["folder", "new.dcm"]


def test_a_file_is_on_the_disk_before_the_sender_is_told(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(module, "_flush", lambda path: flushed.append(path))
    deliver(inbox)
    assert [path.parent.name or path.name for path in flushed] == ["incoming", inbox.folder.name]


def test_what_is_not_named_by_us_is_left_alone(inbox: Inbox) -> None:
    (inbox.ready / "notes.txt").write_text("hello")
    (inbox.ready / "plain.dcm").write_text("hello")
    assert inbox.waiting() == []
