from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.imaging.decode import frame
from pipelines.imaging.hashes import perceptual_hash, pixel_hash
from pipelines.imaging.resample import resize
from pipelines.imaging.samples import of_stored, of_stream

Make = Callable[..., Any]
J2K = "1.2.840.10008.1.2.4.90"


def test_the_pixel_hash_of_an_image_that_is_not_halved_is_that_of_size_depth_and_values() -> None:
    stored = np.array([[1, 256], [0, 65535]], np.uint16)
    expected = hashlib.sha256(b"2 2 16 low 0\n" + bytes([1, 0, 0, 1, 0, 0, 255, 255])).hexdigest()
    assert pixel_hash(of_stored(stored), 0) == expected
    assert pixel_hash(of_stored(np.asfortranarray(stored)), 0) == expected


def test_up_to_eight_bits_are_hashed_as_bytes() -> None:
    expected = hashlib.sha256(b"1 3 7 low 0\n" + bytes([1, 0, 127])).hexdigest()
    assert pixel_hash(of_stored(np.array([[1, 0, 127]], np.uint8), 7), 0) == expected


def test_the_pixel_hash_knows_the_shape() -> None:
    values = np.arange(12, dtype=np.uint8)
    assert pixel_hash(of_stored(values.reshape(3, 4)), 0) != pixel_hash(of_stored(values.reshape(4, 3)), 0)


def _low(values: list[int]) -> list[int]:
    """ITU-T T.800 equations F-9 and F-10 as they stand, with the signal mirrored at its ends."""
    last = len(values) - 1

    def at(place: int) -> int:
        place = abs(place)
        return values[place if place <= last else 2 * last - place]

    def high(place: int) -> int:
        return at(place) - (at(place - 1) + at(place + 1)) // 2

    return [at(place) + (high(place - 1) + high(place + 1) + 2) // 4 for place in range(0, len(values), 2)]


@pytest.mark.parametrize("shape", [(21, 18), (20, 17), (9, 30)])
def test_the_pixel_hash_of_a_halved_image_is_of_lines_of_its_reversible_wavelet(shape: tuple[int, int]) -> None:
    stored = np.random.default_rng(4).integers(0, 4096, shape).astype(np.uint16)
    columns = np.array([_low(column) for column in stored.T.tolist()]).T
    low = np.clip(np.array([_low(row) for row in columns.tolist()]), 0, 4095)
    lines = sorted({len(low) * (2 * number + 1) // 16 for number in range(8)})
    text = f"{shape[0]} {shape[1]} 12 low 1\n".encode()
    expected = hashlib.sha256(text + low[lines].astype("<u2").tobytes()).hexdigest()
    assert pixel_hash(of_stored(stored, 12), 1) == expected


@pytest.mark.parametrize("halvings", [1, 2, 3])
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (16, False), (12, True)])
def test_an_image_read_at_a_lower_resolution_has_the_hash_of_the_whole_one(
    bits: int, signed: bool, halvings: int, scene: Make, make_dataset: Make, compressed: Make
) -> None:
    pixels = scene(bits, signed, rows=201, columns=164)
    reduced = of_stream(frame(compressed(make_dataset(pixels, bits), J2K, pixels)), halvings)
    assert reduced is not None
    assert reduced.read_at == halvings
    assert pixel_hash(reduced, halvings) == pixel_hash(of_stored(pixels, bits), halvings)


def test_one_other_value_in_a_line_of_the_hash_changes_it() -> None:
    stored: NDArray[Any] = np.random.default_rng(4).integers(0, 4096, (160, 160)).astype(np.uint16)
    other = stored.copy()
    other[48, 76] ^= 256  # the third line of the hash is row 12 at a quarter
    assert pixel_hash(of_stored(stored, 12), 2) != pixel_hash(of_stored(other, 12), 2)


def test_the_perceptual_hash_has_a_bit_for_each_frequency_above_the_median() -> None:
    # A cosine of three half waves across the columns is one frequency: the fourth of the first row.
    wave = np.cos(np.pi * (2 * np.arange(32) + 1) * 3 / 64)
    image = np.tile(wave, (32, 1)).astype(np.float32)
    assert int(perceptual_hash(image), 16) >> 60 & 0b0001
    assert not int(perceptual_hash(-image), 16) >> 60 & 0b0001


def test_the_perceptual_hash_bears_small_changes_and_tells_images_apart() -> None:
    rng = np.random.default_rng(3)
    image = resize(rng.random((9, 9), np.float32), 400, 400)
    changed = resize(image, 300, 300) * 0.9 + 0.02 * rng.standard_normal((300, 300)).astype(np.float32)
    distance = (int(perceptual_hash(image), 16) ^ int(perceptual_hash(changed), 16)).bit_count()
    other = (int(perceptual_hash(image), 16) ^ int(perceptual_hash(np.fliplr(image)), 16)).bit_count()
    assert distance <= 2 < 15 <= other
