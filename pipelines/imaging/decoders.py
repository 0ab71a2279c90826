"""The codecs: each transfer syntax's way from the bytes of a frame to an array. The codecs are those of
imagecodecs, and of Pillow for what can be read at a lower resolution.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile

from pipelines.errors import RefusedFileError
from pipelines.imaging import codestream
from pipelines.records import Reason

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """How the pixel cells of one image are declared (PS3.3 C.7.6.3, PS3.5 8.1.1).

    Attributes:
        little_endian: byte order of the cells of an uncompressed image.
        words: the value is a string of 16-bit words (OW), which matters to 8-bit cells in big endian order.
    """

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    little_endian: bool = True
    words: bool = True

    @property
    def cell_bytes(self) -> int:
        return self.bits_allocated // 8

    @property
    def frame_bytes(self) -> int:
        return self.rows * self.columns * self.cell_bytes


@dataclass(frozen=True)
class Decoder:
    """One way to decode.

    Attributes:
        name: what a person calls the transfer syntax.
        function: from the bytes of the frame and their layout to an array (rows, columns), not yet normalised.
        codec: the codec of imagecodecs that it needs, or None.
        stream: reads the stream's own header, or None where it has none.
        lossy: decoded values may overshoot the declared range.
        reduced: from the bytes of the frame and a number of halvings to a smaller array, uint16 with the values at the top of
            the 16 bits, signed ones moved up to begin at zero; None where the stream cannot be read at a lower resolution.
    """

    name: str
    function: Callable[[bytes, Layout], Pixels]
    codec: str | None = None
    stream: Callable[[bytes], codestream.Codestream] | None = None
    lossy: bool = False
    reduced: Callable[[bytes, int], Pixels] | None = None

    def available(self) -> bool:
        """Whether the codec is installed and loads."""
        return self.codec is None or bool(getattr(imagecodecs, self.codec).available)


def _native(frame: bytes, layout: Layout) -> Pixels:
    if len(frame) < layout.frame_bytes:
        raise RefusedFileError(Reason.TRUNCATED, f"{len(frame):,} of {layout.frame_bytes:,} bytes of pixel data")
    order = "<" if layout.little_endian else ">"
    if layout.cell_bytes == 1 and layout.words and not layout.little_endian:
        # PS3.5 8.1.1: two 8-bit cells share a word, whose bytes big endian order swaps.
        even = frame[: layout.frame_bytes + layout.frame_bytes % 2]
        cells = np.frombuffer(even.ljust(len(even) + len(even) % 2, b"\0"), "<u2").byteswap().view("u1")
    else:
        cells = np.frombuffer(frame, f"{order}u{layout.cell_bytes}", layout.rows * layout.columns)
    return cells[: layout.rows * layout.columns].reshape(layout.rows, layout.columns)


def _deflated_frame(frame: bytes, layout: Layout) -> Pixels:
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(frame, layout.frame_bytes)
    return _native(inflated, layout)


def _run_length(frame: bytes, layout: Layout) -> Pixels:
    if int.from_bytes(frame[:4], "little") != layout.cell_bytes:
        raise RefusedFileError(Reason.BITS, f"expected {layout.cell_bytes} RLE segments")
    out = np.empty((layout.rows, layout.columns), f"<u{layout.cell_bytes}")
    decoded = imagecodecs.dicomrle_decode(frame, out.dtype.str)
    cells = np.frombuffer(decoded, out.dtype)
    if cells.size < out.size:
        raise RefusedFileError(Reason.TRUNCATED, f"{cells.size:,} of {out.size:,} pixels")
    out[:] = cells[: out.size].reshape(out.shape)
    return out


def _jpeg(frame: bytes, layout: Layout) -> Pixels:
    pixels: Pixels = imagecodecs.jpeg8_decode(frame)
    return pixels


def _jpeg_ls(frame: bytes, layout: Layout) -> Pixels:
    pixels: Pixels = imagecodecs.jpegls_decode(frame)
    return pixels


def _jpeg_2000(frame: bytes, layout: Layout) -> Pixels:
    # HTJ2K too: the faster `htj2k_decode` loses OpenJPH's errors and returns noise for a damaged stream.
    pixels: Pixels = imagecodecs.jpeg2k_decode(frame)
    return pixels


def _reduced_jpeg(frame: bytes, halvings: int) -> Pixels:
    """By the scaled inverse DCT of libjpeg: each sample is about the mean of its pixels. ITU-T T.81, 8 bits only."""
    image = JpegImageFile(BytesIO(frame))
    columns, rows = image.size
    if image.mode != "L":
        raise ValueError("not a grayscale image")
    image.draft("L", (columns >> halvings, rows >> halvings))
    return np.asarray(image).astype(np.uint16) << 8


def _reduced_jpeg_2000(frame: bytes, halvings: int) -> Pixels:
    """From the lower resolution levels alone (ITU-T T.800 B.5): the low-pass samples of the wavelet.

    OpenJPEG through Pillow, which puts the values at the top of 8 or 16 bits. Its own `reduce` rounds the size of the result
    where the standard takes the ceiling, and then fails.
    """
    image = Jpeg2KImageFile(BytesIO(frame))
    columns, rows = (-(-side // (1 << halvings)) for side in image.size)
    arguments: tuple[Any, ...] = image.tile[0].args  # type: ignore[assignment]  # of this format a tuple
    image._size = columns, rows
    image.tile = [image.tile[0]._replace(extents=(0, 0, columns, rows), args=(arguments[0], halvings, *arguments[2:]))]
    pixels = np.asarray(image)
    return pixels.astype(np.uint16) << 8 if pixels.dtype.itemsize == 1 else pixels.astype(np.uint16, copy=False)


def _jpeg_family(name: str, *, lossy: bool) -> Decoder:
    return Decoder(name, _jpeg, "JPEG8", codestream.jpeg, lossy, _reduced_jpeg)


def _jpeg_2000_family(name: str, *, lossy: bool) -> Decoder:
    return Decoder(name, _jpeg_2000, "JPEG2K", codestream.jpeg_2000, lossy, _reduced_jpeg_2000)


NATIVE = {
    "1.2.840.10008.1.2": Decoder("implicit little endian", _native),
    "1.2.840.10008.1.2.1": Decoder("explicit little endian", _native),
    "1.2.840.10008.1.2.1.99": Decoder("deflated explicit little endian", _native),
    "1.2.840.10008.1.2.2": Decoder("explicit big endian", _native),
}

DECODERS = {
    **NATIVE,
    "1.2.840.10008.1.2.8.1": Decoder("deflated image frame", _deflated_frame),
    "1.2.840.10008.1.2.5": Decoder("RLE lossless", _run_length, "DICOMRLE"),
    "1.2.840.10008.1.2.4.50": _jpeg_family("JPEG baseline, 8 bits", lossy=True),
    "1.2.840.10008.1.2.4.51": _jpeg_family("JPEG extended, 12 bits", lossy=True),
    "1.2.840.10008.1.2.4.57": _jpeg_family("JPEG lossless", lossy=False),
    "1.2.840.10008.1.2.4.70": _jpeg_family("JPEG lossless, first-order prediction", lossy=False),
    "1.2.840.10008.1.2.4.80": Decoder("JPEG-LS lossless", _jpeg_ls, "JPEGLS", codestream.jpeg, lossy=False),
    "1.2.840.10008.1.2.4.81": Decoder("JPEG-LS near-lossless", _jpeg_ls, "JPEGLS", codestream.jpeg, lossy=True),
    "1.2.840.10008.1.2.4.90": _jpeg_2000_family("JPEG 2000 lossless", lossy=False),
    "1.2.840.10008.1.2.4.91": _jpeg_2000_family("JPEG 2000", lossy=True),
    "1.2.840.10008.1.2.4.201": _jpeg_2000_family("HTJ2K lossless", lossy=False),
    "1.2.840.10008.1.2.4.202": _jpeg_2000_family("HTJ2K lossless, by resolution", lossy=False),
    "1.2.840.10008.1.2.4.203": _jpeg_2000_family("HTJ2K", lossy=True),
}
"""Transfer syntax UID (PS3.6 table A-1) → decoder."""
