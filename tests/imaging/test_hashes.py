from __future__ import annotations

import hashlib

import numpy as np

from pipelines.imaging.hashes import difference_hash, pixel_hash
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


def test_the_difference_hash_has_a_bit_where_the_image_brightens_to_the_right() -> None:
    # Columns brighten up to the middle and darken after it: four bits set, then four clear, in each of eight rows.
    hill = 4 - np.abs(np.arange(9) - 4)
    image = np.repeat(np.tile(hill, (8, 1)), 10, axis=0).repeat(10, axis=1).astype(np.float32)
    assert difference_hash(image) == "f0" * 8
    assert difference_hash(image.max() - image) == "0f" * 8


def test_the_difference_hash_bears_small_changes() -> None:
    rng = np.random.default_rng(3)
    image = resize(rng.random((9, 9), np.float32), 400, 400)
    changed = resize(image, 300, 300) * 0.9 + 0.02 * rng.standard_normal((300, 300)).astype(np.float32)
    distance = (int(difference_hash(image), 16) ^ int(difference_hash(changed), 16)).bit_count()
    other = (int(difference_hash(image), 16) ^ int(difference_hash(np.fliplr(image)), 16)).bit_count()
    assert distance <= 3 < 20 <= other
