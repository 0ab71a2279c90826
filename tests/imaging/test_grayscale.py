from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines.errors import RefusedFileError
from pipelines.imaging.grayscale import (
    Showing,
    grayscale,
    histogram,
    linear,
    linear_exact,
    lookup_table,
    percentile_window,
    shown,
    sigmoid,
)
from pipelines.imaging.samples import of_stored
from pipelines.records import Reason

SHOWING = Showing((0.5, 99.5))


def _header(**attributes: Any) -> Dataset:
    dataset = Dataset()
    dataset.PhotometricInterpretation = "MONOCHROME2"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def _lut(first: int, entries: list[int] | bytes, bits: int, length: int | None = None) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) if length is None else length, first % 65536, bits])
    item.add_new("LUTData", "OW" if isinstance(entries, bytes) else "US", entries)
    return item


def _row(*values: int, dtype: str = "u2") -> NDArray[Any]:
    return np.array([values], dtype)


def _shown(stored: NDArray[Any], **attributes: Any) -> list[float]:
    image = grayscale(stored, _header(**attributes), SHOWING).image
    assert image.dtype == np.float32
    return [round(float(value), 6) for value in image[0]]


# PS3.3 C.11.2.1.2.1, note 2 gives these cases of LINEAR: with c = 2048, w = 4096 "y = ((x - 2047.5) / 4095) + 0.5".
LINEAR = (
    (2048, 4096, 0, 0),
    (2048, 4096, 4095, 1),
    (2048, 4096, 1365, 1 / 3),
    (2048, 1, 2047, 0),
    (2048, 1, 2048, 1),
    (0, 100, -50, 0),
    (0, 100, 49, 49.5 / 99 + 0.5),
    (0, 100, 50, 1),
    (0, 100, 0, 0.5 / 99 + 0.5),
    (0, 1, -1, 0),
    (0, 1, 0, 1),
)


@pytest.mark.parametrize(("center", "width", "value", "expected"), LINEAR)
def test_linear_follows_the_standard(center: float, width: float, value: float, expected: float) -> None:
    assert linear(np.array([float(value)]), center, width)[0] == pytest.approx(expected, abs=1e-12)


# PS3.3 C.11.2.1.3.2, the same cases of LINEAR_EXACT.
EXACT = (
    (2048, 4096, 0, 0),
    (2048, 4096, 4096, 1),
    (2048, 4096, 1024, 0.25),
    (0, 100, -50, 0),
    (0, 100, 50, 1),
    (0, 1, 0.25, 0.75),
)


@pytest.mark.parametrize(("center", "width", "value", "expected"), EXACT)
def test_linear_exact_follows_the_standard(center: float, width: float, value: float, expected: float) -> None:
    assert linear_exact(np.array([float(value)]), center, width)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("value", "expected"), [(100, 0.5), (110, 1 / (1 + math.exp(-1))), (60, 1 / (1 + math.exp(4))), (1e9, 1)]
)
def test_sigmoid_follows_the_standard(value: float, expected: float) -> None:
    assert sigmoid(np.array([float(value)]), 100, 40)[0] == pytest.approx(expected, abs=1e-12)


def test_a_window_applies_to_rescaled_values() -> None:
    # x = 2 s - 10 is -10, -4, 0, 10; LINEAR with c = 0, w = 11: (x + 0.5) / 10 + 0.5.
    shown = _shown(_row(0, 3, 5, 10), RescaleSlope=2, RescaleIntercept=-10, WindowCenter=0, WindowWidth=11)
    assert shown == [0, 0.15, 0.55, 1]


def test_a_negative_slope_turns_the_image_over_once() -> None:
    shown = _shown(_row(0, 5, 10), RescaleSlope=-1, RescaleIntercept=10, WindowCenter=5.5, WindowWidth=11)
    assert shown == [1, 0.5, 0]


def test_a_modality_lut_comes_before_the_window_and_replaces_the_rescale() -> None:
    # First value 2: stored 0, 1, 2 take the first entry, 3 the second, 4 and 9 the last.
    table = _lut(2, [0, 5, 10], 16)
    shown = _shown(
        _row(0, 2, 3, 4, 9), ModalityLUTSequence=[table], RescaleSlope=100, WindowCenter=5.5, WindowWidth=11, RescaleIntercept=7
    )
    assert shown == [0, 0, 0.5, 1, 1]


def test_a_modality_lut_may_start_at_a_negative_stored_value() -> None:
    table = _lut(-2, [0, 25, 50, 75, 100], 8)
    shown = _shown(_row(-5, -2, -1, 0, 2, 7, dtype="i2"), ModalityLUTSequence=[table], WindowCenter=50.5, WindowWidth=101)
    assert shown == [0, 0, 0.25, 0.5, 1, 1]


def test_a_voi_lut_comes_before_the_window() -> None:
    table = _lut(10, [0, 4095, 2048], 12)
    found = grayscale(_row(9, 10, 11, 12, 13), _header(VOILUTSequence=[table], WindowCenter=5, WindowWidth=2), SHOWING)
    assert found.window == "voi_lut"
    assert found.image[0].tolist() == pytest.approx([0, 0, 1, 2048 / 4095, 2048 / 4095])


def test_a_voi_lut_applies_to_rescaled_values_and_may_start_below_zero() -> None:
    table = _lut(-3, [0, 51, 102, 153, 204, 255], 8)
    shown = _shown(_row(0, 7, 8, 9, 10, 12), VOILUTSequence=[table], RescaleSlope=1, RescaleIntercept=-10)
    assert shown == [0, 0, 0.2, 0.4, 0.6, 1]


def test_entries_of_eight_bits_may_come_two_to_a_word() -> None:
    packed = bytes([0, 51, 102, 255])
    item = _lut(0, packed, 8, length=4)
    assert _shown(_row(0, 1, 2, 3), VOILUTSequence=[item]) == [0, 0.2, 0.4, 1]
    words = _lut(0, np.array([0, 51, 102, 255], "<u2").tobytes(), 8, length=4)
    assert _shown(_row(0, 1, 2, 3), VOILUTSequence=[words]) == [0, 0.2, 0.4, 1]


def test_a_table_of_sixteen_bits_spans_sixteen_bits() -> None:
    assert _shown(_row(0, 1, 2), VOILUTSequence=[_lut(0, [0, 13107, 65535], 16)]) == [0, 0.2, 1]


def test_a_descriptor_of_zero_entries_means_65536() -> None:
    table = lookup_table(_lut(0, np.arange(65536, dtype="<u2").tobytes(), 16, length=0), signed_input=False)
    assert table is not None
    assert len(table.entries) == 65536


@pytest.mark.parametrize("item", [Dataset(), _lut(0, [1, 2], 16, length=9)], ids=["empty", "short"])
def test_a_table_that_is_none_is_passed_over(item: Dataset) -> None:
    found = grayscale(_row(0, 5, 10), _header(VOILUTSequence=[item], WindowCenter=5.5, WindowWidth=11), SHOWING)
    assert found.window == "window"


def test_the_first_valid_of_several_windows_is_used() -> None:
    shown = _shown(_row(0, 5, 10), WindowCenter=[3, 5.5, 1], WindowWidth=[0, 11, 2])
    assert shown == [0, 0.5, 1]


FUNCTIONS = (
    ("LINEAR", 10, 5, 0.5 / 9 + 0.5),
    ("LINEAR_EXACT", 10, 5, 0.5),
    ("SIGMOID", 4, 6, 1 / (1 + math.exp(-1))),
    ("UNHEARD_OF", 10, 5, 0.5 / 9 + 0.5),
)


@pytest.mark.parametrize(("function", "width", "value", "expected"), FUNCTIONS)
def test_the_voi_lut_function_is_the_one_of_the_header(function: str, width: float, value: int, expected: float) -> None:
    shown = _shown(_row(0, value, 10), VOILUTFunction=function, WindowCenter=5, WindowWidth=width)
    assert shown[1] == pytest.approx(expected, abs=1e-6)


USELESS = (
    {"WindowCenter": 5, "WindowWidth": 0},
    {"WindowCenter": 5, "WindowWidth": -4},
    {"WindowCenter": 5, "WindowWidth": 0.5},
    {"WindowCenter": 5000, "WindowWidth": 10},
    {"WindowCenter": 5, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"},
    {"WindowCenter": 5},
    {"WindowWidth": 5},
    {"WindowCenter": None, "WindowWidth": None},
    {},
)


@pytest.mark.parametrize("attributes", USELESS)
def test_without_a_usable_window_the_percentiles_decide(attributes: dict[str, Any]) -> None:
    stored = np.arange(1, 1001, dtype=np.uint16).reshape(25, 40)
    found = grayscale(stored, _header(**attributes), Showing((10, 90)))
    assert found.window == "percentiles"
    # The 100th value is 100, the 900th 900.
    assert found.image.flat[99] == 0
    assert found.image.flat[899] == 1
    assert found.image.flat[499] == pytest.approx(0.5)


def test_a_window_that_is_not_a_number_is_ignored() -> None:
    dataset = _header(WindowCenter=5, WindowWidth=5)
    dataset["WindowCenter"]._value = "wide open"
    assert grayscale(_row(0, 5, 10), dataset, SHOWING).window == "percentiles"


def test_percentiles_count_pixels_and_fall_back_to_the_range() -> None:
    values, counts = np.array([3.0, 1.0, 2.0, 9.0]), np.array([1, 1, 98, 0])
    assert percentile_window(values, counts, (0.5, 99.5)) == (1, 3)
    assert percentile_window(values, counts, (1.5, 98.5)) == (1, 3)
    assert percentile_window(values, np.array([50, 25, 25, 0]), (30, 60)) == (2, 3)


POLARITIES = (
    ({"PhotometricInterpretation": "MONOCHROME2"}, [0, 0.3, 1]),
    ({"PhotometricInterpretation": "MONOCHROME2", "PresentationLUTShape": "IDENTITY"}, [0, 0.3, 1]),
    ({"PhotometricInterpretation": "MONOCHROME1"}, [1, 0.7, 0]),
    ({"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}, [1, 0.7, 0]),
    ({"PhotometricInterpretation": "MONOCHROME2", "PresentationLUTShape": "INVERSE"}, [1, 0.7, 0]),
)


@pytest.mark.parametrize(("attributes", "expected"), POLARITIES)
@pytest.mark.parametrize("voi", [{"WindowCenter": 5.5, "WindowWidth": 11}, {}, {"VOILUTSequence": [_lut(0, list(range(11)), 4)]}])
def test_the_polarity_is_turned_once(attributes: dict[str, Any], expected: list[float], voi: dict[str, Any]) -> None:
    shown = _shown(_row(0, 3, 10), **attributes, **voi)
    if "VOILUTSequence" in voi:  # entries 0 … 10 of a range of 0 … 15
        dark = [0, 3 / 15, 10 / 15]
        expected = dark if expected[0] == 0 else [1 - value for value in dark]
    assert shown == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_background_and_out_of_the_percentiles(photometric: str) -> None:
    stored = np.full((10, 20), 60000, np.uint16)
    stored[:, :10] = np.arange(100, 200).reshape(10, 10)
    found = grayscale(stored, _header(PixelPaddingValue=60000, PhotometricInterpretation=photometric), Showing((0, 100)))
    assert not found.image[:, 10:].any()
    inside = found.image[:, :10] if photometric == "MONOCHROME2" else 1 - found.image[:, :10]
    np.testing.assert_allclose(inside.reshape(-1), np.arange(100) / 99, atol=1e-6)


def test_a_padding_range_is_padding_from_end_to_end() -> None:
    stored = _row(-2000, -1990, -1980, -1979, 0, 21, dtype="i2")
    header = {"PixelPaddingRangeLimit": -1980, "PhotometricInterpretation": "MONOCHROME1"}
    for value in (-2000, 63536):  # the second is -2000 read as unsigned
        dataset = _header(**header)
        dataset.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
        shown = grayscale(stored, dataset, Showing((0, 100))).image[0]
        assert shown.tolist() == pytest.approx([0, 0, 0, 1, 21 / 2000, 0], abs=1e-6)


def test_signed_values_are_shown_in_order() -> None:
    assert _shown(_row(-3, 0, 7, dtype="i1"), WindowCenter=2.5, WindowWidth=11) == [0, 0.3, 1]


CONSTANT = (
    (np.full((4, 4), 7, np.uint16), {}),
    (np.full((4, 4), 7, np.uint8), {"WindowCenter": 5, "WindowWidth": 10}),
    (np.array([[7, 0, 0]], np.uint16), {"PixelPaddingValue": 0}),
    (np.array([[0, 1]], np.uint16), {"ModalityLUTSequence": [_lut(0, [5, 5], 16)]}),
)


@pytest.mark.parametrize(("stored", "attributes"), CONSTANT)
def test_an_image_of_one_value_is_refused(stored: NDArray[Any], attributes: dict[str, Any]) -> None:
    with pytest.raises(RefusedFileError, match="same value") as caught:
        grayscale(stored, _header(**attributes), SHOWING)
    assert caught.value.reason is Reason.CONSTANT


def test_no_argument_is_changed() -> None:
    stored = _row(0, 5, 10)
    dataset = _header(PixelPaddingValue=0, WindowCenter=5, WindowWidth=10)
    before = dataset.to_json()
    grayscale(stored, dataset, SHOWING)
    assert stored.tolist() == [[0, 5, 10]]
    assert dataset.to_json() == before


def _window_of(dataset: Dataset, name: str | None) -> list[float]:
    found = grayscale(_row(0, 50, 100), dataset, Showing((0, 100), name))
    return [round(float(value), 3) for value in found.image[0]]


TWO_WINDOWS = {"WindowCenter": [50.5, 25.5], "WindowWidth": [101, 51], "WindowCenterWidthExplanation": ["NORMAL", "Harder"]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [(None, [0, 0.5, 1]), ("NORMAL", [0, 0.5, 1]), ("harder", [0, 1, 1]), ("no such window", [0, 0.5, 1])],
)
def test_of_several_windows_the_first_or_the_one_of_that_name_is_taken(name: str | None, expected: list[float]) -> None:
    assert _window_of(_header(**TWO_WINDOWS), name) == expected


def test_a_window_asked_for_by_name_goes_before_a_lut_and_the_other_way_round() -> None:
    item = _lut(0, [0] * 60 + [255] * 41, 8)
    item.LUTExplanation = "SOFTER"
    dataset = _header(VOILUTSequence=[item], **TWO_WINDOWS)
    assert _window_of(dataset, None) == [0, 0, 1]
    assert _window_of(dataset, "HARDER") == [0, 1, 1]
    assert _window_of(dataset, "SOFTER") == [0, 0, 1]


def test_windows_without_explanations_are_taken_in_their_order() -> None:
    dataset = _header(WindowCenter=[50.5, 25.5], WindowWidth=[101, 51])
    assert _window_of(dataset, "HARDER") == [0, 0.5, 1]


def test_raw_detector_data_are_shown_with_bone_white() -> None:
    attributes = {"PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationship": "LIN"}
    dataset = _header(PixelIntensityRelationshipSign=1, WindowCenter=5, WindowWidth=3, **attributes)
    found = grayscale(_row(1023, 2047, 4095), dataset, Showing((0, 100)))
    assert [round(float(value), 4) for value in found.image[0]] == [1, 0.5, 0]
    assert found.window == "percentiles"


def test_between_stored_values_a_window_is_evaluated_where_the_mean_is() -> None:
    """The mean of 1000 and 1001 at 12 bits is a value of its own: ((1000.5 - 999.5) / 3) + 0.5, a narrow window."""
    samples = of_stored(np.array([[998, 1000, 1001, 1003]], np.uint16), 12)
    codes = np.array([[998 * 16, (1000 * 16 + 1001 * 16) // 2, 1003 * 16]], np.uint16)
    found = shown(codes, samples, None, _header(WindowCenter=1000, WindowWidth=4), SHOWING)
    assert [round(float(value), 4) for value in found.image[0]] == [0, round(1 / 3 + 0.5, 4), 1]


def test_means_of_pixels_of_few_bits_are_shown_within_a_sixteenth_of_a_stored_value() -> None:
    samples = of_stored(np.array([[0, 255]], np.uint8))
    codes = np.arange(0, 65281, 7, dtype=np.uint16).reshape(1, -1)
    found = shown(codes, samples, None, _header(WindowCenter=128, WindowWidth=256), SHOWING).image
    np.testing.assert_allclose(found * 255, codes / 256, atol=1 / 32 + 1e-4)
    assert len(np.unique(found)) == 255 * 16 + 1
    ends = shown(np.array([[0, 65280]], np.uint16), samples, None, _header(WindowCenter=128, WindowWidth=256), SHOWING)
    assert ends.image.tolist() == [[0, 1]]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_histogram_counts_each_value_of_the_pixels_that_count(dtype: str) -> None:
    most = int(np.iinfo(dtype).max)
    values = np.array([[0, 3, most], [most, 3, 3]], dtype)
    counts = histogram(values[:, ::-1])
    assert (counts.shape, counts[[0, 3, most]].tolist(), counts.sum()) == ((most + 1,), [1, 3, 2], 6)
    counts = histogram(values, np.array([[False, True, True], [False, True, False]]))
    assert (counts[[0, 3, most]].tolist(), counts.sum()) == ([0, 2, 1], 3)


def test_levels_span_the_range_and_padding_is_black() -> None:
    dataset = _header(WindowCenter=128, WindowWidth=256, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=9)
    found = grayscale(_row(0, 51, 255, 9, dtype="u1"), dataset, SHOWING)
    assert found.levels(np.dtype("uint8")).tolist() == [[255, 204, 0, 0]]
    assert found.levels(np.dtype("uint16")).tolist() == [[65535, 52428, 0, 0]]
