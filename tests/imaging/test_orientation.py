from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataset import Dataset

from pipelines.imaging.orientation import is_mirrored

RIGHT_HAND = {"ImageLaterality": "R", "BodyPartExamined": "HAND", "ViewPosition": "PA"}
CASES = (
    (RIGHT_HAND, False, (), False),
    (RIGHT_HAND, True, (), True),
    (RIGHT_HAND, ("HAND", "KNEE"), (), True),
    (RIGHT_HAND, ("hand",), (), True),
    (RIGHT_HAND, ("KNEE",), (), False),
    (RIGHT_HAND, (), (), False),
    ({**RIGHT_HAND, "ImageLaterality": "L"}, True, (), False),
    ({**RIGHT_HAND, "ImageLaterality": "B"}, True, (), False),
    ({**RIGHT_HAND, "ImageLaterality": None, "Laterality": "R"}, True, (), True),
    ({**RIGHT_HAND, "ImageLaterality": "L", "Laterality": "R"}, True, (), False),
    ({"BodyPartExamined": "CHEST"}, True, (), False),
    ({"ViewPosition": "RL"}, False, ("RL",), True),
    ({"ViewPosition": "LL"}, False, ("RL",), False),
    ({}, False, ("RL",), False),
)


@pytest.mark.parametrize(("attributes", "right", "views", "expected"), CASES)
def test_what_is_mirrored_is_decided_by_side_part_and_view(
    attributes: dict[str, Any], right: bool | tuple[str, ...], views: tuple[str, ...], expected: bool
) -> None:
    dataset = Dataset()
    for keyword, value in attributes.items():
        if value is not None:
            setattr(dataset, keyword, value)
    assert is_mirrored(dataset, right, views) is expected
