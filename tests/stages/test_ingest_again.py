"""A second ingest looks at times and sizes, not into files, and is right all the same."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_dicom import CANARY, file_bytes, gradient, header, radiograph, with_pixels, write
from opened_files import opened

from pipelines.config import Config
from pipelines.dicom import intake
from pipelines.ingest_summary import IngestSummary
from pipelines.paths import Paths
from pipelines.stages import ingest

HOUR = 3600


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two images, a copy of one, one of the same name, a DICOMDIR's worth of nothing, and two that are set aside."""
    folder = tmp_path / "source"
    write(folder / "a" / "IM1", radiograph(1))
    write(folder / "b", radiograph(2, PatientID=""))
    write(folder / "copy", radiograph(1))
    write(folder / "rival", file_bytes(with_pixels(header(1), gradient(seed=99))))
    write(folder / "ct", radiograph(3, Modality="CT"))
    write(folder / "notes.txt", b"not a radiograph")
    return aged(folder)


def aged(folder: Path, seconds: float = HOUR) -> Path:
    """As it would be found some time after the files were written."""
    then = time.time() - seconds
    for path in folder.rglob("*"):
        os.utime(path, (then, then))
    return folder


def run(paths: Paths, source: Path, labels: str | None = None, **options: Any) -> IngestSummary:
    table = None
    if labels is not None:
        table = source.parent / "labels.csv"
        table.write_text(labels)
    config = Config.model_validate({"ingest": {"burned_in": "keep", **options}})
    return ingest.run(config, paths, source, table)


def again(paths: Paths, source: Path, **options: Any) -> tuple[IngestSummary, set[str]]:
    """Ingest, and which files were opened for it."""
    with opened(source) as names:
        summary = run(paths, source, **options)
    return summary, set(names)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def counted(summary: IngestSummary) -> dict[str, Any]:
    names = ("found", "images", "not_dicom", "quarantined", "without_patient_id", "labelled", "unmatched")
    return {name: getattr(summary, name) for name in names} | {"there": summary.new + summary.already}


def test_a_second_ingest_opens_no_file_and_says_the_same(paths: Paths, source: Path) -> None:
    table = "file,pneumonia\nIM1,1\nb,0\n"
    with opened(source) as names:
        first = run(paths, source, table)
    assert set(names) == {"IM1", "b", "copy", "rival", "ct", "notes.txt"}
    before = snapshot(paths.data)
    with opened(source) as names:
        second = run(paths, source, table)
    assert names == []
    assert (first.new, second.new, second.already) == (2, 0, 3)
    assert counted(second) == counted(first)
    assert second.quarantined == {"modality_not_allowed": 1, "same_sop_instance_uid_different_image": 1}
    assert snapshot(paths.data) == before


def test_labels_by_file_name_reach_images_whose_files_are_not_opened(paths: Paths, source: Path) -> None:
    run(paths, source)
    with opened(source) as names:
        summary = run(paths, source, "file,pneumonia\na/IM1,1\nb,0\nmissing,1\n")
    assert names == []
    assert (summary.labelled, summary.unmatched_lines) == (2, [4])
    assert sorted(pd.read_parquet(paths.labels)["pneumonia"]) == [0.0, 1.0]


def test_only_what_is_new_or_changed_is_opened(paths: Paths, source: Path) -> None:
    run(paths, source)
    write(source / "b", radiograph(4))
    write(source / "new", radiograph(5))
    summary, names = again(paths, source)
    assert (summary.new, summary.images, names) == (2, 4, {"b", "new"})


def test_another_file_with_the_same_size_and_time_is_read(paths: Paths, source: Path) -> None:
    run(paths, source)
    was = (source / "b").stat()
    write(source / "elsewhere", radiograph(6, PatientID="")).replace(source / "b")
    os.utime(source / "b", ns=(was.st_atime_ns, was.st_mtime_ns))
    assert (source / "b").stat().st_size == was.st_size
    summary, names = again(paths, source)
    assert (summary.new, names) == (1, {"b"})


def test_a_file_that_was_written_a_moment_ago_is_not_trusted_to_be_as_it_was(paths: Paths, source: Path) -> None:
    aged(source, 0)
    run(paths, source)
    _, names = again(paths, aged(source))
    assert len(names) == 6
    assert again(paths, source)[1] == set()


def test_what_the_data_set_lost_is_read_again(paths: Paths, source: Path) -> None:
    run(paths, source)
    before = snapshot(paths.data)
    shutil.rmtree(paths.data)
    summary, names = again(paths, source)
    assert (summary.new, len(names)) == (2, 6)
    assert snapshot(paths.data) == before


def test_what_an_earlier_version_of_the_data_set_lacks_is_read_again(paths: Paths, source: Path) -> None:
    run(paths, source)
    before = snapshot(paths.data)
    table = pd.read_parquet(paths.manifest)
    without = table[table["image"] != table["image"][0]]
    without.to_parquet(paths.manifest, index=False)
    (paths.data / table["file"][0]).unlink()
    assert again(paths, source)[0].new == 1
    assert snapshot(paths.dicom) == {name[6:]: content for name, content in before.items() if name.startswith("dicom/")}


def test_a_damaged_file_of_the_data_set_is_made_again(paths: Paths, source: Path) -> None:
    run(paths, source)
    before = snapshot(paths.data)
    damaged = paths.data / pd.read_parquet(paths.manifest)["file"][0]
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-20])
    assert run(paths, source).new == 1
    assert snapshot(paths.data) == before


@pytest.mark.parametrize(
    "options", [{"modalities": ["CR", "CT"]}, {"burned_in": "quarantine"}, {"deidentification": {"modified_dates": False}}]
)
def test_other_settings_have_everything_read_again(paths: Paths, source: Path, options: dict[str, Any]) -> None:
    run(paths, source)
    summary, names = again(paths, source, **options)
    assert len(names) == 6
    assert summary.new == ("modalities" in options)
    assert again(paths, source, **options)[1] == set()


def test_another_version_has_everything_read_again(paths: Paths, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(paths, source)
    monkeypatch.setattr("pipelines.dicom.unchanged._version", lambda: "another")
    assert len(again(paths, source)[1]) == 6


def test_what_was_taken_out_of_the_quarantine_is_set_aside_again(paths: Paths, source: Path) -> None:
    run(paths, source)
    (copy,) = [path for path in paths.quarantine.glob("*.bin") if path.read_bytes().startswith(b"not a")]
    copy.unlink()
    assert again(paths, source)[1] == {"notes.txt"}
    assert copy.exists()
    shutil.rmtree(paths.quarantine)
    assert len(again(paths, source)[1]) == 6
    assert len(list(paths.quarantine.glob("*.bin"))) == 3


def test_a_damaged_table_costs_reading_and_nothing_else(paths: Paths, source: Path) -> None:
    first = run(paths, source)
    paths.unchanged.write_bytes(b"damaged" * 1000)
    second, names = again(paths, source)
    assert (len(names), counted(second)) == (6, counted(first))
    assert again(paths, source)[1] == set()


def test_a_table_that_cannot_be_written_costs_reading_and_nothing_else(
    paths: Paths, source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (source / "ct").unlink()
    (source / "rival").unlink()
    (source / "notes.txt").unlink()
    paths.unchanged.mkdir(parents=True)
    summary = run(paths, source)
    assert (summary.new, summary.already) == (2, 1)
    assert "what was read cannot be remembered" in caplog.text
    assert again(paths, source)[1] == {"IM1", "b", "copy"}


def test_a_table_of_another_version_is_made_anew(paths: Paths, source: Path) -> None:
    first = run(paths, source)
    with sqlite3.connect(paths.unchanged) as table:
        table.execute("DROP TABLE file")
        table.execute("CREATE TABLE file (something TEXT)")
        table.execute("UPDATE settings SET value = 'earlier'")
    second, names = again(paths, source)
    assert (len(names), counted(second)) == (6, counted(first))
    assert again(paths, source)[1] == set()


def test_files_that_are_gone_are_forgotten(paths: Paths, source: Path) -> None:
    run(paths, source)
    content = (source / "b").read_bytes()
    was = (source / "b").stat()
    (source / "b").rename(source.parent / "kept")
    assert run(paths, source).found == 5
    (source.parent / "kept").rename(source / "b")
    assert (source / "b").stat().st_mtime_ns == was.st_mtime_ns
    assert (source / "b").read_bytes() == content
    assert again(paths, source)[1] == {"b"}


def test_two_sources_are_told_apart(paths: Paths, source: Path, tmp_path: Path) -> None:
    run(paths, source)
    write(tmp_path / "more" / "b", radiograph(7))
    aged(tmp_path / "more")
    assert again(paths, tmp_path / "more")[1] == {"b"}
    assert again(paths, tmp_path / "more")[1] == set()
    assert again(paths, source)[1] == set()


def test_the_table_is_private_and_names_nothing(paths: Paths, tmp_path: Path) -> None:
    folder = tmp_path / f"{CANARY}-folder"
    write(folder / CANARY / f"{CANARY}.dcm", radiograph(1, PatientID=CANARY, AccessionNumber=CANARY))
    write(folder / f"{CANARY}.txt", CANARY.encode())
    run(paths, aged(folder))
    assert paths.unchanged.is_relative_to(paths.quarantine)
    assert paths.unchanged.stat().st_mode & 0o777 == 0o600
    content = paths.unchanged.read_bytes()
    assert len(content) > 1000
    assert CANARY.encode() not in content
    assert b"1.2.826.0.1.3680043" not in content


KILLED = """
    import sys
    from pathlib import Path
    from pipelines.config import Config
    from pipelines.dicom import intake
    from pipelines.paths import Paths
    from pipelines.stages import ingest

    intake._NOTES_AT_ONCE = 2
    real = intake.Recalling.note
    noted = []

    def note(*arguments):
        real(*arguments)
        noted.append(1)
        if len(noted) == 7:
            print("now", flush=True)
            while True:
                pass

    intake.Recalling.note = note
    config = Config.model_validate({"ingest": {"burned_in": "keep"}})
    ingest.run(config, Paths(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def test_what_a_killed_ingest_settled_is_not_opened_again_and_nothing_is_lost(paths: Paths, source: Path, tmp_path: Path) -> None:
    for number in range(60, 70):
        write(source / f"{number}", radiograph(number))
    aged(source)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(paths.workspace), str(source)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"now\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # Nobody counted yet what was done to the images that the killed ingest brought, so those are read once more.
    summary, _ = again(paths, source)
    assert (summary.found, summary.images, summary.quarantined) == (
        16,
        12,
        {"modality_not_allowed": 1, "same_sop_instance_uid_different_image": 1},
    )
    assert again(paths, source)[1] == set()
    (tmp_path / "other").mkdir()
    run(Paths(tmp_path / "other"), source)
    assert snapshot(paths.data) == snapshot(tmp_path / "other" / "data")


def test_notes_are_written_along_the_way(paths: Paths, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_NOTES_AT_ONCE", 1)
    run(paths, source)
    assert again(paths, source)[1] == set()
