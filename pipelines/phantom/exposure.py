"""From optical depth to the grey levels that a vendor's detector would store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.phantom.canvas import Canvas, Map, enlarge


@dataclass(frozen=True)
class Detector:
    """How a vendor's machine sees.

    Attributes:
        photons: per pixel in the open beam; fewer mean more noise.
        scatter: scattered part of what arrives.
        blur: of the detector, standard deviation in pixels.
        detail: how strongly structures of about 15 mm are enhanced.
        curve: steepness of the tone curve; 1 is almost linear.
        low: grey level of the open beam, as a part of full scale; `high` of dense bone.
        high: see `low`.
    """

    photons: float
    scatter: float
    blur: float
    detail: float
    curve: float
    low: float
    high: float


def expose(depth: Map, canvas: Canvas, detector: Detector, rng: np.random.Generator, beam: Map) -> Map:
    """The processed image, 0 (open beam) … 1 (dense bone), before it is rounded to grey levels.

    `beam` is 1 where the collimator is open, 0 where its blades are.
    """
    primary = np.exp(-depth) * beam
    scattered = _wide_blur(primary, 32.0 / canvas.spacing_mm)
    arriving = ndimage.gaussian_filter(
        (1 - detector.scatter) * primary + detector.scatter * scattered, detector.blur, truncate=3.0
    )
    noise = rng.standard_normal(canvas.shape)
    noise = 0.75 * noise + 0.5 * ndimage.uniform_filter(noise, 2)
    arriving = np.maximum(arriving + noise * np.sqrt(np.maximum(arriving, 0.0) / detector.photons), 1e-4)
    density = -np.log(arriving)
    density += detector.detail * (density - _wide_blur(density, 11.0 / canvas.spacing_mm))
    inside = density[(beam > 0.5) & (density > 0.9)]
    dark, bright = np.percentile(inside, (3.0, 96.0))
    level = np.clip(0.16 + 0.82 * (density - dark) / (bright - dark), -0.5, 1.12)
    return tone(level, detector.curve)


def tone(level: Map, steepness: float) -> Map:
    """An S-shaped curve through 0.5 that keeps 0…1 mostly in place and never leaves 0…1."""
    slope = 3.4 * steepness
    lowest, highest = 1 / (1 + np.exp(1.0 * slope)), 1 / (1 + np.exp(-0.62 * slope))
    curve = 1 / (1 + np.exp(-slope * (level - 0.5)))
    return np.asarray(np.clip((curve - lowest) / (highest - lowest), 0.0, 1.0))


def stored(image: Map, detector: Detector, bits: int, *, inverse: bool) -> NDArray[np.uint16]:
    """Grey levels of `bits` bits; `inverse` stores the open beam bright, as MONOCHROME1 wants it."""
    top = float(2**bits - 1)
    level = detector.low + (detector.high - detector.low) * image
    grey = np.rint(np.clip(level, 0.0, 1.0) * top).astype(np.uint16)
    return (np.uint16(top) - grey).astype(np.uint16) if inverse else grey


def _wide_blur(image: Map, sigma: float) -> Map:
    """A Gaussian blur of many pixels, done at a quarter of the resolution."""
    rows, columns = (length // 4 * 4 for length in image.shape)
    small = image[:rows, :columns].reshape(rows // 4, 4, columns // 4, 4).mean(axis=(1, 3))
    return enlarge(ndimage.gaussian_filter(small, sigma / 4, mode="nearest", truncate=3.0), (image.shape[0], image.shape[1]))
