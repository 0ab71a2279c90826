from __future__ import annotations

import json
import logging
import warnings
import zlib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_dicom import bomb, small
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pipelines.errors import RefusedFileError
from pipelines.imaging import radiograph
from pipelines.imaging.radiograph import Prepared, Recipe, pixel_aspect, prepare, read
from pipelines.records import INDEX, MANIFEST, Reason

RECIPE = Recipe(32, "uint8", (0.5, 99.5))
Make = Callable[..., Any]


@pytest.fixture
def content(scene: Make, make_dataset: Make, dicom_bytes: Make) -> bytes:
    return bytes(dicom_bytes(make_dataset(scene(12), 12)))


def test_a_file_is_read_from_a_path_or_from_bytes(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(content)
    assert read(tmp_path / "image") == read(content)


@pytest.mark.parametrize("implicit", [True, False])
def test_a_file_without_preamble_and_meta_information_is_prepared(
    implicit: bool, content: bytes, scene: Make, make_dataset: Make, dicom_bytes: Make
) -> None:
    dataset = make_dataset(scene(12), 12)
    del dataset.file_meta
    bare = dicom_bytes(dataset, enforce_file_format=False, implicit_vr=implicit, little_endian=True)
    assert bare[128:132] != b"DICM"
    np.testing.assert_array_equal(prepare(read(bare), RECIPE).array, prepare(read(content), RECIPE).array)


NOT_USABLE = (
    (lambda content: b"", Reason.NOT_DICOM),
    (lambda content: b"SOPInstanceUID,pneumonia\n1.2.3,1\n" * 50, Reason.NOT_DICOM),
    (lambda content: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, Reason.NOT_DICOM),
    (lambda content: content[:140], Reason.TRUNCATED),
)


@pytest.mark.parametrize(("change", "reason"), NOT_USABLE)
def test_what_is_not_dicom_is_refused(change: Callable[[bytes], bytes], reason: Reason, content: bytes) -> None:
    with pytest.raises(RefusedFileError) as caught:
        read(change(content))
    assert caught.value.reason is reason


DEFLATED = DeflatedExplicitVRLittleEndian


def _twice_deflated(content: bytes) -> bytes:
    """A deflated file in which there is a whole other one."""
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    start = content.index(DEFLATED.encode()) + len(DEFLATED)
    return content[: start + start % 2] + engine.compress(content) + engine.flush()


def test_what_is_read_and_what_it_inflates_to_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = small(1, DEFLATED)
    assert read(whole).Rows == read(small(1)).Rows
    monkeypatch.setattr(radiograph, "LARGEST", 1 << 20)
    large = small(1) + bytes(1 << 20)
    (tmp_path / "large").write_bytes(large)
    for content, reason in (
        (bomb(2 << 20), Reason.SIZE),
        (large, Reason.SIZE),
        (tmp_path / "large", Reason.SIZE),
        (Path("/dev/zero"), Reason.NOT_DICOM),
        (whole[:-100], Reason.TRUNCATED),
        (_twice_deflated(whole), Reason.UNREADABLE),
    ):
        with pytest.raises(RefusedFileError) as caught:
            read(content)
        assert caught.value.reason is reason


def test_a_file_that_names_the_deflated_syntax_elsewhere_is_read_as_it_is(
    content: bytes, scene: Make, make_dataset: Make, dicom_bytes: Make
) -> None:
    named = dicom_bytes(make_dataset(scene(12), 12, StudyDescription=DEFLATED))
    np.testing.assert_array_equal(prepare(read(named), RECIPE).array, prepare(read(content), RECIPE).array)


def test_a_file_that_ends_within_its_pixels_is_refused(
    content: bytes, scene: Make, make_dataset: Make, compressed: Make, dicom_bytes: Make
) -> None:
    with pytest.raises(RefusedFileError, match="truncated"):
        prepare(read(content[:-200]), RECIPE)
    pixels = scene(12)
    stream = dicom_bytes(compressed(make_dataset(pixels, 12), "1.2.840.10008.1.2.4.90", pixels))
    with pytest.raises(RefusedFileError, match="truncated"):
        prepare(read(stream[:-200]), RECIPE)


ODD = (
    ("WindowCenter", "DS", b"Mustermann"),
    ("WindowWidth", "DS", b"1\\2\\Muster"),
    ("RescaleSlope", "DS", b"nan "),
    ("RescaleIntercept", "DS", b"1e999 "),
    ("PixelSpacing", "DS", b"0\\0 "),
    ("PixelAspectRatio", "IS", b"Mustermann"),
    ("NumberOfFrames", "IS", b"one "),
    ("PixelPaddingValue", "US", b"M"),
    ("VOILUTFunction", "CS", b"mustermann"),
    ("PresentationIntentType", "CS", b"for mustermann"),
    ("CollimatorShape", "CS", b"mustermann"),
    ("CollimatorLeftVerticalEdge", "IS", b"Mustermann"),
    ("ImageLaterality", "CS", b"mustermann"),
    ("WindowCenterWidthExplanation", "LO", b"Mustermann"),
)


def _planted(dataset: Dataset, keyword: str, vr: str, value: bytes, dicom_bytes: Make) -> bytes:
    """The file with a value that its value representation does not allow, which pydicom would not write."""
    filler = b"~" * len(value) + b"~" * (len(value) % 2)
    dataset.add_new(keyword, "LO", filler.decode())
    content = bytes(dicom_bytes(dataset))
    assert content.count(filler) == 1
    length = len(filler).to_bytes(2, "little")
    return content.replace(b"LO" + length + filler, vr.encode() + length + value.ljust(len(filler), b" "))


@pytest.mark.parametrize(("keyword", "vr", "value"), ODD)
def test_an_odd_header_value_is_passed_over_in_silence(
    keyword: str,
    vr: str,
    value: bytes,
    scene: Make,
    make_dataset: Make,
    dicom_bytes: Make,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    dataset = make_dataset(scene(12), 12)
    recipe = replace(RECIPE, window="HARDER", crop=True, flip_right=True, flip_views=("RL",))
    plain = prepare(dataset, recipe)
    content = _planted(dataset, keyword, vr, value, dicom_bytes)
    with warnings.catch_warnings(record=True) as notices, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        np.testing.assert_array_equal(prepare(read(content), recipe).array, plain.array)
    assert not notices
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("keyword", ["Rows", "BitsStored", "PhotometricInterpretation", "BitsAllocated"])
def test_an_odd_header_value_that_matters_is_refused_without_repeating_it(
    keyword: str, scene: Make, make_dataset: Make, dicom_bytes: Make
) -> None:
    content = _planted(make_dataset(scene(12), 12), keyword, "DS", b"Mustermann", dicom_bytes)
    with pytest.raises(RefusedFileError, match=r"^((?!Muster).)*$"):
        prepare(read(content), RECIPE)


@pytest.mark.parametrize(("depth", "most"), [("uint8", 255), ("uint16", 65535)])
def test_the_array_spans_the_grey_levels_of_its_depth(depth: str, most: int, make_dataset: Make) -> None:
    pixels = np.zeros((64, 32), np.uint8)
    pixels[:32] = 51
    pixels[:32, 16:] = 255
    prepared = prepare(make_dataset(pixels, WindowCenter=128, WindowWidth=256), Recipe(32, depth, (0, 100)))
    assert prepared.array.dtype == depth
    assert prepared.array.shape == (32, 32)
    assert not prepared.array[:, :8].any()
    assert prepared.array[0, [8, 23]].tolist() == [most // 5, most]
    # Inside the content: half 0, a quarter 0.2, a quarter 1.
    assert (prepared.dark, prepared.bright) == (0.5, 0.25)
    assert prepared.mean == pytest.approx(0.3)
    assert prepared.std == pytest.approx(np.sqrt((0.04 + 1) / 4 - 0.09))
    assert prepared.window == "window"


def test_a_monochrome1_file_is_turned_over_once(scene: Make, make_dataset: Make) -> None:
    """LINEAR is symmetric about c - 0.5 = 2047.5, the middle of 12 bits, so the mirrored image has the same window."""
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    plain = prepare(make_dataset(scene(12), 12, **window), RECIPE).array
    turned = make_dataset((4095 - scene(12)).astype(np.uint16), 12, PhotometricInterpretation="MONOCHROME1", **window)
    np.testing.assert_allclose(prepare(turned, RECIPE).array, plain.astype(int), atol=1)  # 1 - x may round the other way


def test_what_is_recorded_are_columns_of_the_index() -> None:
    recorded = {field.name for field in fields(Prepared)} - {"array"}
    assert recorded == set(INDEX) - set(MANIFEST) - {"shard", "row", "left_out"}


def test_a_recipe_survives_its_dictionary() -> None:
    for recipe in (RECIPE, replace(RECIPE, window="HARDER", crop=True, flip_right=("HAND",), flip_views=("RL",))):
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


ASPECTS = (
    ({"PixelSpacing": [0.2, 0.1]}, 2),
    ({"ImagerPixelSpacing": [0.1, 0.2]}, 0.5),
    ({"PixelSpacing": [0.0, 0.0], "ImagerPixelSpacing": [0.3, 0.2]}, 1.5),
    ({"PixelSpacing": [0.143, 0.143]}, 1),
    ({"PixelSpacing": [0.143, 0.144]}, 1),
    ({"PixelSpacing": [90, 0.1]}, 1),
    ({"PixelAspectRatio": [4, 3]}, 4 / 3),
    ({"PixelAspectRatio": [0, 1]}, 1),
    ({}, 1),
)


@pytest.mark.parametrize(("attributes", "expected"), ASPECTS)
def test_the_aspect_of_a_pixel_is_its_height_by_its_width(attributes: dict[str, Any], expected: float) -> None:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    assert pixel_aspect(dataset) == pytest.approx(expected)


def test_tall_pixels_make_a_tall_image(scene: Make, make_dataset: Make) -> None:
    square = make_dataset(scene(12, rows=40, columns=40), 12, PixelSpacing=[0.2, 0.1])
    array = prepare(square, RECIPE).array
    assert not array[:, :8].any()
    assert not array[:, 24:].any()
    assert array[:, 8:24].any(axis=0).all()


def test_the_data_set_is_left_as_it_was(content: bytes) -> None:
    dataset = read(content)
    prepare(dataset, RECIPE)
    assert dataset == read(content)


def test_padding_takes_no_part_in_means(make_dataset: Make) -> None:
    """Where a pixel is partly padding, its grey is that of the rest; where mostly, it is black."""
    pixels = np.full((128, 128), 1000, np.uint16)
    pixels[:, 64:] = 3000
    pixels[:35] = 0  # 35 rows: the ninth row of 32 has three of padding in four
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    array = prepare(make_dataset(pixels, 12, PixelPaddingValue=0, **window), RECIPE).array
    assert not array[:9].any()
    assert set(np.unique(array[9:, :16])) == {round(1000 / 4095 * 255)}
    pixels[33:35] = 1000
    half = prepare(make_dataset(pixels, 12, PixelPaddingValue=0, **window), RECIPE).array
    assert set(np.unique(half[8, :16])) == {round(1000 / 4095 * 255)}
    plain = prepare(make_dataset(pixels, 12, **window), RECIPE).array
    assert 0 < plain[8, 0] < half[8, 0]


def test_an_image_whose_header_knows_padding_is_decoded_in_full(scene: Make, make_dataset: Make, compressed: Make) -> None:
    pixels = scene(12, rows=200, columns=160)
    for attributes, reduction in (({}, 2), ({"PixelPaddingValue": 4095}, 1)):
        dataset = compressed(make_dataset(pixels, 12, **attributes), "1.2.840.10008.1.2.4.90", pixels)
        assert prepare(dataset, Recipe(50, "uint8", (0, 100))).reduction == reduction


def test_raw_detector_data_are_left_out_unless_they_are_asked_for(scene: Make, make_dataset: Make) -> None:
    dataset = make_dataset(scene(12), 12, PresentationIntentType="FOR PROCESSING")
    with pytest.raises(RefusedFileError, match=r"raw_for_processing.*prepare\.for_processing: render") as caught:
        prepare(dataset, RECIPE)
    assert caught.value.reason is Reason.FOR_PROCESSING
    assert prepare(dataset, replace(RECIPE, for_processing="render")).window == "percentiles"


def test_a_right_hand_is_mirrored_into_a_left_one(scene: Make, make_dataset: Make) -> None:
    left = make_dataset(scene(12), 12, ImageLaterality="L", BodyPartExamined="HAND")
    right = make_dataset(np.ascontiguousarray(scene(12)[:, ::-1]), 12, ImageLaterality="R", BodyPartExamined="HAND")
    recipe = replace(RECIPE, flip_right=("HAND",))
    mirrored, plain = prepare(right, recipe), prepare(left, recipe)
    np.testing.assert_allclose(mirrored.array.astype(int), plain.array, atol=1)
    assert (mirrored.mirrored, plain.mirrored) == (1, 0)
    assert np.abs(prepare(right, RECIPE).array.astype(int) - plain.array).max() > 20


@pytest.mark.parametrize("syntax", [None, "1.2.840.10008.1.2.4.90"])
def test_a_cropped_image_is_its_open_field_at_full_use_of_the_size(
    syntax: str | None, scene: Make, make_dataset: Make, compressed: Make
) -> None:
    pixels = np.full((480, 400), 4095, np.uint16)
    pixels[160:400, 100:340] = scene(12, rows=240, columns=240) * 0.8
    dataset = make_dataset(pixels, 12, WindowCenter=2048, WindowWidth=4096)
    if syntax:
        dataset = compressed(dataset, syntax, pixels)
    whole, cropped = prepare(dataset, Recipe(64, "uint8", (0, 100))), prepare(dataset, Recipe(64, "uint8", (0, 100), crop=True))
    assert whole.crop is None
    assert cropped.crop is not None
    np.testing.assert_allclose([int(edge) for edge in cropped.crop.split()], [160, 100, 400, 340], atol=8)
    assert whole.bright > 0.5 > 0.1 > cropped.bright
    assert (cropped.array > 0).mean() > 0.9  # the field fills the square
    if syntax:
        assert whole.reduction > cropped.reduction  # read again, since half of it fills the square


def test_the_lossless_syntaxes_of_one_image_have_one_fingerprint(scene: Make, make_dataset: Make, compressed: Make) -> None:
    """Also those that are read at a lower resolution; what the leakage check looks for."""
    pixels = scene(12, rows=300, columns=260)
    syntaxes = [None, "1.2.840.10008.1.2.5", *("1.2.840.10008.1.2.4." + last for last in ("57", "70", "80", "90", "201"))]
    made = [
        make_dataset(pixels, 12) if syntax is None else compressed(make_dataset(pixels, 12), syntax, pixels)
        for syntax in syntaxes
    ]
    prepared = [prepare(dataset, RECIPE) for dataset in made]
    assert {one.reduction for one in prepared} == {1, 4}
    assert len({one.pixel_hash for one in prepared}) == 1
    hashes = [int(one.perceptual_hash, 16) for one in prepared]
    assert max((one ^ other).bit_count() for one in hashes for other in hashes) <= 2
    assert prepare(make_dataset(np.roll(pixels, 1), 12), RECIPE).pixel_hash != prepared[0].pixel_hash


def test_a_recipe_of_an_older_model_card_has_the_defaults_of_what_it_did_not_say() -> None:
    assert Recipe.from_dict({"size": 32, "depth": "uint8", "percentiles": [0.5, 99.5]}) == RECIPE
