from __future__ import annotations

from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import pytest
from made_dicom import CANARY, COMPRESSED, ROWS, file_bytes, frame, gradient, header, radiograph, with_pixels
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pipelines.dicom.codestream import clean_jpeg2000
from pipelines.dicom.pixels import PixelData, pixel_data
from pipelines.dicom.reading import open_source
from pipelines.errors import RefusedFileError
from pipelines.records import Reason


def pixels_of(content: bytes) -> PixelData:
    return pixel_data(open_source(BytesIO(content)))


def refused(content: bytes) -> Reason:
    with pytest.raises(RefusedFileError) as caught:
        pixels_of(content)
    return caught.value.reason


def native(stored: NDArray[Any], syntax: str = ExplicitVRLittleEndian, **attributes: Any) -> bytes:
    return file_bytes(with_pixels(header(**attributes), stored, syntax), syntax)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_uncompressed_pixels_are_kept_byte_for_byte(syntax: str, bits: int) -> None:
    stored = gradient(bits=bits)
    kept = pixels_of(native(stored, syntax))
    assert kept.image == stored.tobytes()
    assert kept.transfer_syntax == syntax


@pytest.mark.parametrize("bits", [8, 16])
def test_big_endian_pixels_become_little_endian(bits: int) -> None:
    stored = gradient(5, 3, bits=bits)
    dataset = with_pixels(header(), stored)
    swapped = stored.astype(">u2").tobytes() if bits == 16 else stored.tobytes() + b"\0"
    dataset.PixelData = swapped if bits == 16 else np.frombuffer(swapped, "<u2").byteswap().tobytes()
    dataset["PixelData"].VR = "OW"
    kept = pixels_of(file_bytes(dataset, ExplicitVRBigEndian))
    assert kept.image == stored.tobytes()
    assert kept.transfer_syntax == ExplicitVRLittleEndian


def test_what_hangs_behind_uncompressed_pixels_is_cut() -> None:
    dataset = with_pixels(header(), gradient())
    dataset.PixelData += CANARY.encode() + b"\0"
    assert pixels_of(file_bytes(dataset)).image == gradient().tobytes()


def test_bits_that_store_no_pixel_are_cleared() -> None:
    stored = gradient(bits=12)
    overlaid = stored | np.uint16(0x8000)
    assert pixels_of(native(overlaid, BitsStored=12, HighBit=11)).image == stored.tobytes()


def test_bits_above_signed_pixels_repeat_their_sign() -> None:
    stored = np.array([[-5, 7], [-2048, 2047]], np.int16)
    for written in (stored, stored ^ np.int16(0x4000), stored & np.int16(0x0FFF)):
        assert pixels_of(native(written, BitsStored=12, HighBit=11, PixelRepresentation=1)).image == stored.tobytes()


@pytest.mark.parametrize(("high_bit", "signed"), [(11, 0), (15, 0), (11, 1)])
def test_bits_that_store_no_pixel_are_cleared_in_run_lengths_too(high_bit: int, signed: int) -> None:
    unsigned = gradient(bits=12) << (high_bit - 11)
    stored = (unsigned << 4).view(np.int16) >> 4 if signed else unsigned
    overlaid = unsigned | np.uint16(0x000A if high_bit == 15 else 0xA000)
    attributes = {"BitsStored": 12, "HighBit": high_bit, "PixelRepresentation": signed}
    dataset = with_pixels(header(**attributes), overlaid, RLELossless)
    assert pixels_of(file_bytes(dataset, RLELossless)).image == frame(stored, RLELossless)


@pytest.mark.parametrize("bits", [14, 16])
@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
def test_an_overlay_above_the_stored_bits_of_a_compressed_image_goes_with_the_compression(syntax: str, bits: int) -> None:
    stored = gradient(bits=12)
    assert pixels_of(compressed(stored, syntax, bits)).transfer_syntax == syntax
    kept = pixels_of(compressed(stored | np.uint16(1 << bits - 1), syntax, bits))
    assert (kept.transfer_syntax, kept.vr) == (ExplicitVRLittleEndian, "OW")
    assert kept.image == stored.tobytes()


def test_signed_pixels_whose_sign_fills_the_cells_of_a_compressed_image_stay_compressed() -> None:
    stored = np.array([[-5, 7], [-2048, 2047]] * 8, np.int16)
    for written in (stored, stored & np.int16(0x0FFF)):
        content = compressed(written.view(np.uint16), JPEGLSLossless, 16, PixelRepresentation=1)
        assert pixels_of(content).transfer_syntax == JPEGLSLossless


def test_an_overlay_below_the_stored_bits_of_a_compressed_image_goes() -> None:
    stored = gradient(bits=12) << 4
    assert pixels_of(compressed(stored, JPEGLSLossless, 16, HighBit=15)).transfer_syntax == JPEGLSLossless
    assert pixels_of(compressed(stored | np.uint16(9), JPEGLSLossless, 16, HighBit=15)).image == stored.tobytes()


def test_overshoots_of_a_lossy_image_are_no_overlay() -> None:
    stored = gradient(bits=12)
    overshot = np.where(stored > 4000, np.uint16(4100), stored)
    assert pixels_of(compressed(overshot, JPEGLSNearLossless, 16)).transfer_syntax == JPEGLSNearLossless
    assert pixels_of(compressed(stored | np.uint16(0x4000), JPEGLSNearLossless, 16)).image == stored.tobytes()


def test_a_compressed_image_of_other_bits_or_size_than_the_header_says_is_refused() -> None:
    assert refused(compressed(gradient(bits=12), JPEGLSLossless, 16, Rows=ROWS + 1)) is Reason.UNDECODABLE
    content = compressed(gradient(bits=12), JPEGLSLossless, 16, BitsAllocated=8, BitsStored=7, HighBit=6)
    assert refused(content) is Reason.BITS


def test_a_compressed_image_larger_than_any_radiograph_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.dicom.pixels.MAX_PIXELS", 100)
    assert refused(compressed(gradient(bits=12), JPEGLSLossless, 16)) is Reason.SIZE


def compressed(stored: NDArray[Any], syntax: str, bits: int, **attributes: Any) -> bytes:
    """A file of 12 stored bits whose compressed stream has more."""
    if syntax == JPEGLosslessSV1:
        stream = imagecodecs.ljpeg_encode(stored, bitspersample=bits)
    elif syntax == JPEG2000Lossless:
        stream = imagecodecs.jpeg2k_encode(stored, level=0, codecformat="J2K", reversible=True, bitspersample=bits)
    else:
        stream = imagecodecs.jpegls_encode(stored)
    dataset = with_pixels(header(**{"BitsStored": 12, "HighBit": 11, **attributes}), stored)
    dataset.PixelData = encapsulate([bytes(stream)])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return file_bytes(dataset, syntax)


def test_pixels_stored_in_the_high_bits_stay_there() -> None:
    stored = gradient(bits=12) << 4
    assert pixels_of(native(stored | np.uint16(9), BitsStored=12, HighBit=15)).image == stored.tobytes()


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_of_encapsulated_data_the_frame_is_kept(syntax: str) -> None:
    dataset = with_pixels(header(), gradient(), syntax)
    written = frame(gradient(), syntax)
    expected = clean_jpeg2000(written) if syntax == JPEG2000Lossless else written  # OpenJPEG leaves a comment
    assert pixels_of(file_bytes(dataset, syntax)).image == expected
    pieces = encapsulate([written], fragments_per_frame=3)
    dataset.PixelData = pieces
    dataset["PixelData"].is_undefined_length = True
    assert pixels_of(file_bytes(dataset, syntax)).image == expected


def test_the_offset_table_hides_nothing() -> None:
    dataset = with_pixels(header(), gradient(), JPEGLSLossless)
    content = file_bytes(dataset, JPEGLSLossless)
    table = content.index(b"\xfe\xff\x00\xe0", content.index(b"\xe0\x7f\x10\0"))
    planted = content[: table + 4] + b"\x0c\0\0\0" + CANARY.encode() + b"\0" + content[table + 12 :]
    assert CANARY.encode() in planted
    assert pixels_of(planted).image == frame(gradient(), JPEGLSLossless)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, *COMPRESSED])
def test_a_file_that_ends_within_its_pixels_is_truncated(syntax: str) -> None:
    content = radiograph(syntax=syntax)
    start = content.index(b"\xe0\x7f\x10\0")
    for cut in range(start + 12, len(content) - 8, 17):
        assert refused(content[:cut]) is Reason.TRUNCATED


def test_a_fragment_sequence_without_an_end_is_truncated() -> None:
    content = radiograph(syntax=JPEGBaseline8Bit)
    assert content.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0")
    assert refused(content[:-8]) is Reason.TRUNCATED


def test_too_few_uncompressed_pixels_are_truncated() -> None:
    assert refused(native(gradient(), Rows=ROWS + 1)) is Reason.TRUNCATED


def short(content: bytes) -> bytes:
    return content[: content.index(b"\xe0\x7f\x10\0")]


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"NumberOfFrames": 2}, Reason.MULTI_FRAME),
        ({"SamplesPerPixel": 3}, Reason.COLOUR),
        ({"PhotometricInterpretation": "RGB"}, Reason.COLOUR),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.COLOUR),
        ({"Rows": 0}, Reason.SIZE),
        ({"Columns": 40000}, Reason.SIZE),
        ({"BitsStored": 9}, Reason.BITS),
        ({"BitsStored": 0}, Reason.BITS),
        ({"HighBit": 3}, Reason.BITS),
        ({"HighBit": 8}, Reason.BITS),
        ({"BitsAllocated": 32}, Reason.BITS),
        ({"BitsAllocated": 1}, Reason.BITS),
    ],
)
def test_an_image_that_cannot_be_used_is_refused_with_its_reason(attributes: dict[str, Any], reason: Reason) -> None:
    assert refused(native(gradient(), **attributes)) is reason


def test_one_declared_frame_is_fine() -> None:
    assert pixels_of(native(gradient(), NumberOfFrames=1)).image == gradient().tobytes()


def test_missing_pixel_data_are_told() -> None:
    assert refused(short(radiograph())) is Reason.NO_PIXELS
    dataset = with_pixels(header(), gradient())
    dataset.PixelData = b""
    assert refused(file_bytes(dataset)) is Reason.NO_PIXELS


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.94", "1.2.840.113619.5.2", "1.2.3.4"])
def test_a_transfer_syntax_that_nobody_here_decodes_is_refused(syntax: str) -> None:
    content = file_bytes(with_pixels(header(), gradient(), JPEGBaseline8Bit), JPEGBaseline8Bit)
    old = JPEGBaseline8Bit.encode()
    assert refused(content.replace(old, syntax.encode().ljust(len(old), b"\0"))) is Reason.TRANSFER_SYNTAX


def test_native_pixels_under_a_compressed_syntax_are_refused() -> None:
    content = native(gradient())
    old, new = (syntax.encode() for syntax in (ExplicitVRLittleEndian, JPEG2000Lossless))
    at = content.index(b"\x02\0\x10\0UI")
    length = content[140:144]
    grown = int.from_bytes(length, "little") + 2
    end = at + 8 + len(old) + 1
    lying = content[:140] + grown.to_bytes(4, "little") + content[144 : at + 6] + b"\x16\0" + new + content[end:]
    assert refused(lying) is Reason.UNREADABLE
