"""Small radiographs as DICOM files, in every transfer syntax."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

JPEG = "1.2.840.10008.1.2.4."


def _jpeg(**options: Any) -> Callable[[NDArray[Any], int], bytes]:
    return lambda pixels, bits: imagecodecs.jpeg8_encode(pixels, bitspersample=bits, **options)


def _jpeg_2000(pixels: NDArray[Any], bits: int) -> bytes:
    return imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, codecformat="J2K", bitspersample=bits)


def _lossy_jpeg_2000(pixels: NDArray[Any], bits: int) -> bytes:
    return imagecodecs.jpeg2k_encode(pixels, level=70, reversible=False, codecformat="J2K", bitspersample=bits)


ENCODERS: dict[str, Callable[[NDArray[Any], int], bytes]] = {
    JPEG + "50": _jpeg(level=95),
    JPEG + "51": _jpeg(level=95),
    JPEG + "57": _jpeg(lossless=True, predictor=6),
    JPEG + "70": _jpeg(lossless=True, predictor=1),
    JPEG + "80": lambda pixels, bits: imagecodecs.jpegls_encode(pixels),
    JPEG + "81": lambda pixels, bits: imagecodecs.jpegls_encode(pixels, level=2),
    JPEG + "90": _jpeg_2000,
    JPEG + "91": _lossy_jpeg_2000,
    JPEG + "201": lambda pixels, bits: imagecodecs.htj2k_encode(pixels, reversible=True),
    JPEG + "202": lambda pixels, bits: imagecodecs.htj2k_encode(pixels, reversible=True),
    JPEG + "203": lambda pixels, bits: imagecodecs.htj2k_encode(pixels, reversible=False, level=0.0001),
}


def make(pixels: NDArray[Any], bits: int | None = None, **attributes: Any) -> Dataset:
    """An uncompressed image with `bits` stored; further header attributes by keyword."""
    width = pixels.dtype.itemsize * 8
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1.1")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID("2.25.1")
    dataset.Modality, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = "DX", 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = width, bits or width, (bits or width) - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB" if width == 8 else "OW"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def compress(dataset: Dataset, syntax: str, pixels: NDArray[Any]) -> Dataset:
    """The same image in another transfer syntax."""
    if syntax == RLELossless:
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        return dataset
    bits = dataset.BitsStored
    plain = pixels
    if pixels.dtype.kind == "i" and syntax not in (JPEG + "90", JPEG + "91", JPEG + "201", JPEG + "202", JPEG + "203"):
        plain = pixels.view(f"u{pixels.dtype.itemsize}") & ((1 << bits) - 1)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = encapsulate([ENCODERS[syntax](np.ascontiguousarray(plain), bits)])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def to_bytes(dataset: Dataset, **options: Any) -> bytes:
    stream = BytesIO()
    dcmwrite(stream, dataset, **{"enforce_file_format": True, **options})
    return stream.getvalue()


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Dataset]:
    return make


@pytest.fixture(scope="session")
def compressed() -> Callable[[Dataset, str, NDArray[Any]], Dataset]:
    return compress


@pytest.fixture(scope="session")
def dicom_bytes() -> Callable[..., bytes]:
    return to_bytes


@pytest.fixture(scope="session")
def scene() -> Callable[..., NDArray[Any]]:
    """A smooth picture without symmetry, with a little noise, over the full range of `bits`."""

    def draw(bits: int, signed: bool = False, rows: int = 48, columns: int = 36) -> NDArray[Any]:
        y, x = np.mgrid[0:rows, 0:columns] / max(rows, columns)
        shade = 0.2 + 0.5 * y + 0.25 * x + 0.04 * np.random.default_rng(bits).standard_normal((rows, columns))
        shade[rows // 4 : rows // 2, columns // 2 :] *= 0.4
        top = (1 << bits) - 1
        values = np.clip(shade * top, 0, top).astype(np.int64)
        values.flat[0], values.flat[-1] = 0, top
        size = 1 if bits <= 8 else 2
        return (values - (1 << (bits - 1))).astype(f"i{size}") if signed else values.astype(f"u{size}")

    return draw
