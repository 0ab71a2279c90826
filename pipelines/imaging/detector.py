"""Raw detector images, as X-ray machines send them FOR PROCESSING (PS3.3 C.8.11.3): their pixels measure exposure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines.imaging import header

Values = NDArray[np.float64]

# PS3.4 B.5: the storage classes of radiographs, mammograms and intraoral images for processing.
_RAW_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.1.{kind}.1" for kind in (1, 2, 3))


def is_raw(dataset: Dataset) -> bool:
    """Whether an image is meant for processing and not for presentation (Presentation Intent Type, or its storage class)."""
    with header.quiet():
        intent = header.texts(dataset, "PresentationIntentType")
        return "FOR PROCESSING" in intent or str(header.value(dataset, "SOPClassUID")) in _RAW_CLASSES


def density(meaning: Values, dataset: Dataset) -> tuple[Values, bool]:
    """Turn exposure into something near the density of what was passed.

    Values that are linear in the exposure (Pixel Intensity Relationship LIN) get a logarithm, which makes of attenuation a
    sum over the body. Polarity is by Pixel Intensity Relationship Sign (C.8.11.3.1.2): 1 where low values mean little
    exposure, which is bone and is to be white; by Photometric Interpretation where there is no sign.

    Returns:
        The values, and whether low ones are meant to be white.
    """
    if "LIN" in header.texts(dataset, "PixelIntensityRelationship"):
        meaning = np.log1p(np.maximum(meaning - min(0.0, float(meaning.min())), 0))
    sign = header.number(dataset, "PixelIntensityRelationshipSign")
    if sign in (1, -1):
        return meaning, sign == 1
    return meaning, "MONOCHROME1" in header.texts(dataset, "PhotometricInterpretation")
