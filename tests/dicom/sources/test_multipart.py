from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import pytest

from pipelines.dicom.sources.multipart import BrokenMultipartError, copy_part

HEAD = b"--limit\r\nContent-Type: application/dicom\r\n\r\n"
BODY = b"pixels\r\n--lim\r\n--limi \r\n\r\n\0\xff\r\n-"
WHOLE = HEAD + BODY + b"\r\n--limit--\r\n"


def pieces(message: bytes, size: int) -> Iterator[bytes]:
    return (message[start : start + size] for start in range(0, len(message), size))


def copied(message: bytes, size: int = 7) -> bytes:
    target = BytesIO()
    copy_part(pieces(message, size), b"limit", target)
    return target.getvalue()


@pytest.mark.parametrize("size", [*range(1, 40), len(WHOLE)])
def test_the_part_is_whole_wherever_the_pieces_are_cut(size: int) -> None:
    assert copied(WHOLE, size) == BODY


@pytest.mark.parametrize("size", [1, 5, 4096])
def test_text_before_and_after_the_part_is_no_part_of_it(size: int) -> None:
    assert copied(b"preamble\r\n" + WHOLE + b"epilogue" * 99, size) == BODY
    assert copied(b"\r\n" + WHOLE, size) == BODY


def test_a_part_may_be_empty() -> None:
    assert copied(HEAD + b"\r\n--limit--") == b""


@pytest.mark.parametrize("end", range(WHOLE.index(b"--\r\n", len(HEAD + BODY)) + 1))
def test_a_message_that_was_cut_short_anywhere_is_no_message(end: int) -> None:
    with pytest.raises(BrokenMultipartError, match=r"there is no part in it|ends before its closing boundary"):
        copied(WHOLE[:end], 16)


def test_two_parts_are_not_taken_for_one() -> None:
    with pytest.raises(BrokenMultipartError, match="more than one part"):
        copied(HEAD + b"one\r\n" + HEAD + b"two\r\n--limit--")


def test_an_endless_head_is_not_waited_for() -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b"--limit " * 100
        pytest.fail("it went on reading")

    with pytest.raises(BrokenMultipartError, match="there is no part in it"):
        copy_part(endless(), b"limit", BytesIO())


def test_only_a_delimiter_is_held_back_in_memory() -> None:
    class Watching(BytesIO):
        written = 0

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.written += len(data)
            return len(data)

    target = Watching()

    def chunks() -> Iterator[bytes]:
        yield HEAD
        for number in range(1, 50):
            yield bytes(1000)
            assert target.written >= (number - 1) * 1000 - 16
        yield b"\r\n--limit--"

    copy_part(chunks(), b"limit", target)
    assert target.written == 49_000
