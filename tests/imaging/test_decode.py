from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from pipelines.errors import RefusedFileError
from pipelines.imaging.decode import DECODERS, decode, normalise
from pipelines.imaging.radiograph import read
from pipelines.records import Reason

JPEG = "1.2.840.10008.1.2.4."
LOSSLESS = (RLELossless, *(JPEG + last for last in ("57", "70", "80", "90", "201", "202")))
DEPTHS = ((8, False), (10, False), (12, False), (16, False), (12, True), (16, True))
SOFT = ((JPEG + "50", 8, 12), (JPEG + "51", 12, 60), (JPEG + "81", 12, 2), (JPEG + "91", 12, 60), (JPEG + "203", 12, 60))

Make = Callable[..., Any]


def _refused(dataset: Dataset, reason: Reason, match: str | None = None) -> None:
    with pytest.raises(RefusedFileError, match=match) as caught:
        decode(dataset)
    assert caught.value.reason is reason


@pytest.mark.parametrize(("bits", "signed"), DEPTHS)
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_syntaxes_give_the_original_values(
    syntax: str, bits: int, signed: bool, scene: Make, make_dataset: Make, compressed: Make, dicom_bytes: Make
) -> None:
    pixels = scene(bits, signed)
    content = dicom_bytes(compressed(make_dataset(pixels, bits), syntax, pixels))
    found = decode(read(content))
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("syntax", [*LOSSLESS, *(row[0] for row in SOFT)])
def test_an_independent_decoder_agrees(
    syntax: str, scene: Make, make_dataset: Make, compressed: Make, dicom_bytes: Make, tmp_path: Any
) -> None:
    bits = 8 if syntax == JPEG + "50" else 12
    pixels = scene(bits)
    (tmp_path / "image").write_bytes(dicom_bytes(compressed(make_dataset(pixels, bits), syntax, pixels)))
    reference = dcmread(tmp_path / "image").pixel_array
    found = decode(read(tmp_path / "image"))
    # ISO/IEC 10918-2 and 15444-4 allow decoders of the lossy processes to differ by rounding, here of 16 bits.
    tolerance = 0 if syntax in LOSSLESS or syntax == JPEG + "81" else 8 if syntax == JPEG + "203" else 1
    assert np.abs(found.astype(int) - reference).max() <= tolerance


@pytest.mark.parametrize(("syntax", "bits", "tolerance"), SOFT)
def test_lossy_syntaxes_stay_close_to_the_original_values(
    syntax: str, bits: int, tolerance: int, scene: Make, make_dataset: Make, compressed: Make
) -> None:
    pixels = scene(bits)
    found = decode(compressed(make_dataset(pixels, bits), syntax, pixels))
    assert np.abs(found.astype(int) - pixels).max() <= tolerance


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize(("bits", "signed"), DEPTHS)
def test_uncompressed_syntaxes_give_the_original_values(
    syntax: UID, bits: int, signed: bool, scene: Make, make_dataset: Make, dicom_bytes: Make
) -> None:
    pixels = scene(bits, signed)
    big = syntax == ExplicitVRBigEndian
    dataset = make_dataset(pixels, bits)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    content = dicom_bytes(dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=not big)
    np.testing.assert_array_equal(decode(read(content)), pixels)


def test_eight_bit_cells_in_big_endian_words_are_swapped_back(scene: Make, make_dataset: Make, dicom_bytes: Make) -> None:
    pixels = scene(8, rows=5, columns=7)
    dataset = make_dataset(pixels)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    padded = np.append(pixels.reshape(-1), np.uint8(0))
    dataset.PixelData = padded.view("<u2").byteswap().tobytes()
    dataset["PixelData"].VR = "OW"
    np.testing.assert_array_equal(decode(read(dicom_bytes(dataset, implicit_vr=False, little_endian=False))), pixels)


def test_a_deflated_frame_is_inflated(scene: Make, make_dataset: Make) -> None:
    pixels = scene(12)
    dataset = make_dataset(pixels, 12)
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.8.1")
    deflate = zlib.compressobj(wbits=-15)
    dataset.PixelData = encapsulate([deflate.compress(pixels.tobytes()) + deflate.flush()])
    np.testing.assert_array_equal(decode(dataset), pixels)


def test_a_frame_in_several_fragments_is_put_together(scene: Make, make_dataset: Make, compressed: Make) -> None:
    pixels = scene(12)
    dataset = compressed(make_dataset(pixels, 12), JPEG + "90", pixels)
    stream = dataset.PixelData[20:]  # after the offset table of one frame and the item's header
    dataset.PixelData = encapsulate([stream], fragments_per_frame=3, has_bot=False)
    np.testing.assert_array_equal(decode(dataset), pixels)


def test_bits_above_the_stored_ones_are_masked_off(make_dataset: Make) -> None:
    values = np.array([[0, 1], [2048, 4095]], np.uint16)
    overlay = np.array([[0x1000, 0xF000], [0, 0x8000]], np.uint16)
    np.testing.assert_array_equal(decode(make_dataset(values | overlay, 12)), values)


def test_a_high_bit_at_the_top_moves_the_values_down(make_dataset: Make) -> None:
    values = np.array([[0, 1], [2048, 4095]], np.uint16)
    np.testing.assert_array_equal(decode(make_dataset(values << 4 | 9, 12, HighBit=15)), values)


@pytest.mark.parametrize("syntax", [JPEG + "70", JPEG + "90"])
def test_a_high_bit_does_not_move_values_that_the_codec_returns_alone(
    syntax: str, scene: Make, make_dataset: Make, compressed: Make
) -> None:
    pixels = scene(12)
    dataset = compressed(make_dataset(pixels, 12, HighBit=15), syntax, pixels)
    np.testing.assert_array_equal(decode(dataset), pixels)


def test_signed_values_keep_their_sign_at_any_depth() -> None:
    cells = np.array([[0x0800, 0x07FF, 0x0FFF, 0xF001]], np.uint16)
    np.testing.assert_array_equal(normalise(cells, 12, 0, signed=True), np.array([[-2048, 2047, -1, 1]], np.int16))
    np.testing.assert_array_equal(normalise(cells, 4, 8, signed=True), np.array([[-8, 7, -1, 0]], np.int8))


def test_lossy_overshoot_is_clipped_and_not_wrapped(make_dataset: Make, compressed: Make) -> None:
    bright = np.full((16, 16), 1040, np.uint16)
    dataset = compressed(make_dataset(bright, 12), JPEG + "51", bright)
    dataset.BitsStored, dataset.HighBit = 10, 9
    assert decode(dataset).min() == 1023


HEADERS = (
    ({"NumberOfFrames": 3}, Reason.MULTI_FRAME, "3 frames"),
    ({"SamplesPerPixel": 3}, Reason.COLOUR, "one sample per pixel"),
    ({"PhotometricInterpretation": "RGB"}, Reason.COLOUR, "MONOCHROME1 or MONOCHROME2"),
    ({"Rows": 0}, Reason.SIZE, "0 rows"),
    ({"Rows": 65535, "Columns": 65535}, Reason.SIZE, "65535 rows"),
    ({"BitsAllocated": 32}, Reason.BITS, "32 bits allocated"),
    ({"BitsStored": 17}, Reason.BITS, "17 stored"),
    ({"HighBit": 7}, Reason.BITS, "high bit 7"),
    ({"Rows": 49}, Reason.TRUNCATED, "of 3,528 bytes"),
    ({"PixelData": b""}, Reason.NO_PIXELS, "empty"),
)


@pytest.mark.parametrize(("wrong", "reason", "match"), HEADERS)
def test_a_header_that_cannot_be_true_is_refused(
    wrong: dict[str, Any], reason: Reason, match: str, scene: Make, make_dataset: Make
) -> None:
    _refused(make_dataset(scene(12), 12, **wrong), reason, match)


def test_a_data_set_without_pixels_is_refused(scene: Make, make_dataset: Make) -> None:
    dataset = make_dataset(scene(12), 12)
    del dataset.PixelData
    _refused(dataset, Reason.NO_PIXELS)


def test_an_unknown_transfer_syntax_is_refused_without_naming_it(scene: Make, make_dataset: Make) -> None:
    dataset = make_dataset(scene(12), 12)
    dataset.file_meta.TransferSyntaxUID = UID("1.3.6.1.4.1.5962.300.1")
    _refused(dataset, Reason.TRANSFER_SYNTAX, r"^((?!5962).)*$")


@pytest.mark.parametrize("syntax", [syntax for syntax in DECODERS if DECODERS[syntax].stream])
def test_a_stream_of_another_shape_than_declared_is_refused(
    syntax: str, scene: Make, make_dataset: Make, compressed: Make
) -> None:
    pixels = scene(8)
    dataset = compressed(make_dataset(pixels, 8), syntax, pixels)
    dataset.Columns = 35
    _refused(dataset, Reason.UNDECODABLE, "48 × 36, the header says 48 × 35")


@pytest.mark.parametrize("syntax", [JPEG + "70", JPEG + "80", JPEG + "90"])
def test_a_stream_of_fewer_bits_than_declared_is_refused(syntax: str, scene: Make, make_dataset: Make, compressed: Make) -> None:
    pixels = scene(8)
    dataset = compressed(make_dataset(pixels, 8), syntax, pixels)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    _refused(dataset, Reason.BITS, "8 bits, the header says 12")


@pytest.mark.parametrize("syntax", [syntax for syntax in DECODERS if DECODERS[syntax].codec])
def test_a_shortened_stream_is_refused(syntax: str, scene: Make, make_dataset: Make, compressed: Make) -> None:
    pixels = scene(8)
    dataset = compressed(make_dataset(pixels, 8), syntax, pixels)
    dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2]
    with pytest.raises(RefusedFileError, match=r"truncated|undecodable|inconsistent"):
        decode(dataset)


@pytest.mark.parametrize("syntax", [syntax for syntax in DECODERS if DECODERS[syntax].codec])
@pytest.mark.parametrize("damage", ["noise", "nothing"])
def test_a_damaged_stream_is_refused_or_decoded_but_never_raises_anything_else(
    syntax: str, damage: str, scene: Make, make_dataset: Make, compressed: Make
) -> None:
    pixels = scene(8)
    dataset = compressed(make_dataset(pixels, 8), syntax, pixels)
    stream = dataset.PixelData
    if damage == "noise":
        noise = np.random.default_rng(0).bytes(len(stream) - 202)
        dataset.PixelData = stream[:200] + noise + b"\xff\xd9"
    else:
        dataset.PixelData = encapsulate([b"\0" * 64])
    assert _outcome(dataset) in (None, Reason.UNDECODABLE, Reason.TRUNCATED, Reason.BITS)
    if damage == "nothing" or syntax[-3:] in ("201", "202", "203"):  # OpenJPH would return the noise as an image
        assert _outcome(dataset) is not None


def _outcome(dataset: Dataset) -> Reason | None:
    try:
        decode(dataset)
    except RefusedFileError as error:
        return error.reason
    return None


def test_every_decoder_has_its_codec() -> None:
    missing = [decoder.name for decoder in DECODERS.values() if not decoder.available()]
    assert not missing
