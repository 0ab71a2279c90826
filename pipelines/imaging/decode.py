"""Stored pixel values out of DICOM pixel data, whatever the transfer syntax.

The parser is pydicom's. What a compressed stream says of itself (rows, columns, bits, components) is read from its own
header and held against the data set's before anything is decoded, so a lying header costs no memory and a wrong picture is
never the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame

from pipelines.errors import RefusedFileError
from pipelines.imaging import codestream, header
from pipelines.imaging.decoders import DECODERS, NATIVE, Decoder, Layout
from pipelines.records import Reason

MAX_SIDE = 20_000
MAX_PIXELS = 100_000_000

Pixels = NDArray[Any]


@dataclass(frozen=True, repr=False)
class Frame:
    """The pixel data of one image, checked but not yet decoded.

    Attributes:
        content: the bytes of the frame.
        stream: what a compressed stream says of itself, or None for one without a header of its own.
    """

    content: bytes
    layout: Layout
    decoder: Decoder
    stream: codestream.Codestream | None

    def decode(self) -> Pixels:
        """The stored values at full size; see `decode`."""
        cells, shift = self._cells()
        return normalise(cells, self.layout.bits_stored, shift, signed=self.layout.signed)

    def codes(self) -> NDArray[np.uint16]:
        """The stored values at full size, at the top of 16 bits and counted from the lowest value; see `samples.Samples`."""
        cells, shift = self._cells()
        spare = 16 - self.layout.bits_stored
        plain = cells.view(f"{cells.dtype.byteorder.replace('|', '')}u{cells.dtype.itemsize}")
        codes: NDArray[np.uint16] = np.left_shift(plain, spare - shift, dtype=np.uint16)
        if shift:
            codes &= np.uint16(0xFFFF << spare & 0xFFFF)
        if self.layout.signed:
            codes ^= np.uint16(0x8000)
        return codes

    def _cells(self) -> tuple[Pixels, int]:
        """The decoded cells, (rows, columns), and how many bits up the stored ones begin in them."""
        layout, stream = self.layout, self.stream
        pixels = _decoded(self.decoder, self.content, layout)
        if pixels.shape != (layout.rows, layout.columns) or pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
            raise RefusedFileError(Reason.UNDECODABLE, "the decoded array is not of the declared shape and kind")
        if self.decoder.lossy and stream is not None and stream.bits > layout.bits_stored:
            low, high = value_range(layout.bits_stored, signed=pixels.dtype.kind == "i")
            pixels = np.clip(pixels, low, high)
        # A codec that was given the values alone returns them in the low bits, wherever the header puts the high bit.
        whole_cells = stream is None or stream.bits == layout.bits_allocated
        return pixels, layout.high_bit + 1 - layout.bits_stored if whole_cells else 0


def frame(dataset: Dataset) -> Frame:
    """Find and check the pixel data of a single-frame grayscale image.

    Raises:
        RefusedFileError: the pixels are missing, are not one grayscale frame, do not match what the header declares, or
            are in a transfer syntax without decoder.
    """
    with header.quiet():
        _require_one_grayscale_frame(dataset)
        layout = _layout(dataset)
        syntax = transfer_syntax(dataset)
        decoder = DECODERS.get(syntax)
        if decoder is None:
            raise RefusedFileError(Reason.TRANSFER_SYNTAX, "no decoder; `radtransfer doctor` lists those there are")
        content = _content(dataset, encapsulated=syntax not in NATIVE)
    return Frame(content, layout, decoder, _checked_stream(decoder, content, layout))


def decode(dataset: Dataset) -> Pixels:
    """The stored pixel values of a single-frame grayscale image.

    Bits outside the stored ones (embedded overlays, PS3.5 8.1.2) are masked off and signed values sign-extended.

    Returns:
        Array (rows, columns), uint8 or int8 for up to 8 stored bits, else uint16 or int16.

    Raises:
        RefusedFileError: see `frame`, or the pixels cannot be decoded.
    """
    return frame(dataset).decode()


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


def _content(dataset: Dataset, *, encapsulated: bool) -> bytes:
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
    except (RefusedFileError, MemoryError):
        raise
    except Exception as error:  # each codec has its own exceptions
        raise RefusedFileError(Reason.UNDECODABLE, f"{decoder.name}: the decoder refused the stream") from error
