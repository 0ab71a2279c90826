from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines.imaging.crop import open_field

WHOLE = (0, 0, 2000, 1600)


def _field(top: int = 20, left: int = 32, bottom: int = 160, right: int = 144, border: float = 1.0) -> NDArray[np.float32]:
    """A field of varied greys in a border, 200 × 160, of a stored image ten times as large."""
    image = np.full((200, 160), border, np.float32)
    inside = np.random.default_rng(1).random((bottom - top, right - left), np.float32)
    image[top:bottom, left:right] = 0.1 + 0.7 * inside
    return image


def _found(image: NDArray[np.float32], **attributes: Any) -> tuple[float, ...]:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return tuple(round(edge) for edge in astuple(open_field(image, dataset, 2000, 1600)))


@pytest.mark.parametrize("border", [1.0, 0.0])
def test_a_white_border_and_a_shutters_are_found(border: float) -> None:
    assert _found(_field(border=border)) == (200, 320, 1600, 1440)


def test_an_unexposed_border_may_be_noisy() -> None:
    image = _field(border=0.95)
    image[:20] += np.random.default_rng(0).normal(0, 0.01, (20, 160)).astype(np.float32)
    assert _found(image) == (200, 320, 1600, 1440)


def test_a_marker_on_the_border_does_not_end_it() -> None:
    image = _field()
    image[5:15, 100:112] = 0.2
    assert _found(image)[0] == 200


def test_the_borders_need_not_be_on_every_side() -> None:
    assert _found(_field(top=0, right=160)) == (0, 320, 1600, 1600)


def test_air_around_a_hand_is_no_border() -> None:
    image = _field(border=0.02)
    air = np.random.default_rng(2).normal(0, 0.01, image.shape).astype(np.float32)
    assert _found(np.clip(image + air, 0, 1)) == WHOLE


@pytest.mark.parametrize("image", [np.ones((200, 160), np.float32), np.zeros((200, 160), np.float32)], ids=["white", "black"])
def test_an_image_that_is_all_border_is_left_whole(image: NDArray[np.float32]) -> None:
    assert _found(image) == WHOLE


def test_a_field_of_less_than_a_quarter_of_the_image_is_no_field() -> None:
    assert _found(_field(80, 70, 120, 100)) == WHOLE


EDGES = {
    "CollimatorShape": "RECTANGULAR",
    "CollimatorUpperHorizontalEdge": 101,
    "CollimatorLeftVerticalEdge": 161,
    "CollimatorLowerHorizontalEdge": 1800,
    "CollimatorRightVerticalEdge": 1440,
}


def test_the_headers_edges_are_taken_where_the_picture_outside_them_is_quiet() -> None:
    image = _field(10, 16, 180, 144, border=0.5)  # grey scatter, which the picture alone does not give away
    image += np.random.default_rng(3).normal(0, 0.02, image.shape).astype(np.float32)
    assert _found(image) == WHOLE
    assert _found(image, **EDGES) == (100, 160, 1800, 1440)


def test_the_edges_of_another_image_are_passed_over() -> None:
    image = _field(0, 0, 200, 160)
    assert _found(image, **EDGES) == WHOLE


@pytest.mark.parametrize(
    "wrong",
    [
        {"CollimatorShape": "CIRCULAR"},
        {"CollimatorUpperHorizontalEdge": None},
        {"CollimatorLowerHorizontalEdge": 50},
        {"CollimatorLeftVerticalEdge": 5000},
    ],
)
def test_edges_that_cannot_be_of_this_image_are_passed_over(wrong: dict[str, Any]) -> None:
    image = _field(10, 16, 180, 144, border=0.5)
    image += np.random.default_rng(3).normal(0, 0.02, image.shape).astype(np.float32)
    assert _found(image, **{**EDGES, **wrong}) == WHOLE


def test_edges_outside_the_image_are_those_of_the_image() -> None:
    image = _field(0, 16, 180, 144, border=0.5)
    image += np.random.default_rng(3).normal(0, 0.02, image.shape).astype(np.float32)
    assert _found(image, **{**EDGES, "CollimatorUpperHorizontalEdge": -40})[0] == 0
