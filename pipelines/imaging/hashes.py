"""Fingerprints that find the same image again: exactly, and approximately."""

from __future__ import annotations

import hashlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.imaging.resample import resize
from pipelines.imaging.samples import Codes, Samples

LINES = 8
"""Lines of the low-pass image that the exact fingerprint of a larger image is made of."""

_HALVED_TO = 64  # lines; halving is fast, and the line that an odd number leaves out is nothing to the lowest frequencies


def pixel_hash(samples: Samples, halvings: int) -> str:
    """SHA-256, 64 hexadecimal digits, of an image's size and values; where it is halved, of eight lines of a smaller version.

    The smaller version is the low-pass part of the reversible 5/3 wavelet (ITU-T T.800 Annex F), which is what a lossless
    JPEG 2000 stream holds. It is worked out from the stored values as well, for those lines only, so all lossless transfer
    syntaxes of one image give one hash whether or not they are decoded whole; other headers on the same pixels do not
    change it. A lossy stream that is read at a lower resolution has the hash of what it gives there.

    Args:
        samples: all stored values, or what was read of a stream at a lower resolution.
        halvings: of the version that is hashed; the same for all files of an image and a recipe.
    """
    if samples.read_at and not samples.offset:
        kind, lines = f"mean {samples.read_at}", samples.codes >> (16 - samples.bits)
    elif halvings:
        kind, lines = f"low {halvings}", _lines(samples.codes, halvings - samples.read_at, samples.bits)
    else:
        kind, lines = "low 0", samples.codes >> (16 - samples.bits)
    digest = hashlib.sha256(f"{samples.rows} {samples.columns} {samples.bits} {kind}\n".encode())
    digest.update(np.ascontiguousarray(lines.astype("u1" if samples.bits <= 8 else "<u2", copy=False)).data)
    return digest.hexdigest()


def perceptual_hash(image: NDArray[Any]) -> str:
    """64-bit perceptual hash, 16 hexadecimal digits: which of the 8 × 8 lowest spatial frequencies exceed their median.

    Radiographs of one view share their coarse brightness, so hashes of neighbouring means cannot tell them apart; the
    signs of frequencies can (the "pHash" of Zauner 2010).

    Args:
        image: (rows, columns), any range. Bits are in row order, the first one highest.
    """
    small = np.asarray(image, np.float32)
    while min(rows := len(small) // 2, columns := small.shape[1] // 2) >= _HALVED_TO:
        small = np.asarray(cv2.resize(small[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA))
    frequencies = cv2.dct(resize(small, 32, 32))[:8, :8].reshape(-1)
    bits = frequencies > np.median(frequencies[1:])
    return np.packbits(bits).tobytes().hex()


def _lines(codes: Codes, halvings: int, bits: int) -> NDArray[Any]:
    """Eight evenly spread lines of the image after `halvings` steps of the wavelet."""
    step = 1 << halvings
    rows = -(-len(codes) // step)
    reach = 2 * (step - 1)  # how far up and down a low-pass sample looks
    lines = []
    for line in sorted({rows * (2 * number + 1) // (2 * LINES) for number in range(LINES)}):
        first = max(0, line - 2) * step
        band = codes[first : line * step + reach + 1].astype(np.int32) >> (16 - bits)
        for _ in range(halvings):
            band = _low(_low(band).T).T
        lines.append(np.clip(band[line - first // step], 0, (1 << bits) - 1))
    return np.stack(lines)


def _low(values: NDArray[np.int32]) -> NDArray[np.int32]:
    """The low-pass half of the first axis: equations F-9 and F-10 (5/3 lifting), mirrored at the ends."""
    if len(values) == 1:
        return values
    even, odd = values[::2], values[1::2]
    after = np.concatenate([even[1:], even[-1:]])[: len(odd)]
    high = odd - ((even[: len(odd)] + after) >> 1)
    before = np.concatenate([high[:1], high])[: len(even)]
    behind = high if len(high) == len(even) else np.concatenate([high, high[-1:]])
    low: NDArray[np.int32] = even + ((before + behind + 2) >> 2)
    return low
