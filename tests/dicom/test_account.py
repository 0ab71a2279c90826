"""The account of de-identification: counted, cumulative, and without a value."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_dicom import CANARY, ROOT, file_bytes, gradient, header, radiograph, with_pixels, write

from pipelines.config import Config
from pipelines.dicom import profile
from pipelines.dicom.confidentiality import Option
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.text_reading import DETECTOR, RECOGNISER
from pipelines.ingest_summary import IngestSummary
from pipelines.paths import Paths
from pipelines.stages import ingest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    dataset = header(1, PatientAddress=CANARY, StudyTime="101112", KVP="120", PatientName=CANARY)
    dataset.add_new(0x00090010, "LO", "SOMEBODY")
    dataset.add_new(0x00091001, "LO", CANARY)
    dataset.add_new(0x00180007, "LO", CANARY)
    write(folder / "1", file_bytes(with_pixels(dataset, gradient())))
    write(folder / "2", radiograph(2, PatientAddress="There"))
    return folder


def run(paths: Paths, source: Path, burned_in: str = "keep", **deidentification: bool) -> IngestSummary:
    section = {"burned_in": burned_in, "deidentification": deidentification}
    return ingest.run(Config.model_validate({"ingest": section}), paths, source)


def account(paths: Paths) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(paths.deidentification.read_text())
    return content


def test_every_attribute_of_every_header_is_counted_by_what_became_of_it(paths: Paths, source: Path) -> None:
    run(paths, source)
    (treated,) = account(paths)["treated"]
    assert treated["images"] == 2
    assert treated["removed"]["PatientAddress"] == 2
    assert treated["removed"]["private"] == 2
    assert treated["removed"]["unknown"] == 1
    assert treated["emptied"] == {"StudyTime": 1}
    assert treated["kept"]["KVP"] == 1
    assert treated["kept"]["PatientSex"] == 2
    assert {"PatientName": 2, "PatientID": 2, "SOPInstanceUID": 2, "StudyDate": 2}.items() <= treated["replaced"].items()
    counted = sum(sum(treated[fate].values()) for fate in ("removed", "emptied", "replaced", "kept"))
    assert counted == len(header(1)) + 6 + len(header(2)) + 1 + 2 * 8  # without the pixel data, which are not counted


def test_it_says_by_which_method_table_key_and_versions(paths: Paths, source: Path) -> None:
    run(paths, source, patient_characteristics=False)
    (treated,) = account(paths)["treated"]
    assert [code["code"] for code in treated["method_codes"]] == ["113100", "113107", "113109"]
    assert treated["key_fingerprint"] == Pseudonyms.from_environment().fingerprint
    assert set(treated["versions"]) == {"pydicom", "radtransfer"}
    table = Path(profile.__file__).with_name("confidentiality.csv")
    assert treated["table_sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()
    assert len(treated["profile_sha256"]) == 64


def test_it_names_the_models_that_looked_for_text_in_the_pixels(paths: Paths, source: Path) -> None:
    run(paths, source, burned_in="clean")
    (treated,) = account(paths)["treated"]
    assert "113101" in [code["code"] for code in treated["method_codes"]]
    assert set(treated["versions"]) == {"pydicom", "radtransfer", RECOGNISER[0], DETECTOR[0]}


def test_it_lies_in_the_data_set_and_names_the_hash_of_the_manifest(paths: Paths, source: Path) -> None:
    run(paths, source)
    assert paths.deidentification.parent == paths.data
    assert account(paths)["manifest_sha256"] == hashlib.sha256(paths.manifest.read_bytes()).hexdigest()


def test_it_holds_no_value(paths: Paths, source: Path) -> None:
    run(paths, source)
    text = paths.deidentification.read_text()
    assert not [value for value in (CANARY, "SOMEBODY", ROOT, "MRN", "Doe", "2019", "061Y") if value in text]


def test_an_ingest_that_brings_nothing_new_leaves_its_bytes(paths: Paths, source: Path) -> None:
    run(paths, source)
    before = paths.deidentification.read_bytes()
    run(paths, source)
    assert paths.deidentification.read_bytes() == before


def test_what_comes_in_two_parts_is_counted_as_if_it_had_come_in_one(paths: Paths, source: Path, tmp_path: Path) -> None:
    run(paths, source)
    at_once = paths.deidentification.read_bytes()
    second = Paths(tmp_path / "second")
    second.workspace.mkdir()
    for name in ("2", "1"):
        run(second, write(tmp_path / f"part{name}" / name, (source / name).read_bytes()).parent)
    assert second.deidentification.read_bytes() == at_once


def test_what_came_in_otherwise_is_kept_apart_and_said(paths: Paths, source: Path) -> None:
    run(paths, source)
    write(source / "3", radiograph(3))
    summary = run(paths, source, modified_dates=False)
    assert [treated["images"] for treated in account(paths)["treated"]] in ([2, 1], [1, 2])
    assert summary.treated_otherwise == 2
    assert "2 of them came in under other settings of ingest.deidentification" in summary.describe()


def test_files_that_a_killed_ingest_left_are_counted_when_they_come_again(paths: Paths, source: Path) -> None:
    run(paths, source)
    complete = paths.deidentification.read_bytes()
    for path in (paths.manifest, paths.deidentification):
        path.unlink()
    summary = run(paths, source)
    assert summary.new == 0
    assert paths.deidentification.read_bytes() == complete


def test_a_data_set_of_an_earlier_version_is_not_claimed_to_have_been_treated_so(paths: Paths, source: Path) -> None:
    run(paths, source)
    paths.deidentification.unlink()
    summary = run(paths, source)
    assert account(paths)["images_uncounted"] == 2
    assert account(paths)["treated"] == []
    assert summary.treated_otherwise == 2
    assert len(pd.read_parquet(paths.manifest)) == 2


def test_options_of_the_table_are_all_declared_in_params_yaml(paths: Paths, source: Path) -> None:
    run(paths, source, clean_descriptors=True)
    (treated,) = account(paths)["treated"]
    declared = {code["code"]: code["meaning"] for code in treated["method_codes"]}
    assert declared == {
        one.code: one.meaning
        for one in (Option.BASIC, Option.CLEAN_DESCRIPTORS, Option.MODIFIED_DATES, Option.PATIENT, Option.DEVICE)
    }
