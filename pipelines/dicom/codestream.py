"""Take text out of compressed images without decoding them: comments, application data, what follows the end.

Payloads are overwritten in place with zeros, so every byte that a decoder reads stays where it was. What decoders need
is kept: the JFIF, Adobe and SPIFF headers, the colour marker of HP's JPEG-LS, of every other segment of a JPEG as much as its
own numbers say that there is, and the tables of JPEG 2000 as they are.

Where the entropy-coded data end only a decoder knows, and none tells: bytes that hang behind the last coded pixel, before the
next marker, stay. Text there is looked for (`_ENDS_IN_TEXT`), and an image that has some is refused.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence

from pipelines.errors import RefusedFileError
from pipelines.records import Reason

# In entropy-coded data 0xFF is stuffed: JPEG with 0x00 (T.81 B.1.1.5), JPEG-LS with a zero bit (T.87 A.1), JPEG 2000
# with a byte up to 0x8F (T.800 B.10.1). Restart markers D0–D7 are part of the scan.
_AFTER_JPEG_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_AFTER_JPEG_LS_SCAN = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")

# Application segments: marker, and what a decoder reads of the payload, with numbers that are credible.
_KEPT_APPLICATION_DATA = tuple(
    (marker, re.compile(pattern, re.DOTALL))
    for marker, pattern in (
        (0xE0, rb"JFIF\x00[\x01\x02].[\x00-\x02][\x00-\x1f].[\x00-\x1f]..."),
        (0xE8, rb"SPIFF\x00[\x00-\x02][\x00-\x02][\x00-\x04][\x00-\x04]\x00\x00..\x00\x00..[\x00-\x1f]{4}\x00...\x00..."),
        (0xE8, rb"\x00\x00\x00\x01\xff\xd8"),  # the end of SPIFF's directory
        (0xE8, rb"mrfx[\x00-\x07]"),
        (0xEE, rb"Adobe\x00.\x00.{3}[\x00-\x02]"),
    )
)
_UNCHANGED = bytes(range(256))
_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_DHT, _DQT, _DNL, _DRI, _LSE = 0xC4, 0xDB, 0xDC, 0xDD, 0xF8
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {_DHT, 0xC8, 0xCC}  # T.81 table B.1 without JPG and DAC, T.87 C.1.1

# Sixteen characters at the end, of ASCII, ISO 2022 or UTF-8; coded pixels look so once in a million images.
_CHARACTER = rb"[\t\n\r\x1b -~]|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
_TEXT = re.compile(rb"((?:" + _CHARACTER + rb"){16,}+)")
_ENDS_IN_TEXT = re.compile(_TEXT.pattern + rb"[\0\xff]*\Z")
_LONGEST_TEXT = 1 << 9
_FEWEST_LETTERS = 8  # different ones: the code of an even grey, over and over, has no more than seven

_SOC, _SOT, _SOD, _EOC, _SIZ = 0xFF4F, 0xFF90, 0xFF93, 0xFFD9, 0xFF51
_J2K_COMMENT = 0x64
# T.800 A.2 and T.814 A.2, without what is only told to readers in a hurry (PLM, PLT) or to nobody (CRG, PRF, CPF).
_J2K_CODING = frozenset({0x51, 0x52, 0x53, 0x5C, 0x5D, 0x60, 0x61})
_J2K_LISTS = frozenset({0x50, 0x55, 0x5E, 0x5F})  # of small numbers, which make no text


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
        kept = start + _kept(marker, frame[start:end])
        cleaned[kept:end] = bytes(end - kept)
        position = end
        if marker == _SOS:
            found = after_scan.search(frame, end)
            if found is None:
                raise _truncated()
            position = found.start()
            _refuse_text(_ENDS_IN_TEXT, frame, max(end, position - _LONGEST_TEXT), position)


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
    """How many bytes of a segment a decoder reads, at most."""
    if marker in _NEEDED:
        return min(_NEEDED[marker](payload), len(payload))
    matches = (pattern.match(payload) for kind, pattern in _KEPT_APPLICATION_DATA if kind == marker)
    return next((match.end() for match in matches if match), 0)


def _tables(payload: bytes, length: Callable[[bytes], int]) -> int:
    """Bytes of the tables that stand one behind the other in a segment, each of the `length` that its first bytes say."""
    position = 0
    while position < len(payload) and position + length(payload[position : position + 17]) <= len(payload):
        position += length(payload[position : position + 17])
    return position


# T.81 B.2.2, B.2.3, B.2.4, B.2.5; T.87 C.2.4: of LSE only the thresholds, since mapping tables are those of colours.
_NEEDED: dict[int, Callable[[bytes], int]] = {
    **dict.fromkeys(_FRAMES, lambda payload: 6 + 3 * (payload[5:6] or b"\0")[0]),
    _SOS: lambda payload: 4 + 2 * (payload[:1] or b"\0")[0],
    _DHT: lambda payload: _tables(payload, lambda table: 17 + sum(table[1:])),
    _DQT: lambda payload: _tables(payload, lambda table: 129 if table[0] >> 4 else 65),
    _DRI: lambda _payload: 4,
    _DNL: lambda _payload: 4,
    _LSE: lambda payload: 11 if payload[:1] == b"\1" else 1,
}


def _refuse_text(pattern: re.Pattern[bytes], frame: bytes | bytearray, start: int, end: int) -> None:
    if any(len(set(found[1])) >= _FEWEST_LETTERS for found in pattern.finditer(frame, start, end)):
        raise _undecodable("text among or behind the compressed pixels")


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
    """Turn a segment that no decoder needs into a comment of zeros; two bytes of one say of which kind it is (T.800 A.9.2)."""
    code = marker & 0xFF
    if code in _J2K_LISTS:
        _refuse_text(_TEXT, cleaned, start, end)
    elif code not in _J2K_CODING:
        kept = start + 2 if code == _J2K_COMMENT else start
        cleaned[kept:end] = bytes(max(0, end - kept))
        cleaned[start - 3] = _J2K_COMMENT


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
    _refuse_text(_ENDS_IN_TEXT, frame, max(end, tile_end - _LONGEST_TEXT), tile_end)
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
