"""Windows and LUTs keep the names by which prepare chooses among them, if they are known names."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from made_dicom import KEYED, radiograph
from pydicom import Dataset, dcmread

from pipelines.dicom.deidentify import Accept, deidentify


def _kept(**attributes: object) -> Dataset:
    done = deidentify(BytesIO(radiograph(**attributes)), KEYED, Accept(("CR",)))
    assert done is not None
    return dcmread(BytesIO(done.content))


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (["NORMAL", "HARDER", "SOFTER"], ["NORMAL", "HARDER", "SOFTER"]),
        (["Normal", "hard"], ["NORMAL", "HARD"]),
        (["NORMAL", "Mustermann^Erika"], None),
    ],
)
def test_the_explanations_of_windows_survive_as_known_words_or_not_at_all(written: list[str], kept: list[str] | None) -> None:
    count = len(written)
    dataset = _kept(WindowCenter=[100] * count, WindowWidth=[50] * count, WindowCenterWidthExplanation=written)
    found = dataset.get("WindowCenterWidthExplanation")
    assert (list(found) if found else None) == kept


@pytest.mark.parametrize(("written", "kept"), [("HARDER", "HARDER"), ("Mustermann^Erika", None)])
def test_the_explanation_of_a_lut_survives_as_a_known_word_or_not_at_all(written: str, kept: str | None) -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [16, 0, 8])
    item.add_new("LUTData", "OW", np.arange(16, dtype="<u2").tobytes())
    item.LUTExplanation = written
    assert _kept(VOILUTSequence=[item]).VOILUTSequence[0].get("LUTExplanation") == kept


def test_the_aspect_of_pixels_survives() -> None:
    assert list(_kept(PixelSpacing=None, PixelAspectRatio=[4, 3]).PixelAspectRatio) == [4, 3]
