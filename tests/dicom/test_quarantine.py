from __future__ import annotations

import csv
import stat
from pathlib import Path

import pytest

from pipelines.dicom import quarantine as module
from pipelines.dicom.quarantine import Quarantine
from pipelines.records import Reason


def listed(folder: Path) -> list[dict[str, str]]:
    with (folder / "quarantine.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "bad").write_bytes(b"bad")
    return folder


def test_a_file_is_copied_into_a_private_folder_and_listed_with_its_reason(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "quarantine"
    Quarantine(folder).add(source, "bad", Reason.TRUNCATED)
    (entry,) = listed(folder)
    assert (entry["original"], entry["reason"]) == ("bad", "truncated")
    assert entry["when"].endswith("+00:00")
    assert (folder / entry["file"]).read_bytes() == b"bad"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / entry["file"]).stat().st_mode) == 0o600


def test_the_same_file_is_set_aside_once(source: Path, tmp_path: Path) -> None:
    for _ in range(2):
        quarantine = Quarantine(tmp_path / "q")
        first, second = (quarantine.add(source, "bad", Reason.TRUNCATED) for _ in range(2))
        assert first == second
    assert len(listed(tmp_path / "q")) == 1
    assert len(list((tmp_path / "q").glob("*.bin"))) == 1


def test_a_copy_in_another_place_is_listed_but_not_copied_again(source: Path, tmp_path: Path) -> None:
    (source / "other").write_bytes(b"bad")
    quarantine = Quarantine(tmp_path / "q")
    assert quarantine.add(source, "bad", Reason.TRUNCATED) == quarantine.add(source, "other", Reason.TRUNCATED)
    assert [entry["original"] for entry in listed(tmp_path / "q")] == ["bad", "other"]
    assert len(list((tmp_path / "q").glob("*.bin"))) == 1


def test_a_name_with_a_newline_stays_one_entry(source: Path, tmp_path: Path) -> None:
    name = 'two\nlines,"quoted"\r\n'
    (source / name).write_bytes(b"x")
    Quarantine(tmp_path / "q").add(source, name, Reason.NOT_DICOM)
    Quarantine(tmp_path / "q").add(source, name, Reason.NOT_DICOM)
    assert [entry["original"] for entry in listed(tmp_path / "q")] == [name]


def test_nothing_is_made_without_a_bad_file(tmp_path: Path) -> None:
    Quarantine(tmp_path / "q")
    assert not (tmp_path / "q").exists()


def test_a_huge_file_is_listed_but_not_copied(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_COPY", 2)
    assert Quarantine(tmp_path / "q").add(source, "bad", Reason.NOT_DICOM) == "bad"
    assert [entry["file"] for entry in listed(tmp_path / "q")] == [""]


def test_a_list_that_was_cut_in_the_middle_of_a_line_goes_on(source: Path, tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q")
    quarantine.add(source, "bad", Reason.NOT_DICOM)
    path = tmp_path / "q" / "quarantine.csv"
    path.write_bytes(path.read_bytes() + b"0123.bin,ba")
    (source / "worse").write_bytes(b"worse")
    Quarantine(tmp_path / "q").add(source, "worse", Reason.TRUNCATED)
    assert [entry["original"] for entry in listed(tmp_path / "q")] == ["bad", "ba", "worse"]
