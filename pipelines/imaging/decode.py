"""Stored pixel values out of DICOM pixel data, whatever the transfer syntax.

The parser is pydicom's, the codecs are those of imagecodecs. What a compressed stream says of itself (rows, columns,
bits, components) is read from its own header and held against the data set's before anything is decoded, so a lying
header costs no memory and a wrong picture is never the result.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame

from pipelines.errors import RefusedFileError
from pipelines.imaging import codestream, header
from pipelines.records import Reason

MAX_SIDE = 20_000
MAX_PIXELS = 200_000_000

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
    """

    name: str
    function: Callable[[bytes, Layout], Pixels]
    codec: str | None = None
    stream: Callable[[bytes], codestream.Codestream] | None = None
    lossy: bool = False

    def available(self) -> bool:
        """Whether the codec is installed and loads."""
        return self.codec is None or bool(getattr(imagecodecs, self.codec).available)


def decode(dataset: Dataset) -> Pixels:
    """The stored pixel values of a single-frame grayscale image.

    Bits outside the stored ones (embedded overlays, PS3.5 8.1.2) are masked off and signed values sign-extended.

    Returns:
        Array (rows, columns), uint8 or int8 for up to 8 stored bits, else uint16 or int16.

    Raises:
        RefusedFileError: the pixels are missing, are not one grayscale frame, do not match what the header declares, or
            cannot be decoded.
    """
    with header.quiet():
        _require_one_grayscale_frame(dataset)
        layout = _layout(dataset)
        syntax = transfer_syntax(dataset)
        decoder = DECODERS.get(syntax)
        if decoder is None:
            raise RefusedFileError(Reason.TRANSFER_SYNTAX, "no decoder; `radtransfer doctor` lists those there are")
        frame = _frame(dataset, encapsulated=syntax not in NATIVE)
    stream = _checked_stream(decoder, frame, layout)
    pixels = _decoded(decoder, frame, layout)
    if pixels.shape != (layout.rows, layout.columns) or pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
        raise RefusedFileError(Reason.UNDECODABLE, "the decoded array is not of the declared shape and kind")
    if decoder.lossy and stream is not None and stream.bits > layout.bits_stored:
        low, high = value_range(layout.bits_stored, signed=pixels.dtype.kind == "i")
        pixels = np.clip(pixels, low, high)
    # A codec that was given the values alone returns them in the low bits, wherever the header puts the high bit.
    whole_cells = stream is None or stream.bits == layout.bits_allocated
    shift = layout.high_bit + 1 - layout.bits_stored if whole_cells else 0
    return normalise(pixels, layout.bits_stored, shift, signed=layout.signed)


def transfer_syntax(dataset: Dataset) -> str:
    """The UID of the transfer syntax; a file without one is taken for what pydicom found it to be."""
    meta = getattr(dataset, "file_meta", None)
    declared = header.value(meta, "TransferSyntaxUID") if meta is not None else None
    if declared:
        return str(declared)
    implicit, little = dataset.original_encoding
    if little is False:
        return "1.2.840.10008.1.2.2"
    return "1.2.840.10008.1.2" if implicit in (True, None) else "1.2.840.10008.1.2.1"


def value_range(bits: int, *, signed: bool) -> tuple[int, int]:
    """The lowest and the highest value that `bits` hold."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def normalise(cells: Pixels, bits_stored: int, shift: int, *, signed: bool) -> Pixels:
    """Take `bits_stored` bits from `shift` up out of each cell, as numbers in the machine's byte order.

    Returns:
        uint8 or int8 for up to 8 bits, else uint16 or int16; equal values give equal arrays for every transfer syntax.
    """
    width = cells.dtype.itemsize * 8
    plain = cells.astype(cells.dtype.newbyteorder("="), copy=False).view(f"u{width // 8}")
    if shift:
        plain = plain >> shift
    if bits_stored < width:
        plain = plain & plain.dtype.type((1 << bits_stored) - 1)
    size = 1 if bits_stored <= 8 else 2
    if not signed:
        return np.ascontiguousarray(plain.astype(f"u{size}", copy=False))
    # Shifting the sign bit to the top and back extends it.
    spare = size * 8 - min(bits_stored, width)
    return np.ascontiguousarray((plain.astype(f"u{size}") << spare).view(f"i{size}") >> spare)


def _require_one_grayscale_frame(dataset: Dataset) -> None:
    if "PixelData" not in dataset:
        raise RefusedFileError(Reason.NO_PIXELS)
    frames = header.number(dataset, "NumberOfFrames")
    if frames is not None and frames > 1:
        raise RefusedFileError(Reason.MULTI_FRAME, f"{frames:.0f} frames")
    photometric = header.texts(dataset, "PhotometricInterpretation")
    samples = header.number(dataset, "SamplesPerPixel")
    if samples not in (None, 1) or photometric not in (("MONOCHROME1",), ("MONOCHROME2",)):
        raise RefusedFileError(Reason.COLOUR, "expected one sample per pixel, MONOCHROME1 or MONOCHROME2")


def _layout(dataset: Dataset) -> Layout:
    rows, columns = (int(header.number(dataset, name) or 0) for name in ("Rows", "Columns"))
    if not (0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE and rows * columns <= MAX_PIXELS):
        raise RefusedFileError(Reason.SIZE, f"{rows} rows, {columns} columns; expected 1 to {MAX_SIDE:,} of each")
    allocated = int(header.number(dataset, "BitsAllocated") or 0)
    stored = int(header.number(dataset, "BitsStored") or allocated)
    high = header.number(dataset, "HighBit")
    high_bit = stored - 1 if high is None else int(high)
    if allocated not in (8, 16) or not 1 < stored <= allocated or not stored - 1 <= high_bit < allocated:
        raise RefusedFileError(Reason.BITS, f"{allocated} bits allocated, {stored} stored, high bit {high_bit}")
    little = dataset.original_encoding[1] is not False and transfer_syntax(dataset) != "1.2.840.10008.1.2.2"
    signed = header.number(dataset, "PixelRepresentation") == 1
    return Layout(rows, columns, allocated, stored, high_bit, signed, little, dataset.get_item("PixelData").VR != "OB")


def _frame(dataset: Dataset, *, encapsulated: bool) -> bytes:
    content = header.value(dataset, "PixelData")
    if not content:
        raise RefusedFileError(Reason.NO_PIXELS, "empty pixel data")
    if not encapsulated:
        return bytes(content)
    try:
        return get_frame(content, 0, number_of_frames=1)
    except Exception as error:  # damaged item tags raise whatever the parser trips over
        raise RefusedFileError(Reason.UNDECODABLE, "the fragments of the pixel data are damaged") from error


def _checked_stream(decoder: Decoder, frame: bytes, layout: Layout) -> codestream.Codestream | None:
    if decoder.stream is None:
        return None
    stream = decoder.stream(frame)
    if stream.components != 1:
        raise RefusedFileError(Reason.COLOUR, f"the compressed stream has {stream.components} components")
    if (stream.rows, stream.columns) != (layout.rows, layout.columns):
        raise RefusedFileError(
            Reason.UNDECODABLE,
            f"the compressed stream is {stream.rows} × {stream.columns}, the header says {layout.rows} × {layout.columns}",
        )
    if stream.bits > layout.bits_allocated or stream.bits <= 8 < layout.bits_stored:
        detail = f"the compressed stream has {stream.bits} bits, the header says {layout.bits_stored}"
        raise RefusedFileError(Reason.BITS, detail)
    if not codestream.is_complete(frame):
        raise RefusedFileError(Reason.TRUNCATED, "the compressed stream has no end")
    return stream


def _decoded(decoder: Decoder, frame: bytes, layout: Layout) -> Pixels:
    try:
        return decoder.function(frame, layout)
    except RefusedFileError:
        raise
    except Exception as error:  # each codec has its own exceptions
        raise RefusedFileError(Reason.UNDECODABLE, f"{decoder.name}: the decoder refused the stream") from error


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


def _jpeg_family(name: str, *, lossy: bool) -> Decoder:
    return Decoder(name, _jpeg, "JPEG8", codestream.jpeg, lossy)


def _jpeg_2000_family(name: str, *, lossy: bool) -> Decoder:
    return Decoder(name, _jpeg_2000, "JPEG2K", codestream.jpeg_2000, lossy)


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
