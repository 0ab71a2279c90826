"""The pixel data of one radiograph: checked against the header, and cut to the image itself, without decoding it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    HTJ2K,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pydicom.uid import JPEG2000 as JPEG2000_LOSSY

from pipelines.dicom.codestream import clean_jpeg, clean_jpeg2000, clean_rle
from pipelines.dicom.header import Header
from pipelines.dicom.reading import Source, exactly, fragments, pixel_element
from pipelines.errors import RefusedFileError
from pipelines.imaging.decode import MAX_PIXELS, value_range
from pipelines.imaging.decoders import DECODERS, Decoder, Layout
from pipelines.records import Reason

LARGEST_SIDE = 32767
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000_LOSSY, HTJ2K)


@dataclass(frozen=True)
class Shape:
    """The image as the header has it: sizes in pixels, depths in bits."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def pixels(self) -> int:
        return self.rows * self.columns

    @property
    def bytes(self) -> int:
        return self.pixels * self.bits_allocated // 8


@dataclass(frozen=True, repr=False)
class PixelData:
    """What goes into (7FE0,0010).

    Attributes:
        image: the frame's bytes, without padding.
        vr: OB or OW.
        transfer_syntax: the source's; big endian and deflated images become explicit VR little endian, as does a compressed
            one in which something hides outside the stored bits.
    """

    image: bytes
    vr: str
    transfer_syntax: str


def shape_of(header: Header) -> Shape:
    """Check that the header describes one grayscale frame that can be decoded.

    Raises:
        RefusedFileError: multi-frame, not grayscale, absurd size, or inconsistent bits.
    """
    frames, samples = header.integer("NumberOfFrames"), header.integer("SamplesPerPixel")
    if frames is not None and frames > 1:
        raise RefusedFileError(Reason.MULTI_FRAME, f"{frames} frames")
    if samples not in (None, 1) or header.text("PhotometricInterpretation").upper() not in ("MONOCHROME1", "MONOCHROME2"):
        raise RefusedFileError(Reason.COLOUR)
    rows, columns = header.integer("Rows") or 0, header.integer("Columns") or 0
    if not (0 < rows <= LARGEST_SIDE and 0 < columns <= LARGEST_SIDE):
        raise RefusedFileError(Reason.SIZE, f"{rows} × {columns} pixels")
    allocated = header.integer("BitsAllocated") or 0
    stored = header.integer("BitsStored") or 0
    high = header.integer("HighBit")
    high = stored - 1 if high is None else high
    if allocated not in (8, 16) or not 0 < stored <= allocated or not stored - 1 <= high < allocated:
        raise RefusedFileError(Reason.BITS, f"allocated {allocated}, stored {stored}, high bit {high}")
    return Shape(rows, columns, allocated, stored, high, header.integer("PixelRepresentation") == 1)


def pixel_data(source: Source) -> PixelData:
    """Read the pixel data and keep the image alone.

    Raises:
        RefusedFileError: no pixels, what `shape_of` refuses, truncated, undecodable, or a transfer syntax that is not
            supported.
    """
    if not source.has_pixels:
        raise RefusedFileError(Reason.NO_PIXELS)
    shape = shape_of(source.header)
    supported = source.transfer_syntax in NATIVE or source.transfer_syntax in _CLEANERS
    if not supported:
        raise RefusedFileError(Reason.TRANSFER_SYNTAX)
    vr, length = pixel_element(source)
    if (length is None) != (source.transfer_syntax in _CLEANERS):
        raise RefusedFileError(Reason.UNREADABLE, "pixel data that are not encoded as the transfer syntax says")
    if length is None:
        frame = _CLEANERS[source.transfer_syntax](b"".join(fragments(source.stream)), shape)
        return _without_overlay(frame, shape, source.transfer_syntax) or PixelData(frame, "OB", source.transfer_syntax)
    if length == 0:
        raise RefusedFileError(Reason.NO_PIXELS)
    if not shape.bytes <= length <= _left(source.stream) + 1:  # some writers leave out the byte that pads
        raise RefusedFileError(Reason.TRUNCATED, f"{length} bytes of pixel data, {shape.bytes} expected")
    return _native(source, shape, vr)


def _left(stream: BinaryIO) -> int:
    here = stream.tell()
    end = stream.seek(0, os.SEEK_END)
    stream.seek(here)
    return end - here


def _native(source: Source, shape: Shape, vr: str | None) -> PixelData:
    words = vr != "OB"
    swapped = not source.header.little_endian and words
    content = exactly(source.stream, shape.bytes + (shape.bytes % 2 if swapped else 0))
    if swapped:
        content = np.frombuffer(content, np.uint16).byteswap().tobytes()[: shape.bytes]
    image = _unused_bits_cleared(content, shape)
    syntax = ImplicitVRLittleEndian if source.implicit else ExplicitVRLittleEndian
    return PixelData(image, "OW" if shape.bits_allocated == 16 or words else "OB", syntax)


def _unused_bits_cleared(content: bytes, shape: Shape) -> bytes:
    if shape.bits_stored == shape.bits_allocated:
        return content
    return _stored_bits(np.frombuffer(content, f"<u{shape.bits_allocated // 8}"), shape).tobytes()


def _stored_bits(cells: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """Cells without what hides outside the stored bits, where older files keep overlays (PS3.5 8.1.1).

    The bits above them repeat the sign of a signed image; all others become 0.
    """
    size = shape.bits_allocated // 8
    above, below = shape.bits_allocated - 1 - shape.high_bit, shape.high_bit + 1 - shape.bits_stored
    at_top = (cells << above).view(f"<i{size}" if shape.signed else f"<u{size}")
    return (at_top >> above >> below << below).view(f"<u{size}")


def _without_overlay(frame: bytes, shape: Shape, transfer_syntax: str) -> PixelData | None:
    """The stored bits alone, uncompressed, of a stream that has more of them; None if nothing is in the others.

    Raises:
        RefusedFileError: the stream is not the image that the header describes, or cannot be decoded.
    """
    decoder = DECODERS[transfer_syntax]
    if decoder.stream is None or (bits := decoder.stream(frame).bits) <= shape.bits_stored:
        return None
    values = _decoded(decoder, frame, shape)
    # A codec that was given the values alone returns them in the low bits, wherever the header puts the high bit.
    inside = shape if bits == shape.bits_allocated else replace(shape, high_bit=shape.bits_stored - 1)
    kind, size = values.dtype.kind, shape.bits_allocated // 8
    cells = values.astype(f"<{kind}{size}").view(f"<u{size}")
    ways = [_stored_bits(cells, one) for one in (inside, replace(inside, signed=False))]
    if any(np.array_equal(cells, stored) for stored in ways) or (decoder.lossy and _overshoots(values, shape.bits_stored)):
        return None
    image = (ways[0] << (shape.high_bit - inside.high_bit)).tobytes()
    return PixelData(image, "OB" if size == 1 else "OW", ExplicitVRLittleEndian)


def _overshoots(values: NDArray[Any], bits: int) -> bool:
    """Whether lossy values are outside of so many bits by no more than compression explains, an eighth of what they hold."""
    low, high = value_range(bits, signed=values.dtype.kind == "i")
    margin = (1 << bits) // 8
    return bool(low - margin <= values.min() and values.max() <= high + margin)


def _decoded(decoder: Decoder, frame: bytes, shape: Shape) -> NDArray[Any]:
    stream = decoder.stream(frame) if decoder.stream else None
    if stream is None or (stream.rows, stream.columns, stream.components) != (shape.rows, shape.columns, 1):
        raise RefusedFileError(Reason.UNDECODABLE, "the compressed stream is not the image that the header describes")
    if stream.bits > shape.bits_allocated:
        raise RefusedFileError(Reason.BITS, f"the compressed stream has {stream.bits} bits, allocated {shape.bits_allocated}")
    if shape.pixels > MAX_PIXELS:
        raise RefusedFileError(Reason.SIZE, f"{shape.rows} × {shape.columns} pixels")
    layout = Layout(shape.rows, shape.columns, shape.bits_allocated, shape.bits_stored, shape.high_bit, shape.signed)
    try:
        return decoder.function(frame, layout)
    except MemoryError:
        raise
    except Exception as error:  # each codec has its own exceptions
        raise RefusedFileError(Reason.UNDECODABLE, f"{decoder.name}: the decoder refused the stream") from error


def _jpeg(frame: bytes, _shape: Shape) -> bytes:
    return clean_jpeg(frame)


def _jpeg_ls(frame: bytes, _shape: Shape) -> bytes:
    return clean_jpeg(frame, jpeg_ls=True)


def _jpeg2000(frame: bytes, _shape: Shape) -> bytes:
    return clean_jpeg2000(frame)


def _rle(frame: bytes, shape: Shape) -> bytes:
    values = np.arange(256, dtype=f"<u{shape.bits_allocated // 8}")
    tables = [(_stored_bits(values << shift, shape) >> shift).astype("u1") for shift in range(0, shape.bits_allocated, 8)]
    return clean_rle(frame, pixels=shape.pixels, tables=[table.tobytes() for table in reversed(tables)])


_CLEANERS: dict[str, Callable[[bytes, Shape], bytes]] = {
    JPEGBaseline8Bit: _jpeg,
    JPEGExtended12Bit: _jpeg,
    JPEGLossless: _jpeg,
    JPEGLosslessSV1: _jpeg,
    JPEGLSLossless: _jpeg_ls,
    JPEGLSNearLossless: _jpeg_ls,
    JPEG2000Lossless: _jpeg2000,
    JPEG2000_LOSSY: _jpeg2000,
    HTJ2KLossless: _jpeg2000,
    HTJ2KLosslessRPCL: _jpeg2000,
    HTJ2K: _jpeg2000,
    RLELossless: _rle,
}
