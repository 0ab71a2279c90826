"""One radiograph: from a DICOM file to the array that a network sees. The one path for training and for prediction."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from pipelines.errors import RefusedFileError
from pipelines.imaging import hashes, header
from pipelines.imaging.decode import decode
from pipelines.imaging.grayscale import grayscale
from pipelines.imaging.resample import fit
from pipelines.records import Reason

_PREAMBLE = 128
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")


@dataclass(frozen=True)
class Recipe:
    """How radiographs are prepared; two recipes that are equal give equal arrays.

    Attributes:
        size: rows and columns of a prepared image.
        depth: `uint8` or `uint16`, the grey levels.
        percentiles: the window, in percent, where the header has none.
    """

    size: int
    depth: str
    percentiles: tuple[float, float]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.depth)

    def to_dict(self) -> dict[str, Any]:
        return {"size": self.size, "depth": self.depth, "percentiles": list(self.percentiles)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        low, high = values["percentiles"]
        return cls(int(values["size"]), str(values["depth"]), (float(low), float(high)))


@dataclass(frozen=True)
class Prepared:
    """A prepared radiograph and what is recorded of it; the fields but `array` are columns of `records.INDEX`.

    Attributes:
        array: uint8 or uint16 (size, size), zero outside the content.
    """

    array: NDArray[Any]
    window: str
    mean: float
    std: float
    dark: float
    bright: float
    pixel_hash: str
    perceptual_hash: str


def read(source: Path | bytes) -> Dataset:
    """Read a DICOM file, with or without preamble and file meta information, in silence.

    Raises:
        RefusedFileError: it is not DICOM, is cut off, or its header cannot be read. The message holds no header value.
    """
    content = source if isinstance(source, bytes) else source.read_bytes()
    marked = content[_PREAMBLE : _PREAMBLE + 4] == b"DICM"
    with header.quiet(), warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always")
        try:
            dataset = dcmread(BytesIO(content), force=True)
            empty = not any(keyword in dataset for keyword in ("SOPClassUID", "SOPInstanceUID", "Rows"))
        except Exception:
            # Arbitrary bytes make the parser raise anything, and its messages repeat them.
            raise RefusedFileError(Reason.UNREADABLE if marked else Reason.NOT_DICOM) from None
    if empty:
        raise RefusedFileError(Reason.TRUNCATED if marked else Reason.NOT_DICOM)
    if any("End of file" in str(notice.message) for notice in notices):
        raise RefusedFileError(Reason.TRUNCATED, "the file ends inside an element")
    return dataset


def prepare(dataset: Dataset, recipe: Recipe) -> Prepared:
    """Decode, show as meant, and fit into the recipe's square.

    Raises:
        RefusedFileError: the image cannot be used; see `decode` and `grayscale`.
    """
    try:
        return _prepared(dataset, recipe)
    except RefusedFileError:
        raise
    except Exception:
        # No header may stop the other files, however odd, and the parser's message could repeat its values.
        raise RefusedFileError(Reason.UNREADABLE, "the header cannot be made sense of") from None


def _prepared(dataset: Dataset, recipe: Recipe) -> Prepared:
    stored = decode(dataset)
    shown = grayscale(stored, dataset, recipe.percentiles)
    fitted = fit(shown.image, recipe.size, pixel_aspect(dataset))
    most = np.iinfo(recipe.dtype).max
    array = np.rint(fitted.image * most).astype(recipe.dtype)
    top, left, height, width = fitted.box
    content = array[top : top + height, left : left + width]
    return Prepared(
        array=array,
        window=shown.window,
        mean=float(content.mean(dtype=np.float64) / most),
        std=float(content.std(dtype=np.float64) / most),
        dark=float(np.mean(content == 0)),
        bright=float(np.mean(content == most)),
        pixel_hash=hashes.pixel_hash(stored),
        perceptual_hash=hashes.perceptual_hash(content.astype(np.float32)),
    )


def pixel_aspect(dataset: Dataset) -> float:
    """Height of a pixel divided by its width, from the spacings or the aspect ratio; 1 where they say nothing credible.

    Both give the vertical value first (PS3.3 10.7.1.3, C.7.6.3.1.7).
    """
    with header.quiet():
        for keyword in _SPACINGS:
            pair = header.numbers(dataset, keyword)
            if len(pair) == 2 and min(pair) > 0:
                aspect = pair[0] / pair[1]
                return aspect if 0.2 <= aspect <= 5 and abs(aspect - 1) > 0.01 else 1.0
    return 1.0
