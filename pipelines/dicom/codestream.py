"""Take text out of compressed images without decoding them: comments, application data, what follows the end.

Payloads are overwritten in place with zeros, so every byte that a decoder reads stays where it was. What decoders need
is kept: the JFIF, Adobe and SPIFF headers and the colour marker of HP's JPEG-LS.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

from pipelines.errors import RefusedFileError
from pipelines.records import Reason

# In entropy-coded data 0xFF is stuffed: JPEG with 0x00 (T.81 B.1.1.5), JPEG-LS with a zero bit (T.87 A.1), JPEG 2000
# with a byte up to 0x8F (T.800 B.10.1). Restart markers D0–D7 are part of the scan.
_AFTER_JPEG_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_AFTER_JPEG_LS_SCAN = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")

# Application segments: marker, how the payload starts, how many bytes of it a decoder reads.
_KEPT_APPLICATION_DATA = (
    (0xE0, b"JFIF\0", 14),
    (0xE8, b"SPIFF\0", 30),
    (0xE8, b"\0\0\0\1\xff\xd8", 6),  # the end of SPIFF's directory
    (0xE8, b"mrfx", 5),
    (0xEE, b"Adobe", 12),
)
_UNCHANGED = bytes(range(256))
_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_JPEG_SEGMENTS = frozenset({*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xF7, 0xF8})

_SOC, _SOT, _SOD, _EOC, _SIZ = 0xFF4F, 0xFF90, 0xFF93, 0xFFD9, 0xFF51
_J2K_SEGMENTS = frozenset({0x50, 0x51, 0x52, 0x53, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5C, 0x5D, 0x5E, 0x5F, 0x60, 0x61, 0x63})


def clean_jpeg(frame: bytes, *, jpeg_ls: bool = False) -> bytes:
    """A JPEG or JPEG-LS image (T.81 Annex B, T.87 Annex C) without text.

    Raises:
        RefusedFileError: truncated: no end of image; undecodable: not a sequence of markers.
    """
    if frame[:2] != b"\xff\xd8":
        raise _undecodable("no start of image")
    after_scan = _AFTER_JPEG_LS_SCAN if jpeg_ls else _AFTER_JPEG_SCAN
    cleaned = bytearray(frame)
    position = 2
    while True:
        position, marker = _marker(frame, position)
        if marker == _EOI:
            return bytes(cleaned[:position])
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            continue
        start, end = _segment(frame, position)
        if marker not in _JPEG_SEGMENTS:
            kept = start + _kept(marker, frame[start:end])
            cleaned[kept:end] = bytes(end - kept)
        position = end
        if marker == _SOS:
            found = after_scan.search(frame, end)
            if found is None:
                raise _truncated()
            position = found.start()


def clean_jpeg2000(frame: bytes) -> bytes:
    """The codestream of a JPEG 2000 image (T.800 Annex A, T.814), out of its JP2 boxes if it is in any, without text.

    Raises:
        RefusedFileError: truncated: a tile part or the end of the codestream is missing; undecodable: not a codestream.
    """
    frame = _out_of_boxes(frame)
    if frame[:2] != b"\xff\x4f":
        raise _undecodable("no start of codestream")
    cleaned = bytearray(frame)
    position = 2
    while True:
        marker, start, end = _header_segment(frame, position)
        if marker == _EOC:
            return bytes(cleaned[: position + 2])
        if marker == _SOT:
            position = _tile_part(frame, cleaned, position)
            continue
        _blank(cleaned, marker, start, end)
        position = end


def clean_rle(frame: bytes, *, pixels: int, tables: Sequence[bytes]) -> bytes:
    """An RLE image (PS3.5 Annex G) with its segments cut where their last pixel is, and every byte of a pixel looked up.

    Args:
        frame: header of 64 bytes and segments.
        pixels: rows × columns, the bytes that each segment decodes to.
        tables: one for each byte of a pixel, the highest first, which is one for each segment: 256 values by value.

    Raises:
        RefusedFileError: truncated: a segment ends early; undecodable: the header does not fit the image.
    """
    if len(frame) < 64:
        raise _truncated()
    count, *offsets = struct.unpack("<16I", frame[:64])
    if count != len(tables) or any(offset < 64 for offset in offsets[:count]):
        raise _undecodable(f"{len(tables)} segments expected")
    segments = []
    for offset, table in zip(offsets, tables, strict=False):
        segment = _run_lengths(frame, offset, pixels, table)
        segments.append(segment + b"\0" * (len(segment) % 2))
    starts = [64 + sum(map(len, segments[:number])) for number in range(count)]
    return struct.pack("<16I", count, *starts, *[0] * (15 - count)) + b"".join(segments)


def _run_lengths(frame: bytes, position: int, pixels: int, table: bytes) -> bytes:
    """The PackBits segment at `position`, up to the byte of the last pixel, its bytes looked up in `table`."""
    start, size, decoded = position, len(frame), 0
    cleaned, changes = bytearray(frame), table != _UNCHANGED
    while decoded < pixels:
        if position >= size:
            raise _truncated()
        run, control = position, frame[position]
        if control < 128:
            decoded += control + 1
            position += control + 2
            if decoded > pixels:  # the rest of the run is no image
                position -= decoded - pixels
                cleaned[run] -= decoded - pixels
        elif control > 128:
            decoded += 257 - control
            position += 2
        else:
            position += 1
        if changes:
            cleaned[run + 1 : position] = frame[run + 1 : position].translate(table)
    if position > size:
        raise _truncated()
    return bytes(cleaned[start:position])


def _marker(frame: bytes, position: int) -> tuple[int, int]:
    """The marker at `position` (fill bytes may precede it, T.81 B.1.1.2) and the position after it."""
    if position < len(frame) and frame[position] != 0xFF:
        raise _undecodable("bytes between segments")
    while position < len(frame) and frame[position] == 0xFF:
        position += 1
    if position >= len(frame):
        raise _truncated()
    return position + 1, frame[position]


def _segment(frame: bytes, position: int) -> tuple[int, int]:
    """Start and end of the payload of the segment whose length stands at `position`."""
    if position + 2 > len(frame):
        raise _truncated()
    length = int.from_bytes(frame[position : position + 2])
    if length < 2:
        raise _undecodable("a segment shorter than its length field")
    if position + length > len(frame):
        raise _truncated()
    return position + 2, position + length


def _kept(marker: int, payload: bytes) -> int:
    for kind, start, size in _KEPT_APPLICATION_DATA:
        if marker == kind and payload.startswith(start):
            return min(size, len(payload))
    return 0


def _header_segment(frame: bytes, position: int) -> tuple[int, int, int]:
    """Marker, and start and end of the payload, of the segment at `position` of a JPEG 2000 header."""
    if position + 2 > len(frame):
        raise _truncated()
    marker = int.from_bytes(frame[position : position + 2])
    if marker in (_EOC, _SOD):
        return marker, position + 2, position + 2
    if marker < 0xFF00:
        raise _undecodable("bytes between segments")
    start, end = _segment(frame, position + 2)
    return marker, start, end


def _blank(cleaned: bytearray, marker: int, start: int, end: int) -> None:
    """Overwrite a segment that no decoder needs; two bytes of a comment say that it is one (T.800 A.9.2)."""
    if marker & 0xFF not in _J2K_SEGMENTS:
        kept = start + 2 if marker == 0xFF64 else start
        cleaned[kept:end] = bytes(max(0, end - kept))


def _tile_part(frame: bytes, cleaned: bytearray, position: int) -> int:
    """Blank the comments of the tile part at `position` (T.800 A.4.2); where it ends."""
    _, start, end = _header_segment(frame, position)
    if end - start != 8:
        raise _undecodable("a tile part header of the wrong length")
    length = int.from_bytes(frame[start + 2 : start + 6])
    marker = _SOT
    while marker != _SOD:
        marker, start, end = _header_segment(frame, end)
        if marker == _EOC:
            raise _undecodable("a tile part without data")
        if marker != _SOD:
            _blank(cleaned, marker, start, end)
    # A length of zero: the last tile part, up to the end of the codestream.
    tile_end = position + length if length else frame.find(b"\xff\xd9", end)
    if tile_end < end or tile_end > len(frame):
        raise _truncated()
    return tile_end


def _out_of_boxes(frame: bytes) -> bytes:
    """The contiguous codestream box of a JP2 file (T.800 Annex I); PS3.5 A.4.4 wants the codestream alone."""
    if frame[4:8] != b"jP  ":
        return frame
    position = 0
    while position + 8 <= len(frame):
        length, kind = struct.unpack(">I4s", frame[position : position + 8])
        start = position + 8
        if length == 1 and position + 16 <= len(frame):
            length, start = struct.unpack(">Q", frame[start : start + 8])[0], position + 16
        end = position + length if length else len(frame)
        if kind == b"jp2c":
            if end > len(frame):
                raise _truncated()
            return frame[start:end]
        if end <= position:
            break
        position = end
    raise _undecodable("no codestream in the JP2 boxes")


def _truncated() -> RefusedFileError:
    return RefusedFileError(Reason.TRUNCATED, "the compressed image ends early")


def _undecodable(detail: str) -> RefusedFileError:
    return RefusedFileError(Reason.UNDECODABLE, detail)
