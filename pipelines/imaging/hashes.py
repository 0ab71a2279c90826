"""Fingerprints that find the same image again: exactly, and approximately."""

from __future__ import annotations

import hashlib
from typing import Any

import cv2
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


def perceptual_hash(image: NDArray[np.float32]) -> str:
    """64-bit perceptual hash, 16 hexadecimal digits: which of the 8 × 8 lowest spatial frequencies exceed their median.

    Radiographs of one view share their coarse brightness, so hashes of neighbouring means cannot tell them apart; the
    signs of frequencies can (the "pHash" of Zauner 2010).

    Args:
        image: (rows, columns), any range. Bits are in row order, the first one highest.
    """
    frequencies = cv2.dct(resize(image, 32, 32))[:8, :8].reshape(-1)
    bits = frequencies > np.median(frequencies[1:])
    return np.packbits(bits).tobytes().hex()
