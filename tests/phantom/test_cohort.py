"""The phantom cohort: always the same bytes, balanced by design, and readable by a decoder that is not ours."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pipelines.phantom import cohort, encoding, shooting
from pipelines.phantom.plan import HOSPITALS, JPEG_8, Shot, shots

SEED = 7
# Of the grey levels of the first image of the demo cohort: changes when, and only when, the drawing changes.
GOLDEN = "785bcd41b00fc61b06870fc0f27bc796daee1a816b5142bb9328a44b6ae7f0d1"


@pytest.fixture(scope="module")
def planned() -> tuple[Shot, ...]:
    return shots(300, 200, SEED)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> cohort.Cohort:
    return cohort.write(tmp_path_factory.mktemp("cohort"), images=10, patients=7, workers=1)


def contents(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def good_files(written: cohort.Cohort) -> list[Path]:
    bad = {planted.path for planted in written.planted}
    return sorted(path for path in written.folder.rglob("*") if path.is_file() and path not in bad)


def test_two_writes_give_the_same_bytes(small: cohort.Cohort, tmp_path: Path) -> None:
    again = cohort.write(tmp_path, images=10, patients=7, workers=1)
    assert contents(again.folder.parent) == contents(small.folder.parent)


def test_several_processes_write_what_one_writes(tmp_path: Path) -> None:
    entries = list(enumerate(shots(300, 200, SEED)))[4:6]
    for number, shot in entries:
        cohort._write_one(tmp_path / "one", SEED, (number, shot))
    work = cohort.partial(cohort._write_one, tmp_path / "many", SEED)
    list(cohort._each(work, entries, 2, fewest=1))
    assert len(contents(tmp_path / "one")) == 2
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_another_seed_gives_other_people_and_other_pictures(planned: tuple[Shot, ...]) -> None:
    other = shots(300, 200, SEED + 1)
    assert planned[0].study.patient.body != other[0].study.patient.body
    assert shooting.header(planned[0], SEED).SOPInstanceUID != shooting.header(other[0], SEED + 1).SOPInstanceUID


def test_the_first_picture_is_the_golden_one(planned: tuple[Shot, ...]) -> None:
    grey = shooting.picture(planned[0], SEED)
    assert hashlib.sha256(grey.astype("<u2").tobytes()).hexdigest() == GOLDEN


def test_the_demo_cohort_has_300_images_of_200_patients_in_both_hospitals_and_views(planned: tuple[Shot, ...]) -> None:
    assert len(planned) == 300
    assert len({shot.study.patient.number for shot in planned}) == 200
    assert Counter(shot.study.patient.hospital for shot in planned) == {0: 154, 1: 146}
    views = Counter(shot.view for shot in planned)
    assert views["LL"] > 60
    assert views["PA"] > 150
    assert views["AP"] > 30
    assert {shot.syntax for shot in planned} == {syntax for hospital in HOSPITALS for syntax in hospital.syntaxes}


@pytest.mark.parametrize("seed", [7, 8, 9])
@pytest.mark.parametrize(
    "aspect",
    [
        lambda shot: shot.study.patient.hospital,
        lambda shot: shot.view,
        lambda shot: shot.study.patient.female,
        lambda shot: shot.study.patient.age >= 57,
        lambda shot: shot.syntax,
        lambda shot: shot.window,
        lambda shot: shot.bits,
    ],
    ids=["hospital", "view", "sex", "age", "syntax", "window", "bits"],
)
def test_prevalence_is_the_same_whatever_the_header_says(seed: int, aspect) -> None:
    by_value = defaultdict(list)
    for shot in shots(300, 200, seed):
        by_value[aspect(shot)].append(shot.study.positive)
    for value, positives in by_value.items():
        assert abs(np.mean(positives) - 0.4) < 0.4 / np.sqrt(len(positives)) + 0.02, value


def test_a_finding_is_present_in_every_view_of_its_study_and_in_no_other(planned: tuple[Shot, ...]) -> None:
    for shot in planned:
        assert bool(shooting.findings(shot.study, SEED)) == shot.study.positive
    pair = next((a, b) for a, b in pairwise(planned) if a.study == b.study and a.study.positive)
    assert {shot.view for shot in pair} == {"PA", "LL"}


@pytest.mark.parametrize(("images", "patients"), [(6, 7), (15, 7)])
def test_a_count_that_cannot_be_met_is_refused(images: int, patients: int) -> None:
    with pytest.raises(ValueError, match=f"images: expected 7 to 14 for 7 patients, got {images}"):
        shots(images, patients, SEED)


def test_an_opacity_brightens_the_lung_where_it_is_and_nothing_elsewhere(planned: tuple[Shot, ...]) -> None:
    from pipelines.phantom.body import Opacity
    from pipelines.phantom.canvas import Canvas
    from pipelines.phantom.frontal import frontal

    canvas = Canvas(120, 110, 3.0, -165.0, -45.0)
    body = planned[0].study.patient.body
    opacity = Opacity(-1, (-75.0, 0.0, 110.0), (30.0, 30.0, 30.0), 1.0, 3)
    added = frontal(canvas, body, (opacity,)) - frontal(canvas, body, ())
    inside = canvas.ellipse((-75.0, 110.0), (20.0, 20.0)) < 1
    assert added[inside].mean() > 0.3
    assert np.abs(added[canvas.ellipse((-75.0, 110.0), (90.0, 90.0)) > 1]).max() == 0.0


@pytest.mark.parametrize("syntax", sorted({syntax for hospital in HOSPITALS for syntax in hospital.syntaxes}))
def test_every_transfer_syntax_reads_back_as_drawn(syntax: str, planned: tuple[Shot, ...]) -> None:
    shot = next(shot for shot in planned if shot.syntax == syntax)
    grey = shooting.picture(shot, SEED)[150:260, 100:231]  # an odd number of columns
    dataset = shooting.header(shot, SEED)
    encoding.set_pixels(dataset, grey, shot.bits, syntax)
    read = pydicom.dcmread(BytesIO(encoding.to_bytes(dataset, syntax)))
    assert read.file_meta.TransferSyntaxUID == syntax
    assert read.pixel_array.shape == grey.shape
    difference = np.abs(read.pixel_array.astype(int) - grey)
    if syntax == JPEG_8:
        assert difference.mean() < 3
        assert read.LossyImageCompression == "01"
    else:
        assert difference.max() == 0


def test_labels_join_all_images_but_three_and_four_rows_join_none(small: cohort.Cohort) -> None:
    with small.labels.open(newline="") as stream:
        rows = {row["SOPInstanceUID"]: int(row["opacity"]) for row in csv.DictReader(stream)}
    images = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in good_files(small)}
    assert len(images) == small.images == 10
    assert len(images - rows.keys()) == small.unlabelled == 3
    assert len(rows.keys() - images) == small.unmatched == 4


def test_headers_hold_what_must_not_survive(small: cohort.Cohort) -> None:
    dataset = pydicom.dcmread(good_files(small)[0])
    family = str(dataset.PatientName).split("^")[0]
    assert family in dataset.ImageComments
    assert family in dataset[0x0011, 0x1001].value
    assert family in dataset.RequestAttributesSequence[0].ScheduledProcedureStepDescription
    age = int(dataset.StudyDate[:4]) - int(dataset.PatientBirthDate[:4])
    assert age in (int(dataset.PatientAge[:3]), int(dataset.PatientAge[:3]) + 1)


def test_some_files_have_no_extension(small: cohort.Cohort) -> None:
    assert {path.suffix for path in good_files(small)} == {"", ".dcm"}


def test_a_patient_is_one_person_in_all_images(planned: tuple[Shot, ...]) -> None:
    seen: dict[str, tuple[str, ...]] = {}
    for shot in planned:
        header = shooting.header(shot, SEED)
        person = (str(header.PatientName), header.PatientSex, header.PatientBirthDate, header.InstitutionName)
        assert seen.setdefault(header.PatientID, person) == person
    assert len(seen) == 200
