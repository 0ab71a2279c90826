from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.imaging.resample import Box, centred, fitted, resampled, resize
from pipelines.imaging.samples import Samples, of_stored


def _whole(samples: Samples) -> Box:
    return Box(0, 0, samples.rows, samples.columns)


def _scaled(stored: NDArray[Any], height: int, width: int) -> NDArray[np.uint16]:
    samples = of_stored(stored)
    return resampled(samples, _whole(samples), (height, width))


def test_each_pixel_is_the_mean_of_its_area() -> None:
    stored = np.array([[0, 20, 100, 100], [20, 40, 100, 0], [0, 0, 50, 50], [0, 0, 50, 50]], np.uint16)
    np.testing.assert_allclose(_scaled(stored, 2, 2), [[20, 75], [0, 50]], atol=1e-4)


def test_areas_that_end_within_a_pixel_take_their_part_of_it() -> None:
    stored = np.array([[30, 60, 90]], np.uint16)
    # Two areas of one and a half pixels: (30 + 60 / 2) / 1.5 and (60 / 2 + 90) / 1.5.
    np.testing.assert_allclose(_scaled(stored, 1, 2), [[40, 80]], rtol=1e-6)


def test_an_axis_that_grows_is_interpolated_between_centres() -> None:
    np.testing.assert_allclose(_scaled(np.array([[0, 100]], np.uint16), 1, 4), [[0, 25, 75, 100]], atol=1e-4)


def test_one_axis_may_shrink_while_the_other_grows() -> None:
    stored = np.tile(np.arange(400, dtype=np.uint16)[:, None], (1, 4))
    scaled = _scaled(stored, 8, 16)
    assert scaled.shape == (8, 16)
    np.testing.assert_allclose(scaled[:, 0], stored[:, 0].reshape(8, 50).mean(1), atol=0.501)


def test_a_part_of_an_image_is_that_part_alone() -> None:
    stored = np.random.default_rng(2).integers(0, 65536, (60, 40)).astype(np.uint16)
    part = resampled(of_stored(stored), Box(12, 4, 42, 34), (10, 15))
    np.testing.assert_allclose(part, stored[12:42, 4:34].reshape(10, 3, 15, 2).mean((1, 3)), atol=0.501)


def _shares(count: int, start: float, stop: float, length: int) -> NDArray[np.float64]:
    """How much of each of `length` pixels the areas take up into which start…stop is divided, (count, length)."""
    edges = np.linspace(start, stop, count + 1)[:, None]
    pixels = np.arange(length)
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.clip(overlap, 0, None) * count / (stop - start)


@pytest.mark.parametrize("box", [Box(0, 0, 301, 177), Box(20, 7, 290, 170), Box(20.25, 7.5, 290, 170.75)])
def test_areas_are_taken_exactly_wherever_they_begin(box: Box) -> None:
    stored = np.random.default_rng(5).integers(0, 65536, (301, 177)).astype(np.uint16)
    expected = _shares(97, box.top, box.bottom, 301) @ stored @ _shares(64, box.left, box.right, 177).T
    np.testing.assert_allclose(resampled(of_stored(stored), box, (97, 64)), expected, atol=0.52)


def test_halved_samples_keep_their_place() -> None:
    """A ramp is the same ramp at half the size, whether its sides are even or odd."""
    for rows, columns in ((400, 300), (401, 303)):
        stored = (np.arange(rows)[:, None] * 100 + np.arange(columns) * 50).astype(np.uint16)
        samples = of_stored(stored)
        halved = samples.halved((20, 15))
        assert halved.step == 8
        np.testing.assert_allclose(
            resampled(halved, _whole(samples), (20, 15)).astype(float), resampled(samples, _whole(samples), (20, 15)), atol=120
        )


def test_the_image_is_neither_turned_nor_mirrored() -> None:
    stored = np.zeros((80, 40), np.uint16)
    stored[:20, :10] = 1000  # upper left
    stored[60:, 30:] = 500  # lower right
    scaled = _scaled(stored, 32, 16)
    assert scaled[:8, :4].min() == pytest.approx(1000)
    assert scaled[24:, 12:].min() == pytest.approx(500)
    assert scaled.sum() == pytest.approx(32 * 1000 + 32 * 500)


@pytest.mark.parametrize("size", [32, 224, 512])
@pytest.mark.parametrize("level", [0, 65535])
def test_the_ends_of_the_range_stay_what_they_are(level: int, size: int) -> None:
    assert np.unique(_scaled(np.full((301, 177), level, np.uint16), size, size)).tolist() == [level]


@pytest.mark.parametrize(
    ("shape", "aspect", "size", "expected"),
    [
        ((400, 200), 1, 100, (100, 50)),
        ((200, 400), 1, 100, (50, 100)),
        ((300, 300), 1, 64, (64, 64)),
        ((30, 20), 1, 96, (96, 64)),
        ((1000, 3), 1, 64, (64, 1)),
        ((100, 100), 2, 64, (64, 32)),
        ((100, 100), 0.5, 64, (32, 64)),
    ],
)
def test_the_longer_side_fills_the_square_and_pixels_become_square(
    shape: tuple[int, int], aspect: float, size: int, expected: tuple[int, int]
) -> None:
    assert fitted(Box(0, 0, *shape), size, aspect) == expected


@pytest.mark.parametrize(("shape", "place"), [((64, 32), (0, 16)), ((32, 64), (16, 0)), ((63, 64), (0, 0)), ((64, 64), (0, 0))])
def test_content_stands_in_the_middle_of_zeros(shape: tuple[int, int], place: tuple[int, int]) -> None:
    content = np.full(shape, 7, np.uint8)
    square = centred(content, 64)
    assert square.shape == (64, 64)
    assert square.dtype == np.uint8
    np.testing.assert_array_equal(square[place[0] : place[0] + shape[0], place[1] : place[1] + shape[1]], content)
    assert square.sum() == content.sum()


def test_a_hash_sized_copy_shrinks_by_area_and_grows_linearly() -> None:
    image = np.tile(np.linspace(0, 1, 400, dtype=np.float32)[:, None], (1, 4))
    scaled = resize(image, 8, 16)
    np.testing.assert_allclose(scaled[:, 0], image[:, 0].reshape(8, 50).mean(1), atol=1e-6)
