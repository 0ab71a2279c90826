"""The one part of a multipart answer, copied as it comes, with its end checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

LONGEST_PART_HEAD = 1 << 16


class BrokenMultipartError(Exception):
    """The message is not one of a single part, or it ends early; says which, without a byte of it."""


def copy_part(chunks: Iterable[bytes], boundary: bytes, target: BinaryIO) -> None:
    """Copy the body of the only part of a multipart message (RFC 2046 5.1), holding back no more than one delimiter.

    Raises:
        BrokenMultipartError: there is no part, there are several, or the message ends before its closing boundary: a file
            that was cut short on its way must not pass for a whole one.
    """
    delimiter = b"\r\n--" + boundary
    held = bytearray(b"\r\n")  # the first boundary may stand at the very beginning
    inside = done = False
    for chunk in chunks:
        if not done or len(held) < 2:  # what follows the closing boundary is of no interest
            held += chunk
        if not inside:
            inside = _step_into(held, delimiter)
        if inside and not done:
            done = _copy_until(held, delimiter, target)
    if not done:
        raise BrokenMultipartError("it ends before its closing boundary" if inside else "there is no part in it")
    if not held.startswith(b"--"):
        raise BrokenMultipartError("there is more than one part in it, or it ends before its closing boundary")


def _step_into(held: bytearray, delimiter: bytes) -> bool:
    """Drop what stands before the body, once all of that is here; whether it was."""
    start = held.find(delimiter)
    end = held.find(b"\r\n\r\n", start + len(delimiter)) if start >= 0 else -1
    if end < 0:
        if len(held) > LONGEST_PART_HEAD:
            raise BrokenMultipartError("there is no part in it")
        return False
    del held[: end + 4]
    return True


def _copy_until(held: bytearray, delimiter: bytes, target: BinaryIO) -> bool:
    """Copy what is sure to be body; whether the delimiter was found, which leaves in `held` what follows it."""
    end = held.find(delimiter)
    if end >= 0:
        target.write(held[:end])
        del held[: end + len(delimiter)]
        return True
    sure = max(0, len(held) - len(delimiter) + 1)
    target.write(held[:sure])
    del held[:sure]
    return False
