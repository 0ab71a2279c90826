from __future__ import annotations

import hashlib

import numpy as np

from pipelines.imaging.hashes import perceptual_hash, pixel_hash
from pipelines.imaging.resample import resize


def test_the_pixel_hash_is_that_of_shape_and_little_endian_values() -> None:
    stored = np.array([[1, 256], [0, 65535]], np.uint16)
    expected = hashlib.sha256(b"2 2\n" + bytes([1, 0, 0, 1, 0, 0, 255, 255])).hexdigest()
    assert pixel_hash(stored) == expected
    assert pixel_hash(stored.astype(">u2")) == expected
    assert pixel_hash(np.asfortranarray(stored)) == expected


def test_the_pixel_hash_knows_the_shape() -> None:
    values = np.arange(12, dtype=np.uint8)
    assert pixel_hash(values.reshape(3, 4)) != pixel_hash(values.reshape(4, 3))


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
