"""What a compressed image says of itself, read from its header without decoding."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pipelines.errors import RefusedFileError
from pipelines.records import Reason

# SOF0 … SOF15 without DHT (C4), JPG (C8) and DAC (CC): ITU-T T.81 table B.1; SOF55 (F7): ITU-T T.87 C.1.1.
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7})
_SCAN = 0xDA
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_SIZE = b"\xff\x4f\xff\x51"
_END = b"\xff\xd9"


@dataclass(frozen=True)
class Codestream:
    """Rows, columns, bits per sample and number of components of a compressed image."""

    rows: int
    columns: int
    bits: int
    components: int


def jpeg(frame: bytes) -> Codestream:
    """Read the frame header of a JPEG or JPEG-LS stream (ITU-T T.81 B.2.2).

    Raises:
        RefusedFileError: there is none (`Reason.UNDECODABLE`).
    """
    position = 2 if frame[:2] == b"\xff\xd8" else len(frame)
    while position + 4 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAME_MARKERS and position + 10 <= len(frame):
            bits, rows, columns, components = struct.unpack(">BHHB", frame[position + 4 : position + 10])
            return Codestream(rows, columns, bits, components)
        if marker == _SCAN:
            break
        position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    raise RefusedFileError(Reason.UNDECODABLE, "no JPEG frame header")


def jpeg_2000(frame: bytes) -> Codestream:
    """Read the SIZ segment of a JPEG 2000 or HTJ2K stream, bare or in a JP2 file (ITU-T T.800 A.5.1).

    Raises:
        RefusedFileError: there is none (`Reason.UNDECODABLE`).
    """
    start = frame.find(_SIZE)
    if start < 0 or start + 43 > len(frame):
        raise RefusedFileError(Reason.UNDECODABLE, "no JPEG 2000 size segment")
    right, bottom, left, top = struct.unpack(">4I", frame[start + 8 : start + 24])
    components, depth = struct.unpack(">HB", frame[start + 40 : start + 43])
    return Codestream(bottom - top, right - left, (depth & 0x7F) + 1, components)


def is_complete(frame: bytes) -> bool:
    """Whether a JPEG, JPEG-LS or JPEG 2000 stream has its end marker, which cannot occur within compressed data.

    Decoders fill what is missing of a shortened stream with grey, or take seconds to notice.
    """
    return frame.find(_END, len(frame) // 2) >= 0
