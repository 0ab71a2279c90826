"""A radiograph is prepared from its de-identified file exactly as from its original."""

from __future__ import annotations

from dataclasses import fields
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from made_dicom import KEYED, file_bytes, header, with_pixels
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from pipelines.dicom.deidentify import Accept, deidentify
from pipelines.imaging.radiograph import Prepared, Recipe, prepare, read

RECIPE = Recipe(size=32, depth="uint8", percentiles=(0.5, 99.5))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless])
@pytest.mark.parametrize(
    "attributes",
    [
        {"PixelSpacing": None, "PixelAspectRatio": [4, 3]},
        {"PixelSpacing": None, "PixelAspectRatio": [2, 1]},
        {"PixelSpacing": ["0.2", "0.1"], "PixelAspectRatio": [4, 3]},
        {"WindowCenter": "2000", "WindowWidth": "1500", "VOILUTFunction": "SIGMOID"},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"RescaleIntercept": "-100", "RescaleSlope": "1.5", "RescaleType": "US"},
        {"PixelPaddingValue": 0},
    ],
    ids=lambda attributes: "-".join(attributes),
)
def test_the_original_and_the_ingested_file_give_the_same_array(attributes: dict[str, Any], syntax: str) -> None:
    rows, columns = np.mgrid[:40, :50]
    stored = (rows * 60 + columns * 30).astype(np.uint16)
    original = file_bytes(with_pixels(header(**attributes), stored, syntax, bits=12), syntax)
    done = deidentify(BytesIO(original), KEYED, Accept(("CR",)))
    assert done is not None
    before, after = (prepare(read(content), RECIPE) for content in (original, done.content))
    for field in fields(Prepared):
        np.testing.assert_array_equal(getattr(after, field.name), getattr(before, field.name), err_msg=field.name)


def test_an_aspect_ratio_changes_the_prepared_image() -> None:
    stored = np.tile(np.arange(48, dtype=np.uint8), (48, 1))
    square = prepare(read(file_bytes(with_pixels(header(PixelSpacing=None), stored))), RECIPE)
    tall = prepare(read(file_bytes(with_pixels(header(PixelSpacing=None, PixelAspectRatio=[2, 1]), stored))), RECIPE)
    assert (square.array != tall.array).any()
