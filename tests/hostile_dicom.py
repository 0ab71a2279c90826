"""Broken and hostile DICOM files: cut, lying, bottomless, and mutated at random from a seed."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from made_dicom import ROOT, file_bytes, frame, gradient, header, with_pixels
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG": JPEGBaseline8Bit,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}
_START = 132
_PIXELS = b"\xe0\x7f\x10\0"
_ITEM, _UNDEFINED = b"\xfe\xff\0\xe0", b"\xff\xff\xff\xff"


def uid_of(number: int) -> str:
    """A UID of always the same length."""
    return f"{ROOT}.1.1{number:08d}"


def small(number: int, syntax: str = ExplicitVRLittleEndian, rows: int = 40, columns: int = 32, **attributes: object) -> bytes:
    """A radiograph with a UID of its own, of always the same length."""
    uid = uid_of(number)
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    image = _smooth(rows, columns, bits)
    return file_bytes(with_pixels(header(number, SOPInstanceUID=uid, **attributes), image, syntax, bits), syntax)


def _smooth(rows: int, columns: int, bits: int) -> NDArray[np.generic]:
    y, x = np.mgrid[0:rows, 0:columns]
    values = ((y / rows + x / columns) / 2 * ((1 << bits) - 1)).astype(np.uint8 if bits <= 8 else np.uint16)
    return np.asarray(values ^ (gradient(rows, columns, 3) if bits <= 8 else gradient(rows, columns, 3).astype(np.uint16)))


def cuts(content: bytes, parts: int = 50) -> Iterator[bytes]:
    """A file truncated at every so-many-th of its length."""
    for part in range(1, parts):
        yield content[: len(content) * part // parts]


def replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) >= 1
    return content.replace(old, new, 1)


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """An element in explicit VR little endian; with `length` one that lies."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    count = len(value) if length is None else length
    long = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    return head + (struct.pack("<2xI", count) if long else struct.pack("<H", count)) + value


def with_element(number: int, extra: bytes, before: bytes = b"\x28\0\x02\0US") -> bytes:
    """A good file with raw bytes put in front of SamplesPerPixel, or of another element."""
    content = small(number)
    return replaced(content, before, extra + before)


def lying() -> dict[str, tuple[bytes, set[str]]]:
    """Files whose lengths lie, by what lies, with the reasons that may be given; `new` for those that do no harm."""
    native, jpeg = small(1), small(2, JPEGLSLossless)
    pixels, fragments = native.index(_PIXELS), jpeg.index(_PIXELS) + 12
    first = fragments + 12  # behind the offset table of one frame
    table = encapsulate([frame(_smooth(40, 32, 12), JPEGLSLossless)], has_bot=True)
    table = replaced(table, b"\x04\0\0\0\0\0\0\0", b"\x04\0\0\0\xff\xff\xff\x7f")
    return {
        "an attribute beyond the file": (with_element(10, element(0x00204000, b"UT", b"text", 0xFFFFFFF0)), {"truncated"}),
        "an attribute that swallows the rest": (with_element(11, element(0x00204000, b"UT", b"text", 1500)), {"*"}),
        "an attribute of odd length": (with_element(12, element(0x00204000, b"UT", b"odd", 3)), {"new"}),
        "an attribute one byte short": (with_element(13, element(0x00204000, b"LT", b"texts", 4)), {"*"}),
        "a group length": (replaced(native, b"UL\x04\0" + native[140:144], b"UL\x04\0" + _UNDEFINED), {"new"}),
        "an item beyond the file": (with_element(15, element(0x00283010, b"SQ", _ITEM + b"\0\0\0\x7f", 8)), {"truncated"}),
        "an item beyond its sequence": (with_element(16, element(0x00283010, b"SQ", _ITEM + b"\0\x02\0\0", 8)), {"*"}),
        "a sequence without an item": (
            with_element(17, element(0x00283010, b"SQ", b"not an item at all!!")),
            {"unreadable_header"},
        ),
        "a sequence without an end": (with_element(18, element(0x00283010, b"SQ", _ITEM + _UNDEFINED, 0xFFFFFFFF)), {"*"}),
        "a fragment beyond the file": (jpeg[:first] + _ITEM + b"\0\0\0\x7f" + jpeg[first + 8 :], {"truncated"}),
        "a fragment of undefined length": (jpeg[:first] + _ITEM + _UNDEFINED + jpeg[first + 8 :], {"undecodable_pixels"}),
        "a fragment that ends early": (jpeg[:first] + _ITEM + b"\x0a\0\0\0" + jpeg[first + 8 :], {"undecodable_pixels"}),
        "an offset table beyond the file": (jpeg[:fragments] + _ITEM + b"\0\0\0\x7f" + jpeg[first:], {"truncated"}),
        "offsets that lead nowhere": (_with_pixel_bytes(3, table), {"new"}),
        "fragments without end": (jpeg[:first] + (_ITEM + b"\0\0\0\0") * 70_000, {"undecodable_pixels"}),
        "pixel data beyond the file": (native[: pixels + 8] + b"\xfe\xff\xff\xff" + native[pixels + 12 :], {"truncated"}),
        "pixel data shorter than the image": (native[: pixels + 8] + b"\x10\0\0\0" + native[pixels + 12 :], {"truncated"}),
        "pixel data of no length": (native[: pixels + 8] + b"\0\0\0\0", {"no_pixel_data"}),
        "a lookup table of 65,536 entries that has four": (_with_table(5, [0, 0, 16]), {"unreadable_header"}),
        "a lookup table of 255 bits": (_with_table(6, [4, 0, 255]), {"unreadable_header"}),
    }


def _with_table(number: int, descriptor: list[int]) -> bytes:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = descriptor, struct.pack("<4H", 1, 2, 3, 4)
    return small(number, ModalityLUTSequence=[table])


def _with_pixel_bytes(number: int, pixels: bytes) -> bytes:
    dataset = with_pixels(header(number, SOPInstanceUID=uid_of(number)), _smooth(40, 32, 12), JPEGLSLossless, 12)
    dataset.PixelData = pixels
    return file_bytes(dataset, JPEGLSLossless)


def immense() -> dict[str, tuple[bytes, set[str]]]:
    """A hundred bytes or so that claim to be 65,535 × 65,535 pixels, in the header, in the stream, or in both."""
    claimed = {"Rows": 65535, "Columns": 65535}
    most = {"Rows": 32767, "Columns": 32767}
    ls, j2k = small(33, JPEGLSLossless), small(34, JPEG2000Lossless)
    return {
        "uncompressed": (small(30, **claimed), {"absurd_size"}),
        "RLE": (small(31, RLELossless, **claimed), {"absurd_size"}),
        "as large as can be written, uncompressed": (small(32, **most), {"truncated"}),
        "as large as can be written, RLE": (small(35, RLELossless, **most), {"truncated"}),
        "as large as can be written, JPEG-LS": (small(36, JPEGLSLossless, **most), {"absurd_size", "undecodable_pixels"}),
        "JPEG-LS, the stream": (replaced(ls, struct.pack(">HHB", 40, 32, 1), struct.pack(">HHB", 65535, 65535, 1)), {"*"}),
        "JPEG 2000, the stream": (replaced(j2k, struct.pack(">II", 32, 40), struct.pack(">II", 65535, 65535)), {"*"}),
        "JPEG 2000, header and stream": (
            replaced(small(37, JPEG2000Lossless, **claimed), struct.pack(">II", 32, 40), struct.pack(">II", 65535, 65535)),
            {"absurd_size"},
        ),
    }


def bomb(size: int) -> bytes:
    """A deflated file that grows to more than `size` bytes."""
    whole = small(40, DeflatedExplicitVRLittleEndian)
    start = _START + 12 + struct.unpack("<I", whole[140:144])[0]
    engine = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    plain = zlib.decompress(whole[start:], -zlib.MAX_WBITS)
    pieces = [engine.compress(plain[: plain.index(_PIXELS)] + _PIXELS + b"OW\0\0\xfe\xff\xff\xff")]
    pieces += [engine.flush(zlib.Z_FULL_FLUSH)]
    zeros = engine.compress(bytes(1 << 20)) + engine.flush(
        zlib.Z_FULL_FLUSH
    )  # may be repeated, since it refers to nothing before
    return whole[:start] + b"".join(pieces) + zeros * (size >> 20) + engine.flush()


def bottomless() -> dict[str, tuple[bytes, set[str]]]:
    """Sequences that are endless, or deeper than any."""
    opened = element(0x00400275, b"SQ", b"", 0xFFFFFFFF) + _ITEM + _UNDEFINED
    items = (_ITEM + b"\0\0\0\0") * 200_000
    return {
        "sequences within each other": (with_element(50, opened * 5000), {"unreadable_header"}),
        "a sequence of 200,000 items": (with_element(51, element(0x00283000, b"SQ", items)), {"unreadable_header"}),
        "an undefined one of 200,000 items": (
            with_element(52, element(0x00400275, b"SQ", items, 0xFFFFFFFF)),
            {"unreadable_header"},
        ),
        "200,000 attributes": (with_element(53, element(0x00204000, b"LT", b"") * 200_000), {"unreadable_header"}),
        "a meta group of 200,000 attributes": (
            replaced(small(54), b"\x02\0\x10\0UI", element(0x00020102, b"SH", b"") * 200_000 + b"\x02\0\x10\0UI"),
            {"unreadable_header"},
        ),
        "an identifier of two megabytes": (with_element(55, element(0x00204000, b"UT", b"9" * (1 << 21))), {"new"}),
    }


def with_wrong_vrs() -> Iterator[bytes]:
    """A good file whose attributes have another's VR, one at a time, their lengths being right or wrong for it."""
    content, number = small(60), 600
    position = content.index(b"\x08\0\x05\0") if b"\x08\0\x05\0" in content else content.index(b"\x08\0\x16\0")
    while content[position : position + 4] != _PIXELS:
        length = struct.unpack_from("<H", content, position + 6)[0]
        for vr in (b"US", b"FD", b"PN", b"SQ", b"UN", b"OB", b"ZZ", b"\0\0"):
            number += 1
            changed = content[: position + 4] + vr + content[position + 6 :]
            if vr in (b"SQ", b"UN", b"OB") and number % 2:
                value = content[position + 8 : position + 8 + length]
                rest = content[position + 8 + length :]
                changed = content[: position + 4] + vr + struct.pack("<2xI", length) + value + rest
            yield changed.replace(uid_of(60).encode(), uid_of(number).encode())
        position += 8 + length


_INTERESTING = (b"\0\0", b"\xff\xff", b"\0\0\0\0", _UNDEFINED, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x01\0\0\0", _ITEM, _PIXELS)


def mutated(seed: int, files: Sequence[bytes]) -> bytes:
    """One of the files with some bytes changed; the same seed and files give the same bytes."""
    dice = random.Random(seed)
    content = bytearray(dice.choice(files))
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        dice.choice(_MUTATIONS)(content, dice, files)
    return bytes(content)


def _place(content: bytearray, dice: random.Random) -> int:
    """Mostly in the header, mostly behind the magic word."""
    first = _START if len(content) > _START and dice.random() < 0.97 else 0
    last = min(len(content), 2500) if dice.random() < 0.6 else len(content)
    return dice.randrange(min(first, last), last + 1)


def _flip(content: bytearray, dice: random.Random, _: Sequence[bytes]) -> None:
    place = _place(content, dice)
    if place < len(content):
        content[place] ^= 1 << dice.randrange(8)


def _overwrite(content: bytearray, dice: random.Random, _: Sequence[bytes]) -> None:
    place, new = _place(content, dice), dice.choice(_INTERESTING)
    content[place : place + len(new)] = new


def _noise(content: bytearray, dice: random.Random, _: Sequence[bytes]) -> None:
    place, count = _place(content, dice), dice.randrange(1, 17)
    content[place : place + count] = dice.randbytes(count)


def _delete(content: bytearray, dice: random.Random, _: Sequence[bytes]) -> None:
    place = _place(content, dice)
    del content[place : place + dice.choice((1, 2, 8, 64, 1000))]


def _insert(content: bytearray, dice: random.Random, _: Sequence[bytes]) -> None:
    place = _place(content, dice)
    content[place:place] = dice.randbytes(dice.choice((1, 2, 8, 64)))


def _repeat(content: bytearray, dice: random.Random, _: Sequence[bytes]) -> None:
    place = _place(content, dice)
    content[place:place] = content[place : place + dice.randrange(1, 200)] * dice.choice((1, 2, 50))


def _splice(content: bytearray, dice: random.Random, files: Sequence[bytes]) -> None:
    other = dice.choice(files)
    content[_place(content, dice) :] = other[_place(bytearray(other), dice) :]


def _cut(content: bytearray, dice: random.Random, _: Sequence[bytes]) -> None:
    del content[_place(content, dice) :]


_MUTATIONS = (_flip, _flip, _flip, _overwrite, _overwrite, _noise, _delete, _insert, _repeat, _splice, _cut)
