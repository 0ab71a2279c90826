from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from pipelines.errors import RefusedFileError
from pipelines.imaging import picture
from pipelines.imaging.decode import frame
from pipelines.imaging.decoders import DECODERS
from pipelines.imaging.radiograph import Recipe, prepare, read
from pipelines.imaging.samples import halvings, of_frame, of_stored, of_stream

JPEG = "1.2.840.10008.1.2.4."
WAVELET = tuple(JPEG + last for last in ("90", "91", "201", "202", "203"))
Make = Callable[..., Any]


def _smooth(bits: int, signed: bool = False, rows: int = 301, columns: int = 244) -> NDArray[Any]:
    """Blobs without sharp edges, over most of the range."""
    noise = np.random.default_rng(bits).random((9, 8), np.float32)
    shade = cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    values = (0.05 + 0.9 * shade) * ((1 << bits) - 1)
    size = 1 if bits <= 8 else 2
    return (values - (1 << (bits - 1))).astype(f"i{size}") if signed else values.astype(f"u{size}")


def _psnr(one: NDArray[Any], other: NDArray[Any], most: float) -> float:
    return float(10 * np.log10(most**2 / max(np.mean((one.astype(float) - other) ** 2), 1e-12)))


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("syntax", WAVELET)
def test_a_wavelet_stream_read_at_a_quarter_is_near_the_means_of_its_pixels(
    syntax: str, bits: int, make_dataset: Make, compressed: Make
) -> None:
    _is_near_full_decoding(syntax, _smooth(bits), bits, make_dataset, compressed)


def test_a_signed_stream_can_be_read_at_a_quarter(make_dataset: Make, compressed: Make) -> None:
    _is_near_full_decoding(JPEG + "90", _smooth(12, signed=True), 12, make_dataset, compressed)


def test_a_jpeg_read_at_a_quarter_is_near_the_means_of_its_pixels(make_dataset: Make, compressed: Make) -> None:
    _is_near_full_decoding(JPEG + "50", _smooth(8), 8, make_dataset, compressed)


def _is_near_full_decoding(syntax: str, pixels: NDArray[Any], bits: int, make_dataset: Make, compressed: Make) -> None:
    recipe, dataset = Recipe(64, "uint16", (0, 100)), compressed(make_dataset(pixels, bits), syntax, pixels)
    reduced = prepare(dataset, recipe)
    with mock.patch.object(picture, "of_stream", return_value=None):
        full = prepare(dataset, recipe)
    assert (reduced.reduction, full.reduction) == (2, 1)
    assert _psnr(reduced.array, full.array, 65535) > 48


@pytest.mark.real
@pytest.mark.parametrize(("size", "least"), [(96, 48), (224, 54), (512, 60)])
@pytest.mark.parametrize("name", ["RG1_J2KI", "RG2_J2KI", "RG3_J2KR"])
def test_genuine_radiographs_read_at_a_lower_resolution_exceed_forty_decibels(
    name: str, size: int, least: float, shared: Path
) -> None:
    dataset, recipe = read(shared / "data" / "conformance" / f"{name}.dcm"), Recipe(size, "uint16", (0.5, 99.5))
    reduced = prepare(dataset, recipe)
    with mock.patch.object(picture, "of_stream", return_value=None):
        full = prepare(dataset, recipe)
    assert reduced.reduction > 1
    assert _psnr(reduced.array, full.array, 65535) > least


def test_the_samples_of_a_wavelet_stand_at_the_first_of_their_pixels(make_dataset: Make, compressed: Make) -> None:
    """A ramp read at a quarter, resampled as if samples stood in the middle, would be off by one and a half pixels."""
    pixels = np.tile((np.arange(256) * 16).astype(np.uint16), (64, 1))
    samples = of_stream(frame(compressed(make_dataset(pixels, 12), JPEG + "90", pixels)), 2)
    assert samples is not None
    assert (samples.step, samples.offset) == (4, -1.5)
    np.testing.assert_allclose(samples.values(samples.codes)[8, 2:-2], pixels[32, 8:-8:4], atol=1)


@pytest.mark.parametrize(("levels", "wanted", "got"), [(5, 2, 2), (1, 3, 1), (0, 2, None)])
def test_a_stream_with_too_few_levels_is_read_at_the_lowest_it_has(
    levels: int, wanted: int, got: int | None, make_dataset: Make
) -> None:
    pixels = _smooth(12)
    dataset = make_dataset(pixels, 12)
    stream = imagecodecs.jpeg2k_encode(
        pixels, level=0, reversible=True, codecformat="J2K", bitspersample=12, resolutions=levels + 1
    )
    _encapsulated(dataset, stream)
    samples = of_stream(frame(dataset), wanted)
    assert (samples and samples.read_at) == got


def _encapsulated(dataset: Dataset, stream: bytes, syntax: str = JPEG + "90") -> None:
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def test_an_image_in_tiles_is_decoded_in_full(make_dataset: Make) -> None:
    pixels = _smooth(8)
    dataset, stream = make_dataset(pixels), BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG2000", tile_size=(128, 128), no_jp2=True, irreversible=False)
    _encapsulated(dataset, stream.getvalue())
    checked = frame(dataset)
    assert checked.stream is not None
    assert checked.stream.levels == 0
    assert of_stream(checked, 2) is None
    np.testing.assert_array_equal(checked.decode(), pixels)


def test_a_stream_in_a_file_format_of_its_own_is_read_too(make_dataset: Make) -> None:
    pixels = _smooth(12)
    dataset = make_dataset(pixels, 12)
    _encapsulated(dataset, imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, codecformat="JP2", bitspersample=12))
    samples = of_stream(frame(dataset), 1)
    assert samples is not None
    assert samples.codes.shape == (151, 122)


def test_a_stream_with_more_bits_than_are_stored_is_read_in_those_that_are(make_dataset: Make) -> None:
    pixels = _smooth(12)
    dataset = make_dataset(pixels, 12)
    _encapsulated(dataset, imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, codecformat="J2K", bitspersample=16))
    wide = of_stream(frame(dataset), 2)
    _encapsulated(dataset, imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, codecformat="J2K", bitspersample=12))
    narrow = of_stream(frame(dataset), 2)
    assert wide is not None
    assert narrow is not None
    np.testing.assert_array_equal(wide.codes, narrow.codes)


def test_a_stream_that_fills_the_other_bits_is_decoded_in_full(make_dataset: Make) -> None:
    """An overlay in bit 15 would be averaged into the image."""
    pixels = _smooth(12)
    planes = pixels.copy()
    planes[100:200, 50:150] |= 0x8000
    dataset = make_dataset(pixels, 12)
    _encapsulated(dataset, imagecodecs.jpeg2k_encode(planes, level=0, reversible=True, codecformat="J2K", bitspersample=16))
    checked = frame(dataset)
    assert of_stream(checked, 2) is None
    np.testing.assert_array_equal(checked.decode(), pixels)


def _refuses(frame: bytes, halvings: int) -> NDArray[np.uint16]:
    raise ValueError("the stream is damaged")


def _shrinks_too_much(frame: bytes, halvings: int) -> NDArray[np.uint16]:
    return np.zeros((3, 3), np.uint16)


@pytest.mark.parametrize("reader", [_refuses, _shrinks_too_much])
def test_a_stream_that_cannot_be_read_at_a_lower_resolution_is_left_to_the_full_decoder(
    reader: Callable[[bytes, int], NDArray[np.uint16]], make_dataset: Make, compressed: Make
) -> None:
    pixels = _smooth(12)
    checked = frame(compressed(make_dataset(pixels, 12), JPEG + "90", pixels))
    assert of_stream(checked, 2) is not None
    assert of_stream(replace(checked, decoder=replace(checked.decoder, reduced=reader)), 2) is None


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("syntax", WAVELET)
def test_a_stream_that_is_cut_short_but_ended_is_refused_at_a_lower_resolution_too(
    syntax: str, share: float, make_dataset: Make, compressed: Make
) -> None:
    pixels = _smooth(12)
    checked = frame(compressed(make_dataset(pixels, 12), syntax, pixels))
    cut = replace(checked, content=checked.content[: int(len(checked.content) * share)] + b"\xff\xd9")
    assert of_stream(cut, 1) is None
    with pytest.raises(RefusedFileError, match="undecodable"):
        cut.decode()


@pytest.mark.parametrize("syntax", [syntax for syntax in DECODERS if DECODERS[syntax].reduced is None])
def test_the_other_syntaxes_are_decoded_in_full(syntax: str, make_dataset: Make) -> None:
    dataset = make_dataset(_smooth(12), 12)
    checked = frame(dataset)
    assert of_stream(checked, 2) is None


@pytest.mark.parametrize(
    ("bits", "signed"), [(8, False), (10, False), (12, False), (16, False), (8, True), (12, True), (16, True)]
)
def test_codes_stand_for_the_stored_values(bits: int, signed: bool, scene: Make, make_dataset: Make) -> None:
    pixels = scene(bits, signed)
    for samples in (of_stored(pixels, bits), of_frame(frame(make_dataset(pixels, bits)))):
        assert samples.codes.dtype == np.uint16
        np.testing.assert_array_equal(samples.values(samples.codes), pixels)


@pytest.mark.parametrize("signed", [False, True])
def test_codes_leave_out_what_stands_beside_the_stored_bits(signed: bool, make_dataset: Make) -> None:
    values = np.array([[0, 1], [2048, 4095]], np.uint16)
    dataset = make_dataset(values << 3 | np.uint16(0x8005), 12, HighBit=14, PixelRepresentation=int(signed))
    checked = frame(dataset)
    samples = of_frame(checked)
    np.testing.assert_array_equal(samples.values(samples.codes), checked.decode())


@pytest.mark.parametrize(
    ("shape", "needed", "count"),
    [
        ((2500, 2000), (512, 410), 2),  # 625 × 500
        ((2500, 2000), (224, 179), 3),
        ((2140, 1760), (512, 421), 1),  # 535 is not 1.15 times 512
        ((768, 768), (224, 224), 1),
        ((768, 768), (300, 300), 0),  # of a small image 1.6 times
        ((100, 100), (224, 224), 0),
        ((1, 1), (1, 1), 0),
    ],
)
def test_a_stream_is_read_no_nearer_to_the_needed_size_than_keeps_forty_decibels(
    shape: tuple[int, int], needed: tuple[int, int], count: int
) -> None:
    assert halvings(*shape, needed) == count
