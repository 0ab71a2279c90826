from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from made_dicom import CANARY, ROOT, ROWS, file_bytes, gradient, header, radiograph, with_pixels, write
from pydicom import Dataset, dcmread
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from pipelines.config import Config
from pipelines.dicom import workers
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.errors import ConfigurationError, LabelError, MissingInputError, MissingKeyError, SourceError, WeightsError
from pipelines.ingest_summary import IngestSummary
from pipelines.paths import Paths
from pipelines.records import MANIFEST
from pipelines.stages import ingest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three good files of two patients."""
    folder = tmp_path / "source"
    write(folder / "a" / "IM1", radiograph(1))
    write(folder / "a" / "IM2.dcm", radiograph(2, syntax=JPEGBaseline8Bit, PatientID="MRN1"))
    write(folder / "b.dcm", radiograph(3, syntax=ImplicitVRLittleEndian, bits=12))
    return folder


def config(**sections: dict[str, Any]) -> Config:
    return Config.model_validate(sections)


def run(paths: Paths, source: Path, labels: str | None = None, **sections: dict[str, Any]) -> IngestSummary:
    table = None
    if labels is not None:
        table = source.parent / "labels.csv"
        table.write_text(labels)
    return ingest.run(config(**sections), paths, source, table)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def manifest(paths: Paths) -> pd.DataFrame:
    return pd.read_parquet(paths.manifest)


def labels(paths: Paths, column: str = "pneumonia") -> dict[str, Any]:
    table = pd.read_parquet(paths.labels)
    return dict(zip(table["image"], table[column], strict=True))


def image(number: int) -> str:
    return Pseudonyms.from_environment().uid(f"{ROOT}.1.{number}")


def quarantined(paths: Paths) -> dict[str, str]:
    with (paths.quarantine / "quarantine.csv").open(newline="") as stream:
        return {row["original"]: row["reason"] for row in csv.DictReader(stream)}


def test_a_folder_becomes_a_data_set(paths: Paths, source: Path) -> None:
    summary = run(paths, source)
    assert (summary.found, summary.new, summary.images, summary.studies, summary.patients) == (3, 3, 3, 3, 2)
    table = manifest(paths)
    assert list(table.columns) == list(MANIFEST)
    assert list(table["image"]) == sorted(table["image"])
    assert {str(path.relative_to(paths.data)) for path in paths.dicom.rglob("*.dcm")} == set(table["file"])
    for row in table.itertuples():
        assert row.file == f"dicom/{row.patient}/{row.image}.dcm"
        assert dcmread(paths.data / row.file).SOPInstanceUID == row.image
    assert {(row.modality, row.view, row.body_part, row.manufacturer) for row in table.itertuples()} == {
        ("CR", "PA", "CHEST", "Agfa")
    }
    assert sorted(table["bits_stored"]) == [8, 8, 12]
    assert json.loads(paths.flow.read_text())["found"] == 3


def test_a_second_ingest_adds_and_rewrites_nothing(paths: Paths, source: Path) -> None:
    run(paths, source, "file,pneumonia\nIM1,1\nIM2,0\n")
    before = snapshot(paths.data)
    times = {path: path.stat().st_mtime_ns for path in paths.dicom.rglob("*.dcm")}
    summary = run(paths, source, "file,pneumonia\nIM1,1\nIM2,0\n")
    assert (summary.new, summary.already, summary.new_studies, summary.new_patients) == (0, 3, 0, 0)
    assert snapshot(paths.data) == before
    assert {path: path.stat().st_mtime_ns for path in paths.dicom.rglob("*.dcm")} == times


def test_only_what_is_new_is_added(paths: Paths, source: Path) -> None:
    run(paths, source)
    before = snapshot(paths.dicom)
    write(source / "new", radiograph(4))
    summary = run(paths, source)
    assert (summary.new, summary.already, summary.new_studies, summary.new_patients, summary.images) == (1, 3, 1, 1, 4)
    after = snapshot(paths.dicom)
    assert {name: after[name] for name in before} == before


def test_the_same_source_gives_the_same_bytes_in_another_workspace(paths: Paths, source: Path, tmp_path: Path) -> None:
    write(source / "bad", b"bad")
    table = "file,pneumonia\nIM1,1\nIM2,0\n"
    run(paths, source, table)
    (tmp_path / "other").mkdir()
    run(Paths(tmp_path / "other"), source, table)
    assert snapshot(tmp_path / "other" / "data") == snapshot(paths.data)


BAD: dict[str, tuple[bytes, str]] = {
    "notes.txt": (b"not a radiograph", "not_dicom"),
    "empty": (b"", "not_dicom"),
    "cut.dcm": (radiograph(10)[:-40], "truncated"),
    "cut-header": (radiograph(11)[:500], "truncated"),
    "cut-jpeg": (radiograph(12, syntax=JPEGBaseline8Bit)[:-30], "truncated"),
    "cut-j2k": (radiograph(13, syntax=JPEG2000Lossless)[:-30], "truncated"),
    "report": (file_bytes(header(14)), "no_pixel_data"),
    "ct": (radiograph(15, Modality="CT"), "modality_not_allowed"),
    "frames": (radiograph(16, NumberOfFrames=3), "multi_frame"),
    "colour": (radiograph(17, SamplesPerPixel=3, PhotometricInterpretation="RGB"), "not_grayscale"),
    "nothing": (radiograph(18, Rows=0), "absurd_size"),
    "huge": (radiograph(19, Rows=65535, Columns=65535), "absurd_size"),
    "mpeg": (radiograph(20).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.5.22\0"), "transfer_syntax_unsupported"),
    "nameless": (radiograph(21, SOPInstanceUID=None), "missing_sop_instance_uid"),
    "burned": (radiograph(22, BurnedInAnnotation="YES"), "burned_in_annotation"),
    "bits": (radiograph(23, BitsStored=12), "inconsistent_bit_depth"),
}


def test_bad_files_are_set_aside_with_their_reason_and_the_others_go_on(paths: Paths, source: Path) -> None:
    for name, (content, _) in BAD.items():
        write(source / "bad" / name, content)
    summary = run(paths, source)
    assert quarantined(paths) == {f"bad/{name}": reason for name, (_, reason) in BAD.items()}
    assert summary.new == 3
    assert summary.found == 3 + len(BAD) == summary.new + summary.not_dicom + sum(summary.quarantined.values())
    assert (summary.not_dicom, summary.quarantined["truncated"]) == (2, 4)
    copies = {path.read_bytes() for path in paths.quarantine.glob("*.bin")}
    assert copies == {content for content, _ in BAD.values()}
    assert stat.S_IMODE(paths.quarantine.stat().st_mode) == 0o700
    assert "16 set aside[/yellow]: not_dicom 2, absurd_size 2" in summary.describe()


def test_the_flow_counts_every_file_once_over_all_ingests(paths: Paths, source: Path, tmp_path: Path) -> None:
    write(source / "bad", b"bad")
    run(paths, source)
    run(paths, source)
    write(tmp_path / "more" / "IM9", radiograph(9))
    write(tmp_path / "more" / "burned", radiograph(22, BurnedInAnnotation="YES"))
    run(paths, tmp_path / "more")
    flow = json.loads(paths.flow.read_text())
    assert (flow["found"], flow["images"]) == (6, 4)
    assert flow["set_aside"] == {"not_dicom": 1, "burned_in_annotation": 1}
    assert (flow["not_dicom"], flow["quarantined"]) == (1, {"burned_in_annotation": 1})


def test_what_was_set_aside_comes_in_once_the_configuration_wants_it(paths: Paths, source: Path) -> None:
    write(source / "burned", radiograph(22, BurnedInAnnotation="YES"))
    assert run(paths, source).quarantined == {"burned_in_annotation": 1}
    summary = run(paths, source, ingest={"burned_in": "keep"})
    assert (summary.new, summary.quarantined) == (1, {})
    assert json.loads(paths.flow.read_text())["set_aside"] == {}


def test_text_in_the_pixels_is_blanked_and_counted(paths: Paths, source: Path) -> None:
    ink = cv2.putText(np.zeros((120, 300), np.uint8), "ZEBRA CANARY", (20, 60), cv2.FONT_HERSHEY_SIMPLEX, 1, (200,), 2)
    named = with_pixels(header(22), ink + np.uint8(40))
    write(source / "named", file_bytes(named))
    summary = run(paths, source)
    assert (summary.new, summary.blanked, summary.searched) == (4, 1, True)
    assert "text in the pixels of 1 new images blanked" in summary.describe()
    held = {dcmread(path).Rows: dcmread(path) for path in paths.dicom.rglob("*.dcm")}
    assert (held[120].pixel_array == 40).all()
    account = json.loads(paths.deidentification.read_text())["treated"]
    assert [entry["replaced"].get("PixelData") for entry in account] == [1]
    assert "113101" in [code["code"] for code in account[0]["method_codes"]]
    assert run(paths, source).blanked == 0


def test_text_in_the_pixels_is_left_where_the_configuration_says_so(paths: Paths, source: Path) -> None:
    summary = run(paths, source, ingest={"burned_in": "quarantine"})
    assert (summary.blanked, summary.searched) == (0, False)
    assert "noticed only where the header says so" in summary.describe()


def test_without_the_models_nothing_is_ingested(paths: Paths, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(WeightsError, match="pip install rapidocr"):
        run(paths, source)
    assert not paths.manifest.exists()


def test_other_modalities_come_in_where_the_configuration_says_so(paths: Paths, source: Path) -> None:
    write(source / "mammogram", radiograph(30, Modality="MG"))
    assert run(paths, source, ingest={"modalities": ["mg", "CR"]}).new == 4


def test_a_dicomdir_is_counted_and_ignored(paths: Paths, source: Path) -> None:
    directory = Dataset()
    directory.FileSetID = "DISC"
    content = file_bytes(directory).replace(b"1.2.840.10008.5.1.4.1.1.1\0", b"1.2.840.10008.1.3.10\0\0\0\0\0\0")
    write(source / "DICOMDIR", content)
    summary = run(paths, source)
    assert (summary.found, summary.new, summary.dicomdirs, summary.not_dicom) == (4, 3, 1, 0)


def test_a_copy_of_an_image_is_taken_once(paths: Paths, source: Path) -> None:
    shutil.copy(source / "b.dcm", source / "zz")
    summary = run(paths, source)
    assert (summary.new, summary.already, summary.images) == (3, 1, 3)


def test_of_two_images_with_one_uid_the_first_by_path_wins(paths: Paths, source: Path) -> None:
    other = file_bytes(with_pixels(header(1), gradient(seed=99)))
    write(source / "a" / "IM0", other)
    summary = run(paths, source)
    assert summary.quarantined == {"same_sop_instance_uid_different_image": 1}
    assert quarantined(paths) == {"a/IM1": "same_sop_instance_uid_different_image"}
    row = manifest(paths).set_index("image").loc[image(1)]
    assert dcmread(paths.data / row["file"]).PixelData == gradient(seed=99).tobytes()


def test_an_image_of_the_data_set_wins_over_another_one_with_its_uid(paths: Paths, source: Path, tmp_path: Path) -> None:
    run(paths, source)
    before = snapshot(paths.dicom)
    write(tmp_path / "more" / "a", file_bytes(with_pixels(header(1), gradient(seed=99))))
    assert run(paths, tmp_path / "more").quarantined == {"same_sop_instance_uid_different_image": 1}
    assert snapshot(paths.dicom) == before


def test_files_without_a_patient_id_are_grouped_by_study(paths: Paths, source: Path) -> None:
    for number in (40, 41):
        write(source / f"x{number}", radiograph(number, PatientID="", StudyInstanceUID=f"{ROOT}.2.40"))
    summary = run(paths, source)
    assert (summary.without_patient_id, summary.patients) == (2, 3)
    assert "2 files without a PatientID" in summary.describe()


def test_links_that_leave_the_source_are_counted(paths: Paths, source: Path, tmp_path: Path) -> None:
    (source / "out").symlink_to(write(tmp_path / "elsewhere", radiograph(50)))
    summary = run(paths, source)
    assert (summary.new, summary.links_left_out) == (3, 1)


def test_a_workspace_inside_its_source_does_not_take_in_itself(paths: Paths, source: Path, tmp_path: Path) -> None:
    first = ingest.run(config(), paths, tmp_path)
    second = ingest.run(config(), paths, tmp_path)
    assert (first.new, second.new, second.already) == (3, 0, 3)


def test_many_files_are_spread_over_processes_with_the_same_result(
    paths: Paths, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60, 90):
        write(source / f"{number}", radiograph(number))
        write(source / f"{number}-other", file_bytes(with_pixels(header(number), gradient(seed=number + 500))))
    one = run(paths, source)
    monkeypatch.setattr(workers, "cores", lambda: 2)
    (tmp_path / "other").mkdir()
    many = run(Paths(tmp_path / "other"), source)
    assert snapshot(tmp_path / "other" / "data") == snapshot(paths.data)
    assert (many.new, many.quarantined) == (one.new, one.quarantined) == (33, {"same_sop_instance_uid_different_image": 30})


KILLED = """
    import sys
    from pathlib import Path
    from pipelines.config import Config
    from pipelines.dicom import dataset
    from pipelines.paths import Paths
    from pipelines.stages import ingest

    taken = []
    real = dataset.take_over

    def take_over(*arguments):
        real(*arguments)
        taken.append(1)
        if len(taken) == 7:
            print("now", flush=True)
            while True:
                pass

    dataset.take_over = take_over
    ingest.run(Config(), Paths(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def test_a_killed_ingest_goes_on_to_the_same_bytes(paths: Paths, source: Path, tmp_path: Path) -> None:
    for number in range(60, 75):
        write(source / f"{number}", radiograph(number))
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(paths.workspace), str(source)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"now\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(list(paths.dicom.rglob("*.dcm"))) == 7
    assert not paths.manifest.exists()
    summary = run(paths, source)
    assert (summary.new, summary.already, summary.images) == (11, 7, 18)
    (tmp_path / "other").mkdir()
    run(Paths(tmp_path / "other"), source)
    assert snapshot(paths.data) == snapshot(tmp_path / "other" / "data")


def test_images_that_a_killed_ingest_left_are_listed_though_their_source_is_gone(
    paths: Paths, source: Path, tmp_path: Path
) -> None:
    run(paths, source)
    before = paths.manifest.read_bytes()
    paths.manifest.unlink()
    (tmp_path / "empty").mkdir()
    run(paths, tmp_path / "empty")
    assert paths.manifest.read_bytes() == before


def test_a_data_set_with_missing_files_is_not_thinned_out(paths: Paths, source: Path) -> None:
    run(paths, source)
    (paths.data / manifest(paths)["file"][0]).unlink()
    with pytest.raises(MissingInputError, match=r"1 of the 3 files of manifest\.parquet .* `dvc pull`"):
        run(paths, source)


def test_a_damaged_file_of_the_data_set_is_made_again(paths: Paths, source: Path) -> None:
    run(paths, source)
    before = snapshot(paths.data)
    damaged = paths.data / manifest(paths)["file"][0]
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert run(paths, source).new == 1
    assert snapshot(paths.data) == before


def test_another_key_is_refused(paths: Paths, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(paths, source)
    monkeypatch.setenv("RADTRANSFER_PSEUDONYM_KEY", "quite another key, long enough")
    with pytest.raises(MissingKeyError, match=r"expected the key that data/ was made with .* start another workspace"):
        run(paths, source)


def test_without_a_key_nothing_is_written(paths: Paths, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RADTRANSFER_PSEUDONYM_KEY")
    with pytest.raises(MissingKeyError, match="make one with"):
        run(paths, source)
    assert not list(paths.workspace.iterdir())


@pytest.mark.parametrize("place", ["q", "../q"])
def test_a_quarantine_within_the_repository_is_refused(
    place: str, paths: Paths, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (paths.workspace.parent / ".git").mkdir()
    monkeypatch.setenv("RADTRANSFER_QUARANTINE", str(paths.workspace / place))
    with pytest.raises(ConfigurationError, match="RADTRANSFER_QUARANTINE: expected a folder outside the workspace"):
        run(paths, source)


def test_the_source_can_come_from_the_configuration(paths: Paths, source: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"ingest.source: .* `radtransfer ingest SOURCE`"):
        ingest.run(config(), paths)
    assert ingest.run(config(ingest={"source": "../source"}), paths).new == 3
    with pytest.raises(SourceError, match="expected a folder"):
        ingest.run(config(ingest={"source": "../missing"}), paths)


def test_columns_that_are_of_no_task_are_named_with_what_would_take_them(paths: Paths, source: Path) -> None:
    header = "SOPInstanceUID,file,pneumonia,age_years,grade,PatientName,birth_date,StudyDate,DATE,empty,consolidated"
    table = f"{header}\n{ROOT}.1.1,a,1,44,mild,Doe,1970,2020,7,,3\n{ROOT}.1.3,b,0,51,none,Roe,1969,2021,8,,4\n"
    summary = run(paths, source, table)
    assert summary.unused == ("age_years", "grade", "consolidated")
    assert (
        "columns age_years, grade, consolidated of the label table are of no task: to learn them besides, name them in task.also"
        in summary.describe()
    )


@pytest.mark.parametrize(
    "table",
    [
        f"SOPInstanceUID,pneumonia\n{ROOT}.1.1,1\n {ROOT}.1.3 ,0\n{ROOT}.1.77,1\n",
        "AccessionNumber,pneumonia\nACC1,1\nACC3,0\nACC77,1\n",
        "file,pneumonia\na/IM1,1\nb,0\nc/IM1,1\n",
        "file,pneumonia\nsource/a/IM1,1\nb.dcm,0\nIM77.dcm,1\n",
    ],
    ids=["uid", "accession", "file", "path above the source"],
)
def test_labels_are_joined_by_uid_accession_or_file(paths: Paths, source: Path, table: str) -> None:
    summary = run(paths, source, table)
    assert labels(paths) == {image(1): 1.0, image(3): 0.0}
    assert (summary.labelled, summary.unlabelled, summary.unmatched) == (2, 1, 1)
    assert summary.unlabelled_images == [image(2)]
    assert summary.unmatched_lines == [4]
    assert summary.declared == {"kind": "binary", "targets": ["pneumonia"], "classes": []}
    assert summary.unused == ()
    with (paths.quarantine / "unmatched.csv").open(newline="") as stream:
        (entry,) = csv.DictReader(stream)
    assert entry["line"] == "4"
    assert "77" in entry["key"] or entry["key"] == "c/IM1"


def test_a_declared_task_is_kept_and_not_declared_again(paths: Paths, source: Path) -> None:
    task = {"kind": "multiclass", "targets": ["etiology"], "classes": ["none", "viral"]}
    summary = run(paths, source, "file,pneumonia,etiology\nIM1,1,viral\nIM2,0,none\nb,1,\n", task=task)
    assert summary.declared is None
    assert labels(paths, "etiology") == {image(1): "viral", image(2): "none"}
    assert summary.unlabelled_images == [image(3)]


def test_labels_of_earlier_images_follow_the_table(paths: Paths, source: Path, tmp_path: Path) -> None:
    run(paths, source, f"SOPInstanceUID,pneumonia\n{ROOT}.1.1,1\n{ROOT}.1.2,0\n{ROOT}.1.3,1\n")
    task = {"task": {"targets": ["pneumonia"]}}
    write(tmp_path / "more" / "IM4", radiograph(4))
    run(paths, tmp_path / "more", f"SOPInstanceUID,pneumonia\n{ROOT}.1.1,0\n{ROOT}.1.2,\n{ROOT}.1.4,1\n", **task)
    assert labels(paths) == {image(1): 0.0, image(3): 1.0, image(4): 1.0}
    run(paths, tmp_path / "more", **task)
    assert labels(paths) == {image(1): 0.0, image(3): 1.0, image(4): 1.0}


def test_labels_by_file_name_follow_the_table_too(paths: Paths, source: Path) -> None:
    run(paths, source, "file,pneumonia\nIM1,1\n")
    run(paths, source, "file,pneumonia\nIM1,0\nb,1\n")
    assert labels(paths) == {image(1): 0.0, image(3): 1.0}


def test_without_labels_the_table_is_there_and_empty(paths: Paths, source: Path) -> None:
    summary = run(paths, source)
    assert pd.read_parquet(paths.labels).empty
    assert (summary.labelled, summary.unlabelled) == (0, 3)


def test_a_wrong_label_stops_before_any_file_is_touched(paths: Paths, source: Path) -> None:
    with pytest.raises(LabelError, match=r"column pneumonia.* in line 2"):
        run(paths, source, "file,pneumonia\nIM1,7\n", task={"targets": ["pneumonia"]})
    assert not paths.data.exists()


def test_the_label_table_within_the_source_is_no_bad_file(paths: Paths, source: Path) -> None:
    table = write(source / "labels.csv", b"file,pneumonia\nIM1,1\n")
    summary = ingest.run(config(), paths, source, table)
    assert (summary.found, summary.not_dicom) == (3, 0)


TABLE = f'file,pneumonia,name\n"{CANARY}1\n.dcm",1,{CANARY}\n{CANARY}-lost,0,{CANARY}\n'


def test_nothing_identified_is_written_or_said(
    paths: Paths, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / f"{CANARY}-folder"
    hidden = {"PatientID": f"{CANARY}1", "AccessionNumber": f"{CANARY}2", "InstitutionName": f"{CANARY} Clinic"}
    named = {"PatientName": f"{CANARY}^Jane", "Manufacturer": f"{CANARY} Ltd", "ImageComments": CANARY}
    for number in range(70):
        write(folder / CANARY / f"{CANARY}{number}\n.dcm", radiograph(number, **hidden, **named))
    write(folder / f"{CANARY}.txt", CANARY.encode())
    write(folder / f"{CANARY}-cut", radiograph(80, **hidden, **named)[:-60])
    table = write(tmp_path / f"{CANARY}.csv", TABLE.encode())
    summary = ingest.run(config(), paths, folder, table)
    assert summary.new == 70
    assert (summary.labelled, summary.unmatched_lines) == (1, [4])
    said = capfd.readouterr()
    for text in (said.out, said.err, caplog.text, summary.describe(), repr(summary)):
        assert CANARY not in text
    for path in paths.workspace.rglob("*"):
        assert CANARY not in path.name
        assert path.is_dir() or CANARY.encode() not in path.read_bytes()
    assert any(CANARY in name for name in quarantined(paths))


def test_hostile_headers_never_stop_the_others(paths: Paths, source: Path) -> None:
    good = radiograph(5)
    for number in range(132, len(good) - ROWS, 3):
        write(source / "hostile" / f"{number:05d}", good[:number] + bytes([good[number] ^ 0xFF]) + good[number + 1 :])
    started = time.perf_counter()
    summary = run(paths, source)
    assert summary.new >= 3
    assert summary.found == summary.new + summary.already + summary.not_dicom + summary.dicomdirs + sum(
        summary.quarantined.values()
    )
    assert time.perf_counter() - started < 60


SECRET = ("PN", "LO", "SH", "ST", "LT", "UT", "AE", "UI", "UN")
PUBLIC = {"SOPClassUID", "Manufacturer"}


def header_strings(files: list[Path]) -> set[bytes]:
    """Every name, address, number and description in the headers of real files, as it would stand in a file."""
    found: set[str] = set()
    for path in files:
        for element in dcmread(path, stop_before_pixels=True).iterall():
            if element.VR in SECRET and element.keyword not in PUBLIC:
                found |= {part.strip() for part in str(element.value).replace("^", "\\").split("\\")}
    # Short words, and digits in a row, stand in any compressed image or UID by chance.
    long = {text for text in found if len(text) >= (8 if text.isdigit() else 5)}
    return {text.encode() for text in long if text.upper() != "CHEST" and not text.startswith("1.2.840.10008.")}


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "files", "mode"),
    [("paediatric_cxr", 80, "clean"), ("adult_cxr", 60, "quarantine"), ("conformance", 13, "quarantine")],
)
def test_no_header_string_of_real_files_is_found_in_the_workspace(
    shared: Path, paths: Paths, tmp_path: Path, name: str, files: int, mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = sorted((shared / "data" / name).rglob("*.dcm"))[:files]
    for path in chosen:
        target = tmp_path / "source" / path.relative_to(shared / "data" / name)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target) if path.stat().st_dev == tmp_path.stat().st_dev else shutil.copy(path, target)
    table = shared / "data" / name / "labels.csv"
    chosen_mode = config(ingest={"burned_in": mode})
    summary = ingest.run(chosen_mode, paths, tmp_path / "source", table if table.exists() else None)
    flagged = sum(dcmread(path, stop_before_pixels=True).get("BurnedInAnnotation") == "YES" for path in chosen)
    assert (summary.new, summary.quarantined) == (files, {})
    assert summary.blanked >= flagged
    secrets = header_strings(chosen)
    assert len(secrets) > 30
    said = capfd.readouterr()
    contents = [path.read_bytes() for path in paths.workspace.rglob("*") if path.is_file()]
    everything = b"\0".join([*contents, said.out.encode(), said.err.encode(), summary.describe().encode()])
    assert [text for text in secrets if text in everything] == []
    if table.exists():
        assert labels(paths) == expected_labels(chosen, table)


def expected_labels(files: list[Path], table: Path) -> dict[str, float]:
    with table.open(newline="") as stream:
        rows = {row["SOPInstanceUID"]: float(row["pneumonia"]) for row in csv.DictReader(stream)}
    headers = [dcmread(path, stop_before_pixels=True) for path in files]
    return {image_of(dataset): rows[dataset.SOPInstanceUID] for dataset in headers}


@pytest.mark.real
def test_real_pixels_are_kept(shared: Path, paths: Paths) -> None:
    folder = shared / "data" / "conformance"
    ingest.run(config(ingest={"burned_in": "keep"}), paths, folder)
    held = {dcmread(path).SOPInstanceUID: path for path in paths.dicom.rglob("*.dcm")}
    for path in sorted(folder.glob("*.dcm")):
        original = dcmread(path)
        kept = dcmread(BytesIO(held[image_of(original)].read_bytes()))
        assert (kept.Rows, kept.Columns, kept.BitsStored) == (original.Rows, original.Columns, original.BitsStored)
        assert kept.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
        assert len(kept.PixelData) == pytest.approx(len(original.PixelData), abs=2000)
        if path.stem.startswith(("dx_", "RG3_JPLL", "RG2_RLE")):
            assert (kept.pixel_array == original.pixel_array).all()


def image_of(original: Dataset) -> str:
    return Pseudonyms.from_environment().uid(original.SOPInstanceUID)
