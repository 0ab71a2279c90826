"""Small DICOM files, made with pydicom, with a canary in every place where text can hide."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from pipelines.dicom.pseudonyms import Pseudonyms

CANARY = "ZEBRACANARY"
KEYED = Pseudonyms(b"a key for tests, long enough")
COMPRESSED: tuple[str, ...] = (JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless, RLELossless)
SYNTAXES: tuple[str, ...] = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    *COMPRESSED,
)
ROOT = "1.2.826.0.1.3680043.8.498"
ROWS, COLUMNS = 16, 12


def gradient(rows: int = ROWS, columns: int = COLUMNS, bits: int = 8, seed: int = 0) -> NDArray[Any]:
    """Stored values (rows, columns) that no two seeds share."""
    random = np.random.default_rng(seed)
    return random.integers(0, 1 << bits, (rows, columns)).astype(np.uint8 if bits <= 8 else np.uint16)


def header(number: int = 1, **attributes: Any) -> Dataset:
    """A plausible radiograph's header; a keyword given as None is left out."""
    dataset = Dataset()
    values: dict[str, Any] = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
        "SOPInstanceUID": f"{ROOT}.1.{number}",
        "StudyInstanceUID": f"{ROOT}.2.{number}",
        "SeriesInstanceUID": f"{ROOT}.3.{number}",
        "StudyDate": "20190314",
        "Modality": "CR",
        "AccessionNumber": f"ACC{number}",
        "Manufacturer": "Agfa-Gevaert AG",
        "InstitutionName": "Somewhere General",
        "PatientName": f"Doe^{number}",
        "PatientID": f"MRN{number}",
        "PatientSex": "F",
        "PatientAge": "061Y",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "PixelSpacing": ["0.2", "0.2"],
        **attributes,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def with_pixels(dataset: Dataset, stored: NDArray[Any], syntax: str = ExplicitVRLittleEndian, bits: int | None = None) -> Dataset:
    """Add an image in a transfer syntax; attributes that are already there stay."""
    allocated = stored.dtype.itemsize * 8
    described = {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "BitsAllocated": allocated,
        "BitsStored": bits or allocated,
        "HighBit": (bits or allocated) - 1,
        "PixelRepresentation": 0,
    }
    for keyword, value in described.items():
        if keyword not in dataset:
            setattr(dataset, keyword, value)
    if UID(syntax).is_encapsulated:
        dataset.PixelData = encapsulate([frame(stored, syntax)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    else:
        content = stored.tobytes()
        dataset.PixelData = content + b"\0" * (len(content) % 2)
        dataset["PixelData"].VR = "OW" if allocated == 16 else "OB"
    return dataset


def frame(stored: NDArray[Any], syntax: str) -> bytes:
    """A compressed image."""
    if syntax == JPEGBaseline8Bit:
        return bytes(imagecodecs.jpeg8_encode(stored, level=95))
    if syntax == JPEGLSLossless:
        return bytes(imagecodecs.jpegls_encode(stored))
    if syntax == JPEG2000Lossless:
        return bytes(imagecodecs.jpeg2k_encode(stored, level=0, codecformat="J2K", reversible=True))
    if syntax == RLELossless:
        return run_length(stored)
    raise ValueError(syntax)


def run_length(stored: NDArray[Any]) -> bytes:
    """PS3.5 Annex G, in literal runs only: one segment for each byte of a pixel, the high one first."""
    planes = stored.astype(stored.dtype.newbyteorder(">")).view(np.uint8).reshape(stored.size, -1).T
    segments = []
    for plane in planes:
        runs = [plane[start : start + 128].tobytes() for start in range(0, plane.size, 128)]
        packed = b"".join(bytes([len(run) - 1]) + run for run in runs)
        segments.append(packed + b"\0" * (len(packed) % 2))
    starts = [64 + sum(map(len, segments[:number])) for number in range(len(segments))]
    return np.array([len(segments), *starts, *[0] * (15 - len(segments))], "<u4").tobytes() + b"".join(segments)


def file_bytes(dataset: Dataset, syntax: str = ExplicitVRLittleEndian, preamble: bytes = b"\0" * 128) -> bytes:
    """A Part 10 file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.1")
    meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID") or f"{ROOT}.9"
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(f"{ROOT}.1")
    dataset.file_meta = meta
    dataset.preamble = preamble
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def radiograph(number: int = 1, syntax: str = ExplicitVRLittleEndian, bits: int = 8, **attributes: Any) -> bytes:
    """A whole file with an image of its own."""
    return file_bytes(with_pixels(header(number, **attributes), gradient(bits=bits, seed=number), syntax, bits), syntax)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
