"""Images of any shape into squares, keeping their aspect."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Fitted:
    """An image fitted into a square.

    Attributes:
        image: float32 (size, size), zero outside the content.
        box: top, left, height and width of the content, in pixels.
    """

    image: NDArray[np.float32]
    box: tuple[int, int, int, int]

    @property
    def content(self) -> NDArray[np.float32]:
        """The part of the image inside the padding, (height, width)."""
        top, left, height, width = self.box
        return self.image[top : top + height, left : left + width]


def fit(image: NDArray[np.float32], size: int, aspect: float = 1.0) -> Fitted:
    """Scale `image` so that its longer side fills `size`, and centre it on zeros.

    Downwards each pixel is the mean over the area that it covers; upwards it is interpolated linearly.

    Args:
        image: (rows, columns), 0…1.
        aspect: height of a pixel divided by its width.
    """
    rows, columns = image.shape
    tall = rows * aspect
    scale = size / max(tall, columns)
    height, width = (min(size, max(1, round(side * scale))) for side in (tall, columns))
    scaled = np.clip(resize(image, height, width), 0, 1)
    top, left = (size - height) // 2, (size - width) // 2
    square = np.zeros((size, size), np.float32)
    square[top : top + height, left : left + width] = scaled
    return Fitted(square, (top, left, height, width))


def resize(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Scale to (height, width): by area on an axis that shrinks, linearly on one that grows."""
    rows, columns = image.shape
    shrunk = (min(height, rows), min(width, columns))
    result: NDArray[np.float32] = np.ascontiguousarray(image, np.float32)
    if shrunk != (rows, columns):
        result = cv2.resize(result, shrunk[::-1], interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)
    if shrunk != (height, width):
        result = cv2.resize(result, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
    return result
