"""What can hide in and behind pixel data without being seen: comments, unused bits, bytes that no image needs."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from pydicom.uid import RLELossless

from pipelines.dicom.pixels import NATIVE, pixel_data
from pipelines.dicom.reading import Source, fragments, pixel_element
from pipelines.errors import RefusedFileError
from pipelines.records import Reason

_PADDING = b"\xfc\xff\xfc\xff"  # DataSetTrailingPadding (FFFC,FFFC), which may hold zeros alone


class Hidden(Enum):
    """Where something is hidden."""

    BEHIND = auto()
    COMMENT = auto()
    UNUSED_BITS = auto()
    TRUNCATED = auto()
    UNDECODED = auto()


def hidden_parts(source: Source) -> Iterator[Hidden]:
    """Hold the pixel data, at whose head the stream stands, against what cleaning them would leave."""
    start = source.stream.tell()
    try:
        compressed, stored = _stored(source)
    except RefusedFileError:
        yield Hidden.TRUNCATED
        return
    if _speaks(source.stream.read()):
        yield Hidden.BEHIND
    source.stream.seek(start)
    try:
        cleaned = pixel_data(source)
    except RefusedFileError as error:
        yield Hidden.TRUNCATED if error.reason is Reason.TRUNCATED else Hidden.UNDECODED
        return
    image = cleaned.image
    if compressed and cleaned.transfer_syntax in NATIVE:
        yield Hidden.UNUSED_BITS
        return
    if stored[len(image) :].strip(b"\0"):
        yield Hidden.BEHIND
    same = stored[: len(image)] == image or source.transfer_syntax == RLELossless or not source.header.little_endian
    if not same:
        yield Hidden.COMMENT if compressed else Hidden.UNUSED_BITS


def _stored(source: Source) -> tuple[bool, bytes]:
    """Whether the pixel data are compressed, and their bytes as they are stored."""
    _, length = pixel_element(source)
    if length is None:
        return True, b"".join(fragments(source.stream))
    return False, source.stream.read(length)


def _speaks(behind: bytes) -> bool:
    """Whether there is more behind the pixel data than padding."""
    return bool(behind.removeprefix(_PADDING)[8:].strip(b"\0")) if behind.startswith(_PADDING) else bool(behind.strip(b"\0"))
