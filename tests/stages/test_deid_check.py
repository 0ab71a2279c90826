from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import pytest
from made_dicom import CANARY, KEYED, file_bytes, header, radiograph, write
from typer.testing import CliRunner

from pipelines.__main__ import app
from pipelines.dicom.deidentify import Accept, deidentify
from pipelines.dicom.examination import Examined, Fate
from pipelines.errors import SourceError
from pipelines.stages import deid_check


def clean(number: int) -> bytes:
    done = deidentify(BytesIO(radiograph(number)), KEYED, Accept(("CR",)))
    assert done is not None
    return done.content


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clean files, one identified, and a table."""
    write(tmp_path / "a.dcm", clean(1))
    write(tmp_path / "b" / "c.dcm", clean(2))
    write(tmp_path / f"{CANARY}^Erika", radiograph(3, PatientName=f"{CANARY}^Erika"))
    write(tmp_path / "notes.csv", b"name\n" * 100)
    return tmp_path


def test_a_folder_of_ours_passes(folder: Path) -> None:
    summary = deid_check.run(folder / "b", pixels=False)
    assert summary.passed
    assert (summary.files, summary.checked, summary.suspects) == (1, 1, [])


def test_an_identified_file_among_them_is_told_by_position_and_hash(folder: Path) -> None:
    summary = deid_check.run(folder, pixels=False)
    assert not summary.passed
    assert (summary.files, summary.checked, summary.not_dicom, summary.faulty) == (4, 3, 1, 1)
    (suspect,) = summary.suspects
    assert suspect.position == 1  # capitals come first
    assert suspect.path is None
    assert CANARY not in repr(summary)
    assert CANARY not in summary.describe()


def test_paths_are_shown_if_asked_for(folder: Path) -> None:
    summary = deid_check.run(folder, names=True, pixels=False)
    assert summary.suspects[0].path == f"{CANARY}^Erika"
    assert CANARY in summary.describe()


def test_one_file_can_be_checked(folder: Path) -> None:
    assert deid_check.run(folder / "a.dcm", pixels=False).passed


def test_a_folder_without_dicom_proves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "notes.csv", b"name\n")
    assert not deid_check.run(tmp_path).passed


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected a folder or a file, found neither"):
        deid_check.run(tmp_path / CANARY)


def test_links_out_of_the_folder_are_counted_and_left(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside.dcm", radiograph())
    inside = tmp_path / "inside"
    write(inside / "a.dcm", clean(1))
    (inside / "link").symlink_to(outside)
    summary = deid_check.run(inside, pixels=False)
    assert (summary.checked, summary.links_left_out) == (1, 1)


def test_a_file_that_may_not_be_opened_fails_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.dcm", clean(1))
    write(tmp_path / "b.dcm", clean(2))
    fates = iter([Examined(Fate.EXAMINED), Examined(Fate.UNREADABLE)])
    monkeypatch.setattr(deid_check, "examine_files", lambda paths, pixels: fates)
    summary = deid_check.run(tmp_path, pixels=False)
    assert (summary.checked, summary.unreadable) == (1, 1)
    assert not summary.passed


def test_a_report_is_looked_into(tmp_path: Path) -> None:
    write(tmp_path / "report", file_bytes(header(Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")))
    assert deid_check.run(tmp_path).faulty == 1


@pytest.mark.parametrize(("which", "code"), [("b", 0), ("", 1), ("nowhere", 2)])
def test_the_exit_code_says_whether_anything_was_found(folder: Path, which: str, code: int) -> None:
    done = CliRunner().invoke(app, ["deid-check", str(folder / which), "--no-pixels", "--json"])
    assert done.exit_code == code
    printed = json.loads(done.stdout)
    assert CANARY not in done.stdout
    if code == 1:
        assert printed["faulty"] == 1
        assert "PatientName" in {one["where"] for one in printed["suspects"][0]["findings"]}
