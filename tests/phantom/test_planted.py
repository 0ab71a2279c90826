"""The planted bad files: each is set aside for the reason for which it was made, by the code that meets it first."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from pipelines.dicom.deidentify import Accept, deidentify
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.errors import RefusedFileError
from pipelines.imaging.radiograph import Recipe, prepare, read
from pipelines.phantom import planted, shooting
from pipelines.phantom.plan import EXPLICIT, shots
from pipelines.phantom.planted import Planted
from pipelines.records import Reason

ACCEPTED = Accept(("CR", "DX", "RG"), "clean")
NAMES = [name for name, *_ in planted._KINDS]


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Planted]:
    shot = next(shot for shot in shots(10, 7, 7) if shot.syntax == EXPLICIT)
    written = planted.plant(tmp_path_factory.mktemp("planted"), shooting.radiograph(shot, 7), 7)
    return {one.path.name: one for one in written}


@pytest.mark.parametrize("name", NAMES)
def test_each_bad_file_is_refused_for_its_reason(name: str, bad: dict[str, Planted], pseudonym_key: str) -> None:
    one = bad[name]
    with one.path.open("rb") as stream:
        if one.stage == "ingest" and one.reason is not None:
            with pytest.raises(RefusedFileError, match=one.reason.value):
                deidentify(stream, Pseudonyms.from_environment(), ACCEPTED)
            return
        clean = deidentify(stream, Pseudonyms.from_environment(), ACCEPTED)
    if one.reason is None:
        assert clean is None
        return
    assert clean is not None
    with pytest.raises(RefusedFileError, match=one.reason.value):
        prepare(read(clean.content), Recipe(32, "uint8", (0.5, 99.5)))


def test_the_duplicate_has_the_same_uid_and_another_image(bad: dict[str, Planted]) -> None:
    original = shooting.radiograph(next(shot for shot in shots(10, 7, 7) if shot.syntax == EXPLICIT), 7)
    one = bad["IM_0001_copy.dcm"]
    copy = pydicom.dcmread(one.path)
    assert one.reason is Reason.DUPLICATE
    assert copy.SOPInstanceUID == original.SOPInstanceUID
    assert copy.PixelData != original.PixelData


ELSEWHERE = {
    Reason.UNREADABLE, Reason.FOR_PROCESSING, Reason.TIMEOUT, Reason.UNKNOWN_VR, Reason.NOT_IMAGE, Reason.CHANGED,
}  # fmt: skip
"""Reasons whose files are made where they are tested."""


def test_every_other_reason_that_a_file_can_have_is_planted(bad: dict[str, Planted]) -> None:
    assert {one.reason for one in bad.values()} - {None} == set(Reason) - ELSEWHERE


def test_the_bad_files_sort_behind_the_good_ones(bad: dict[str, Planted]) -> None:
    assert all(one.path.parent.name == planted.FOLDER > "moor" for one in bad.values())
    assert all(Path(one.path).is_file() for one in bad.values())
