"""What a compressed image says of itself, read from its header without decoding."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pipelines.errors import RefusedFileError
from pipelines.records import Reason

# SOF0 … SOF15 without DHT (C4), JPG (C8) and DAC (CC): ITU-T T.81 table B.1; SOF55 (F7): ITU-T T.87 C.1.1.
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7})
_SCALABLE = frozenset({0xC0, 0xC1, 0xC2})  # of DCT coefficients, Huffman coded: libjpeg reads them at 1/2, 1/4 and 1/8
_SCAN = 0xDA
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_SIZE = b"\xff\x4f\xff\x51"
_CODING_STYLE, _COMPONENT_STYLE, _TILE_PART = 0xFF52, 0xFF53, 0xFF90
_END = b"\xff\xd9"


@dataclass(frozen=True)
class Codestream:
    """What a compressed image says of itself.

    Attributes:
        bits: per sample.
        signed: whether samples are, in a stream that can say so.
        levels: how many times the image can be read at half the size without decoding it whole.
    """

    rows: int
    columns: int
    bits: int
    components: int
    signed: bool = False
    levels: int = 0


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
            return Codestream(rows, columns, bits, components, levels=3 if marker in _SCALABLE and bits == 8 else 0)
        if marker == _SCAN:
            break
        position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    raise RefusedFileError(Reason.UNDECODABLE, "no JPEG frame header")


def jpeg_2000(frame: bytes) -> Codestream:
    """Read the SIZ and COD segments of a JPEG 2000 or HTJ2K stream, bare or in a JP2 file (ITU-T T.800 A.5.1, A.6.1).

    Raises:
        RefusedFileError: there is none (`Reason.UNDECODABLE`).
    """
    start = frame.find(_SIZE)
    if start < 0 or start + 43 > len(frame):
        raise RefusedFileError(Reason.UNDECODABLE, "no JPEG 2000 size segment")
    right, bottom, left, top, tile_width, tile_height = struct.unpack(">6I", frame[start + 8 : start + 32])
    components, depth = struct.unpack(">HB", frame[start + 40 : start + 43])
    whole = (left, top) == (0, 0) and tile_width >= right and tile_height >= bottom
    levels = _resolution_levels(frame, start + 2) if whole else 0
    return Codestream(bottom - top, right - left, (depth & 0x7F) + 1, components, depth > 0x7F, levels)


def _resolution_levels(frame: bytes, position: int) -> int:
    """The decomposition levels that the main header gives (A.6.1, A.6.2); of one image in several tiles none are counted.

    The borders of tiles would show in a reduced image's samples, and those would not be the same as of the image in one piece.
    """
    found: list[int] = []
    while position + 10 <= len(frame):
        marker, length = struct.unpack(">HH", frame[position : position + 4])
        if marker == _TILE_PART:
            break
        if marker == _CODING_STYLE:
            found.append(frame[position + 9])
        if marker == _COMPONENT_STYLE:
            found.append(frame[position + 6])
        position += 2 + length
    return min(found, default=0)


def is_complete(frame: bytes) -> bool:
    """Whether a JPEG, JPEG-LS or JPEG 2000 stream has its end marker, which cannot occur within compressed data.

    Decoders fill what is missing of a shortened stream with grey, or take seconds to notice.
    """
    return frame.find(_END, len(frame) // 2) >= 0
