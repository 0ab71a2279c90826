from __future__ import annotations

import numpy as np
import pytest

from pipelines.imaging.resample import fit, resize


def test_each_pixel_is_the_mean_of_its_area() -> None:
    image = np.array([[0, 0.2, 1, 1], [0.2, 0.4, 1, 0], [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]], np.float32)
    np.testing.assert_allclose(fit(image, 2).image, [[0.2, 0.75], [0, 0.5]], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "size", "box"),
    [
        ((400, 200), 100, (0, 25, 100, 50)),
        ((200, 400), 100, (25, 0, 50, 100)),
        ((300, 300), 64, (0, 0, 64, 64)),
        ((30, 20), 96, (0, 16, 96, 64)),
        ((1000, 3), 64, (0, 31, 64, 1)),
    ],
)
def test_the_aspect_is_kept_and_the_rest_is_zero(shape: tuple[int, int], size: int, box: tuple[int, int, int, int]) -> None:
    fitted = fit(np.ones(shape, np.float32), size)
    assert fitted.box == box
    assert fitted.image.shape == (size, size)
    np.testing.assert_allclose(fitted.content, 1)
    assert fitted.image.sum() == pytest.approx(box[2] * box[3])


def test_the_image_is_neither_turned_nor_mirrored() -> None:
    image = np.zeros((80, 40), np.float32)
    image[:20, :10] = 1  # upper left
    image[60:, 30:] = 0.5  # lower right
    content = fit(image, 32).content
    assert content.shape == (32, 16)
    assert content[:8, :4].min() == pytest.approx(1)
    assert content[24:, 12:].min() == pytest.approx(0.5)
    assert content.sum() == pytest.approx(32 + 16)


def test_pixels_that_are_not_square_are_made_so() -> None:
    assert fit(np.ones((100, 100), np.float32), 64, aspect=2).box == (0, 16, 64, 32)
    assert fit(np.ones((100, 100), np.float32), 64, aspect=0.5).box == (16, 0, 32, 64)


def test_one_axis_may_shrink_while_the_other_grows() -> None:
    image = np.tile(np.linspace(0, 1, 400, dtype=np.float32)[:, None], (1, 4))
    scaled = resize(image, 8, 16)
    assert scaled.shape == (8, 16)
    np.testing.assert_allclose(scaled[:, 0], image[:, 0].reshape(8, 50).mean(1), atol=1e-6)


def test_values_stay_within_the_range() -> None:
    image = np.random.default_rng(0).random((301, 177), np.float32).round()
    for size in (32, 224, 512):
        fitted = fit(image, size).image
        assert fitted.min() >= 0
        assert fitted.max() <= 1
