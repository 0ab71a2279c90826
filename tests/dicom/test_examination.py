"""A file that crashes or hangs the audit is a finding, and the others are seen."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from made_dicom import radiograph, write

from pipelines.dicom import examination
from pipelines.dicom.audit import Finding, Why, audit
from pipelines.dicom.examination import Examined, Fate, examine, examine_files

CANNOT_READ = (Finding("file", Why.CANNOT_READ.value),)


def hostile(stream: BinaryIO) -> tuple[Finding, ...]:
    """An audit that some files crash or hang."""
    content = stream.read()
    if content == b"crash":
        ctypes.string_at(0)
    while content == b"hang":
        pass
    return ()


def start_hostile(_pixels: bool) -> None:
    examination._look = hostile


def test_a_file_that_crashes_or_hangs_the_audit_is_a_finding_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "_start", start_hostile)
    monkeypatch.setattr(examination, "SECONDS", 1)
    contents = [b"one", b"crash", b"two", b"hang", b"three"]
    paths = [write(tmp_path / str(number), content) for number, content in enumerate(contents)]
    started = time.monotonic()
    found = list(examine_files(paths, pixels=False))
    assert [one.findings for one in found] == [(), CANNOT_READ, (), CANNOT_READ, ()]
    assert [len(one.digits) for one in found] == [12, 0, 12, 0, 12]
    assert time.monotonic() - started < 60


def test_many_files_come_back_in_order(tmp_path: Path) -> None:
    paths = [write(tmp_path / str(number), radiograph(number) if number % 3 else b"text") for number in range(40)]
    found = list(examine_files(paths, pixels=False))
    assert [one.fate for one in found] == [Fate.EXAMINED if number % 3 else Fate.NOT_DICOM for number in range(40)]
    assert all(bool(one.findings) is (one.fate is Fate.EXAMINED) for one in found)
    assert list(examine_files([], pixels=False)) == []


def test_a_file_that_may_not_be_opened_is_told_apart(tmp_path: Path) -> None:
    assert examine(tmp_path / "nothing", audit) == Examined(Fate.UNREADABLE)


def test_a_file_larger_than_any_radiograph_is_a_finding_and_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "LARGEST_COPY", 100)
    found = [examine(write(tmp_path / name, content), pytest.fail) for name, content in FILES.items()]
    assert [(one.fate, one.findings) for one in found] == [(Fate.EXAMINED, CANNOT_READ)] * 2 + [(Fate.NOT_DICOM, ())]


FILES: dict[str, Any] = {"a.dcm": radiograph(), "cut off.dcm": radiograph()[:300], "b.avi": bytes(5000)}


def test_whatever_goes_wrong_in_the_audit_is_a_finding(tmp_path: Path) -> None:
    def failing(_stream: BinaryIO) -> tuple[Finding, ...]:
        raise ZeroDivisionError

    found = examine(write(tmp_path / "a.dcm", radiograph()), failing)
    assert (found.fate, found.findings) == (Fate.EXAMINED, CANNOT_READ)
