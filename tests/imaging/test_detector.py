from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pipelines.imaging.detector import density, is_raw


def _header(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("attributes", "raw"),
    [
        ({"PresentationIntentType": "FOR PROCESSING"}, True),
        ({"PresentationIntentType": "FOR PRESENTATION"}, False),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1"}, False),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1"}, False),
        ({}, False),
    ],
)
def test_raw_detector_images_say_so_or_are_of_a_class_that_does(attributes: dict[str, Any], raw: bool) -> None:
    assert is_raw(_header(**attributes)) is raw


def test_linear_values_get_a_logarithm_so_that_equal_attenuations_are_equal_steps() -> None:
    exposure = np.array([8191.0, 4095.0, 2047.0, 1023.0])  # each layer halves what comes through
    values, _ = density(exposure, _header(PixelIntensityRelationship="LIN", PixelIntensityRelationshipSign=1))
    np.testing.assert_allclose(np.diff(values), -np.log(2), rtol=1e-9)


def test_logarithmic_values_are_taken_as_they_are() -> None:
    values, _ = density(np.array([1.0, 5.0]), _header(PixelIntensityRelationship="LOG"))
    assert values.tolist() == [1, 5]


@pytest.mark.parametrize(
    ("attributes", "inverse"),
    [
        ({"PixelIntensityRelationshipSign": 1, "PhotometricInterpretation": "MONOCHROME2"}, True),
        ({"PixelIntensityRelationshipSign": -1, "PhotometricInterpretation": "MONOCHROME1"}, False),
        ({"PhotometricInterpretation": "MONOCHROME1"}, True),
        ({"PhotometricInterpretation": "MONOCHROME2"}, False),
        ({"PixelIntensityRelationshipSign": 7, "PhotometricInterpretation": "MONOCHROME2"}, False),
    ],
)
def test_what_got_little_exposure_is_to_be_white(attributes: dict[str, Any], inverse: bool) -> None:
    assert density(np.array([1.0, 2.0]), _header(**attributes))[1] is inverse
