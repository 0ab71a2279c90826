"""One image, read at the resolution that its parts are needed at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines.imaging import hashes, header
from pipelines.imaging.decode import Frame, frame
from pipelines.imaging.grayscale import padding
from pipelines.imaging.resample import Box, fitted, resampled, rounded
from pipelines.imaging.samples import HIGHEST, Codes, Samples, halvings, of_frame, of_stored, of_stream


@dataclass(repr=False)
class Picture:
    """What is known of an image's pixels; read anew where a part of it is needed at a higher resolution.

    Attributes:
        samples: the image, or a smaller version.
        blank: which of them are padding, or None for none; an image whose header knows padding is decoded whole, so that no
            mean is taken over it.
        pixel_hash: see `hashes.pixel_hash`.
    """

    frame: Frame
    samples: Samples
    blank: NDArray[np.bool_] | None
    pixel_hash: str

    @classmethod
    def read(cls, dataset: Dataset, size: int, aspect: float) -> Picture:
        """Read an image for a square of `size` pixels.

        Args:
            aspect: height of a pixel divided by its width.

        Raises:
            RefusedFileError: the pixels cannot be used; see `decode`.
        """
        checked = frame(dataset)
        layout = checked.layout
        needed = fitted(Box(0, 0, layout.rows, layout.columns), size, aspect)
        count = halvings(layout.rows, layout.columns, needed)
        with header.quiet():
            padded = header.number(dataset, "PixelPaddingValue") is not None
        if padded:
            stored = checked.decode()
            samples, blank = of_stored(stored, layout.bits_stored), padding(stored, dataset)
        else:
            samples, blank = of_stream(checked, count) or of_frame(checked), None
        return cls(checked, samples, blank, hashes.pixel_hash(samples, count))

    @property
    def whole(self) -> Box:
        return Box(0, 0, self.samples.rows, self.samples.columns)

    def part(self, box: Box, shape: tuple[int, int]) -> tuple[Codes, NDArray[np.bool_] | None]:
        """A part of the image, resampled, as codes that `samples` explains, and which of its pixels are padding.

        Padding takes no part in means; a pixel most of whose area is padding is padding.

        Args:
            box: in stored pixels.
            shape: rows and columns of the result.
        """
        whole = self.whole
        needed = (ceil(shape[0] * whole.rows / box.rows), ceil(shape[1] * whole.columns / box.columns))
        if halvings(self.samples.rows, self.samples.columns, needed) < self.samples.read_at:
            self._read_again(needed)
        if self.blank is None:
            return resampled(self.samples.halved(needed), box, shape), None
        values = replace(self.samples, codes=np.where(self.blank, 0, self.samples.codes).astype(np.uint16))
        shares = replace(self.samples, codes=np.where(self.blank, 0, HIGHEST).astype(np.uint16))
        share = resampled(shares.halved(needed), box, shape) / HIGHEST
        blank = share < 0.5
        means = resampled(values.halved(needed), box, shape) / np.where(blank, 1, share)
        return rounded(np.where(blank, 0, means)), blank

    def _read_again(self, needed: tuple[int, int]) -> None:
        layout = self.frame.layout
        self.samples = of_stream(self.frame, halvings(layout.rows, layout.columns, needed)) or of_frame(self.frame)
