"""One radiograph: from a DICOM file to the array that a network sees. The one path for training and for prediction."""

from __future__ import annotations

import os
import warnings
import zlib
from dataclasses import asdict, astuple, dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pipelines.errors import RefusedFileError
from pipelines.imaging import crop, detector, hashes, header, orientation
from pipelines.imaging.grayscale import Showing, histogram, shown
from pipelines.imaging.picture import Picture
from pipelines.imaging.resample import Box, centred, fitted
from pipelines.records import Reason

LARGEST = 1 << 28
"""Bytes of a file, and of what it inflates to; the largest image that is decoded takes three quarters of it."""

_PREAMBLE = 128
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")


@dataclass(frozen=True)
class Recipe:
    """How radiographs are prepared; two recipes that are equal give equal arrays.

    Attributes:
        size: rows and columns of a prepared image.
        depth: `uint8` or `uint16`, the grey levels.
        percentiles: the window, in percent, where the header has none.
        window: explanation of the window or VOI LUT to take where there are several; None takes the first.
        for_processing: `render` shows raw detector images, `leave_out` refuses them.
        crop: cut off the borders of rectangular collimation.
        flip_right: body parts whose right side is mirrored; True stands for all.
        flip_views: views that are mirrored.
    """

    size: int
    depth: str
    percentiles: tuple[float, float]
    window: str | None = None
    for_processing: str = "leave_out"
    crop: bool = False
    flip_right: bool | tuple[str, ...] = False
    flip_views: tuple[str, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.depth)

    @property
    def showing(self) -> Showing:
        return Showing(self.percentiles, self.window)

    def to_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """What `to_dict` gave; what it did not say has the default, which is how that was done before it could be chosen."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        recipe: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
        return cls(**recipe)


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
    pixel_aspect: float
    reduction: float
    crop: str | None
    mirrored: float
    pixel_hash: str
    perceptual_hash: str


def read(source: Path | bytes) -> Dataset:
    """Read a DICOM file, with or without preamble and file meta information, in silence.

    Raises:
        RefusedFileError: it is not DICOM, is cut off, is larger than any image, as it is or inflated, or its header cannot be
            read. The message holds no header value.
        OSError: it cannot be read at all.
    """
    if isinstance(source, bytes):
        return _read(source)
    with source.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size  # what a device or a growing file has beyond it is not read
        return _read(stream.read(min(size, LARGEST + 1)))


def _read(content: bytes) -> Dataset:
    if len(content) > LARGEST:
        raise RefusedFileError(Reason.SIZE, f"a file of more than {LARGEST >> 20} MiB")
    marked = content[_PREAMBLE : _PREAMBLE + 4] == b"DICM"
    with header.quiet(), warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always")
        try:
            dataset = dcmread(_plain(content), force=True)
            empty = not any(keyword in dataset for keyword in ("SOPClassUID", "SOPInstanceUID", "Rows"))
        except (RefusedFileError, MemoryError):
            raise
        except Exception:
            # Arbitrary bytes make the parser raise anything, and its messages repeat them.
            raise RefusedFileError(Reason.UNREADABLE if marked else Reason.NOT_DICOM) from None
    if empty:
        raise RefusedFileError(Reason.TRUNCATED if marked else Reason.NOT_DICOM)
    if any("End of file" in str(notice.message) for notice in notices):
        raise RefusedFileError(Reason.TRUNCATED, "the file ends inside an element")
    return dataset


def _plain(content: bytes) -> BinaryIO:
    """A file as it is, or the data set alone of a deflated one (PS3.5 A.5), which pydicom would inflate to any size."""
    stream, deflated = BytesIO(content), DeflatedExplicitVRLittleEndian.encode()
    if deflated not in content:
        return stream
    read_preamble(stream, force=True)
    meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if header.value(meta, "TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        stream.seek(0)
        return stream
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = engine.decompress(stream.read(), LARGEST)
    if engine.unconsumed_tail:
        raise RefusedFileError(Reason.SIZE, f"deflated data of more than {LARGEST >> 20} MiB")
    if not engine.eof:
        raise RefusedFileError(Reason.TRUNCATED, "the deflated data end early")
    if deflated in inflated:
        raise RefusedFileError(Reason.UNREADABLE, "deflated data within deflated data")
    return BytesIO(inflated)


def prepare(dataset: Dataset, recipe: Recipe) -> Prepared:
    """Decode, show as meant, and fit into the recipe's square.

    Raises:
        RefusedFileError: the image cannot be used; see `decode` and `grayscale`.
    """
    try:
        return _prepared(dataset, recipe)
    except RefusedFileError:
        raise
    except MemoryError:
        raise RefusedFileError(Reason.SIZE, "needs more memory than one image may take") from None
    except Exception:
        # No header may stop the other files, however odd, and the parser's message could repeat its values.
        raise RefusedFileError(Reason.UNREADABLE, "the header cannot be made sense of") from None


def _prepared(dataset: Dataset, recipe: Recipe) -> Prepared:
    if recipe.for_processing != "render" and detector.is_raw(dataset):
        raise RefusedFileError(Reason.FOR_PROCESSING, "raw detector data; prepare.for_processing: render takes them")
    aspect = pixel_aspect(dataset)
    picture = Picture.read(dataset, recipe.size, aspect)
    box = _field(picture, dataset, recipe) if recipe.crop else picture.whole
    codes, blank = picture.part(box, fitted(box, recipe.size, aspect))
    image = shown(codes, picture.samples, blank, dataset, recipe.showing)
    mirrored = orientation.is_mirrored(dataset, recipe.flip_right, recipe.flip_views)
    content = image.levels(recipe.dtype)
    content = content[:, ::-1] if mirrored else content
    share = histogram(content) / content.size
    levels = np.linspace(0, 1, len(share))
    mean = share @ levels
    return Prepared(
        array=centred(content, recipe.size),
        window=image.window,
        mean=float(mean),
        std=float(np.sqrt(share @ (levels - mean) ** 2)),
        dark=float(share[0]),
        bright=float(share[-1]),
        pixel_aspect=aspect,
        reduction=1 << picture.samples.read_at,
        crop=None if box == picture.whole else " ".join(f"{edge:.0f}" for edge in astuple(box)),
        mirrored=float(mirrored),
        pixel_hash=picture.pixel_hash,
        perceptual_hash=hashes.perceptual_hash(content),
    )


def _field(picture: Picture, dataset: Dataset, recipe: Recipe) -> Box:
    codes, blank = picture.part(picture.whole, fitted(picture.whole, min(crop.PREVIEW, recipe.size)))
    image = shown(codes, picture.samples, blank, dataset, recipe.showing).image
    return crop.open_field(image, dataset, picture.samples.rows, picture.samples.columns)


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
