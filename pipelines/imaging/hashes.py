"""Fingerprints that find the same image again: exactly, and approximately."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.imaging.resample import resize


def pixel_hash(stored: NDArray[Any]) -> str:
    """SHA-256, 64 hexadecimal digits, of the shape and the stored values (little endian) of a decoded image.

    Lossless transfer syntaxes of one image give one hash; other headers on the same pixels do not change it.
    """
    little = np.ascontiguousarray(stored.astype(stored.dtype.newbyteorder("<"), copy=False))
    digest = hashlib.sha256(f"{stored.shape[0]} {stored.shape[1]}\n".encode())
    digest.update(little.data)
    return digest.hexdigest()


def difference_hash(image: NDArray[np.float32]) -> str:
    """64-bit difference hash, 16 hexadecimal digits: whether each of 8 × 9 area means is brighter than its left neighbour.

    Args:
        image: (rows, columns), any range. Bits are in row order, the first one highest.
    """
    means = resize(image, 8, 9)
    bits = (means[:, 1:] > means[:, :-1]).reshape(-1)
    return np.packbits(bits).tobytes().hex()
