"""Pixels into DICOM files, always to the same bytes: fixed encoder settings, no times, no random UIDs."""

from __future__ import annotations

import hashlib
import struct
from io import BytesIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from pipelines.phantom.plan import EXPLICIT, IMPLICIT, JPEG_8, JPEG_2000, JPEG_LOSSLESS, JPEG_LOSSLESS_1, JPEG_LS, RLE

NATIVE = (IMPLICIT, EXPLICIT)
QUALITY = 92


def uid(*parts: object) -> UID:
    """A UID that depends on `parts` only (PS3.5 B.2: 2.25 and a 128-bit number)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def set_pixels(dataset: Dataset, grey: NDArray[np.uint16], bits: int, syntax: str) -> None:
    """Give `dataset` its image pixel module (PS3.3 C.7.6.3) but for PhotometricInterpretation, with encoded pixels."""
    cells = grey.astype(np.uint8) if bits == 8 else grey
    dataset.SamplesPerPixel = 1
    dataset.Rows, dataset.Columns = cells.shape
    dataset.BitsAllocated = 8 * cells.itemsize
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    if syntax in NATIVE:
        dataset.PixelData = cells.astype(cells.dtype.newbyteorder("<")).tobytes()
        dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    else:
        dataset.PixelData = encapsulate([encode(cells, bits, syntax)])
        dataset["PixelData"].VR = "OB"
    if syntax == JPEG_8:
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod = "ISO_10918_1"


def encode(cells: NDArray[np.uint8] | NDArray[np.uint16], bits: int, syntax: str) -> bytes:
    """One compressed frame."""
    if syntax == RLE:
        return _rle(cells)
    if syntax == JPEG_LS:
        return bytes(imagecodecs.jpegls_encode(cells))
    if syntax == JPEG_2000:
        return bytes(imagecodecs.jpeg2k_encode(cells, codecformat="j2k", reversible=True, bitspersample=bits, numthreads=1))
    if syntax == JPEG_8:
        return bytes(imagecodecs.jpeg8_encode(cells, level=QUALITY, optimize=False))
    predictor = {JPEG_LOSSLESS: 4, JPEG_LOSSLESS_1: 1}[syntax]
    return bytes(imagecodecs.jpeg8_encode(cells, lossless=True, predictor=predictor, bitspersample=bits))


def _rle(cells: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """An RLE frame (PS3.5 G): one PackBits segment for each byte of a cell, the high byte first, each row by itself."""
    planes = cells.astype(cells.dtype.newbyteorder(">")).view(np.uint8).reshape(*cells.shape, cells.itemsize)
    segments = []
    for plane in range(cells.itemsize):
        rows = np.ascontiguousarray(planes[:, :, plane])
        segment = b"".join(bytes(imagecodecs.packbits_encode(row.tobytes())) for row in rows)
        segments.append(segment + b"\0" * (len(segment) % 2))
    offsets = [64 + sum(map(len, segments[:place])) for place in range(len(segments))]
    header = struct.pack("<16I", len(segments), *offsets, *([0] * (15 - len(offsets))))
    return header + b"".join(segments)


def to_bytes(dataset: Dataset, syntax: str) -> bytes:
    """A whole Part 10 file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = uid("radtransfer phantom")
    meta.ImplementationVersionName = "RT_PHANTOM"
    dataset.file_meta = meta
    buffer = BytesIO()
    dcmwrite(buffer, dataset, implicit_vr=syntax == IMPLICIT, little_endian=True, enforce_file_format=True)
    return buffer.getvalue()
