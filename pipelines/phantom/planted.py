"""Files that no pipeline can use, planted among the good ones, each with the reason for which it must be set aside."""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from pipelines import files
from pipelines.phantom import encoding
from pipelines.phantom.plan import EXPLICIT, JPEG_2000, JPEG_LOSSLESS_1
from pipelines.records import Reason

FOLDER = "zz-strays"  # sorts behind the good files, so the planted duplicate is the one that comes second
CT_STORAGE, SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"
MULTI_FRAME_STORAGE, DIRECTORY = "1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.1.3.10"
PRIVATE_SYNTAX = "1.2.826.0.1.3680043.2.1143.9999.1"


@dataclass(frozen=True)
class Planted:
    """One bad file.

    Attributes:
        path: where it lies.
        reason: why it is set aside; None for one that is no image and is passed over (a DICOMDIR).
        stage: `ingest`, or `prepare` for what only decoding the pixels can tell.
    """

    path: Path
    reason: Reason | None
    stage: str = "ingest"


def plant(folder: Path, first: Dataset, seed: int) -> tuple[Planted, ...]:
    """Write the bad files below `folder`; all are variations of `first`, an uncompressed image that lies there already."""
    planted = []
    for number, (name, reason, stage, make) in enumerate(_KINDS):
        path = folder / FOLDER / name
        files.write_bytes(path, make(_stranger(first, seed, number)))
        planted.append(Planted(path, reason, stage))
    path = folder / FOLDER / "IM_0001_copy.dcm"
    files.write_bytes(path, encoding.to_bytes(_other_pixels(copy.deepcopy(first)), EXPLICIT))
    return (*planted, Planted(path, Reason.DUPLICATE))


def _stranger(first: Dataset, seed: int, number: int) -> Dataset:
    """`first` as another person's image, with UIDs of its own."""
    dataset = copy.deepcopy(first)
    dataset.PatientName, dataset.PatientID = "Nemo^Nobody", f"STRAY-{number:03d}"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(dataset, keyword, encoding.uid("stray", seed, number, keyword))
    dataset.AccessionNumber = f"STRAY{number:03d}"
    return dataset


def _pixels(dataset: Dataset) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    flat: np.ndarray[tuple[int], np.dtype[np.uint16]] = np.frombuffer(dataset.PixelData, np.uint16)
    return flat.reshape(int(dataset.Rows), int(dataset.Columns))


def _other_pixels(dataset: Dataset) -> Dataset:
    dataset.PixelData = np.ascontiguousarray(_pixels(dataset)[:, ::-1]).tobytes()
    return dataset


def _truncated(dataset: Dataset) -> bytes:
    content = encoding.to_bytes(dataset, EXPLICIT)
    return content[: len(content) // 3]


def _truncated_header(dataset: Dataset) -> bytes:
    return encoding.to_bytes(dataset, EXPLICIT)[:700]


def _text(_dataset: Dataset) -> bytes:
    return b"These are the notes of the night shift, saved under the wrong name.\n" * 8


def _empty(_dataset: Dataset) -> bytes:
    return b""


def _picture(_dataset: Dataset) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4


def _no_pixels(dataset: Dataset) -> bytes:
    del dataset.PixelData
    return encoding.to_bytes(dataset, EXPLICIT)


def _multi_frame(dataset: Dataset) -> bytes:
    dataset.NumberOfFrames = 2
    dataset.SOPClassUID = MULTI_FRAME_STORAGE
    dataset.PixelData = dataset.PixelData * 2
    return encoding.to_bytes(dataset, EXPLICIT)


def _colour(dataset: Dataset) -> bytes:
    grey = (_pixels(dataset) >> (int(dataset.BitsStored) - 8)).astype(np.uint8)
    dataset.SOPClassUID, dataset.PhotometricInterpretation = SECONDARY_CAPTURE, "RGB"
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = np.repeat(grey[:, :, None], 3, axis=2).tobytes()
    return encoding.to_bytes(dataset, EXPLICIT)


def _tomography(dataset: Dataset) -> bytes:
    dataset.Modality, dataset.SOPClassUID = "CT", CT_STORAGE
    return encoding.to_bytes(dataset, EXPLICIT)


def _no_size(dataset: Dataset) -> bytes:
    dataset.Rows = dataset.Columns = 0
    return encoding.to_bytes(dataset, EXPLICIT)


def _private_syntax(dataset: Dataset) -> bytes:
    content = encoding.to_bytes(dataset, EXPLICIT)
    private = f"{PRIVATE_SYNTAX}\0" if len(PRIVATE_SYNTAX) % 2 else PRIVATE_SYNTAX
    old = struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + EXPLICIT.encode() + b"\0"
    new = struct.pack("<HH2sH", 2, 0x10, b"UI", len(private)) + private.encode()
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, int.from_bytes(content[140:144], "little") + len(new) - len(old))
    return content[:132] + length + content[144:].replace(old, new, 1)


def _no_uid(dataset: Dataset) -> bytes:
    content = encoding.to_bytes(dataset, EXPLICIT)
    uid = str(dataset.SOPInstanceUID).encode()
    return content.replace(uid, b"\0" * len(uid))


def _burned_in(dataset: Dataset) -> bytes:
    """An image that is said to have text in its pixels, in which none is found: somebody has to look."""
    dataset.BurnedInAnnotation = "YES"
    return encoding.to_bytes(dataset, EXPLICIT)


def _wrong_bits(dataset: Dataset) -> bytes:
    dataset.BitsStored, dataset.HighBit = 17, 16
    return encoding.to_bytes(dataset, EXPLICIT)


def _directory(dataset: Dataset) -> bytes:
    listing = Dataset()
    listing.SOPClassUID, listing.SOPInstanceUID = UID(DIRECTORY), dataset.SOPInstanceUID
    listing.FileSetID = "STRAYS"
    listing.FileSetConsistencyFlag = 0
    return encoding.to_bytes(listing, EXPLICIT)


def _corrupt(dataset: Dataset) -> bytes:
    """A JPEG 2000 image whose markers are whole and whose coding parameters are not."""
    frame = bytearray(encoding.encode(_pixels(dataset), int(dataset.BitsStored), JPEG_2000))
    frame[frame.index(b"\xff\x52") + 10] = 0xEE  # the exponent of the code-block width (T.800 A.6.1)
    return _compressed(dataset, bytes(frame), JPEG_2000)


def _cut_codestream(dataset: Dataset) -> bytes:
    frame = encoding.encode(_pixels(dataset), int(dataset.BitsStored), JPEG_LOSSLESS_1)
    return _compressed(dataset, frame[: len(frame) // 2], JPEG_LOSSLESS_1)


def _blank(dataset: Dataset) -> bytes:
    dataset.PixelData = np.full_like(_pixels(dataset), 7).tobytes()
    return encoding.to_bytes(dataset, EXPLICIT)


def _compressed(dataset: Dataset, frame: bytes, syntax: str) -> bytes:
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    return encoding.to_bytes(dataset, syntax)


_KINDS: tuple[tuple[str, Reason | None, str, Callable[[Dataset], bytes]], ...] = (
    ("cut_off.dcm", Reason.TRUNCATED, "ingest", _truncated),
    ("cut_off_early", Reason.TRUNCATED, "ingest", _truncated_header),
    ("cut_off_stream.dcm", Reason.TRUNCATED, "ingest", _cut_codestream),
    ("night_shift.dcm", Reason.NOT_DICOM, "ingest", _text),
    ("empty.dcm", Reason.NOT_DICOM, "ingest", _empty),
    ("screenshot.png", Reason.NOT_DICOM, "ingest", _picture),
    ("report_only", Reason.NO_PIXELS, "ingest", _no_pixels),
    ("cine.dcm", Reason.MULTI_FRAME, "ingest", _multi_frame),
    ("capture.dcm", Reason.COLOUR, "ingest", _colour),
    ("slice.dcm", Reason.MODALITY, "ingest", _tomography),
    ("sizeless.dcm", Reason.SIZE, "ingest", _no_size),
    ("proprietary.dcm", Reason.TRANSFER_SYNTAX, "ingest", _private_syntax),
    ("nameless.dcm", Reason.MISSING_UID, "ingest", _no_uid),
    ("declared.dcm", Reason.BURNED_IN, "ingest", _burned_in),
    ("seventeen_bits.dcm", Reason.BITS, "ingest", _wrong_bits),
    ("DICOMDIR", None, "ingest", _directory),
    ("corrupt.dcm", Reason.UNDECODABLE, "ingest", _corrupt),
    ("blank.dcm", Reason.CONSTANT, "prepare", _blank),
)
