"""The grayscale transformations of PS3.3, once and in the standard's order.

Stored values → modality LUT (C.11.1) → VOI LUT (C.11.2) → polarity (C.7.6.3.1.2, C.11.6). The chain is a function of the
stored value alone, so it is worked out once for every value that the image can hold and then looked up for every pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines.errors import RefusedFileError
from pipelines.imaging import header
from pipelines.records import Reason

Values = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Grayscale:
    """An image as it is meant to be shown.

    Attributes:
        image: float32 (rows, columns), 0 (black) … 1 (white); pixel padding is 0.
        window: where the grey levels came from: `voi_lut`, `window` or `percentiles`.
    """

    image: NDArray[np.float32]
    window: str


@dataclass(frozen=True)
class LookupTable:
    """A lookup table of PS3.3 C.11.1.1 or C.11.2.1.1.

    Attributes:
        entries: the output values.
        first: the input value of the first entry; lower inputs take the first entry, those past the end the last.
        bits: bits per entry; outputs range over 0 … 2^bits - 1.
    """

    entries: Values
    first: int
    bits: int

    def __call__(self, values: Values) -> Values:
        places = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        outputs: Values = self.entries[places.astype(np.intp)]
        return outputs


def grayscale(stored: NDArray[Any], dataset: Dataset, percentiles: tuple[float, float]) -> Grayscale:
    """Show stored pixel values the way the header asks, or between robust percentiles where it asks for nothing usable.

    Args:
        stored: (rows, columns), uint8, int8, uint16 or int16, as `decode` returns them.
        percentiles: the lower and upper percentile, in percent, of the pixels that are not padding.

    Raises:
        RefusedFileError: all pixels that are not padding hold the same value (`Reason.CONSTANT`).
    """
    patterns = stored.view(np.uint8 if stored.dtype.itemsize == 1 else np.uint16)
    values = _every_value(stored.dtype)
    with header.quiet():
        padding = _padding(values, dataset)
        counts: Counts = np.bincount(patterns.reshape(-1), minlength=len(values))
        counts[padding] = 0
        if np.count_nonzero(counts) < 2:
            raise RefusedFileError(Reason.CONSTANT, "every pixel holds the same value")
        meaning = modality(values, dataset)
        table, window = _shown(meaning, counts, dataset, percentiles)
        if _inverse(dataset):
            table = 1 - table
    table[padding] = 0
    return Grayscale(table.astype(np.float32)[patterns], window)


def modality(values: Values, dataset: Dataset) -> Values:
    """Apply the modality LUT: the sequence if there is one, else rescale slope and intercept (PS3.3 C.11.1.1)."""
    signed_input = bool(values.min() < 0)
    for item in header.items(dataset, "ModalityLUTSequence")[:1]:
        table = lookup_table(item, signed_input=signed_input)
        if table is not None:
            return table(values)
    slope, intercept = header.number(dataset, "RescaleSlope"), header.number(dataset, "RescaleIntercept")
    return values * (slope or 1.0) + (intercept or 0.0)


def lookup_table(item: Dataset, *, signed_input: bool) -> LookupTable | None:
    """Read a LUT item (PS3.3 C.11.1.1.1, C.11.2.1.1), or None where it is not one.

    Entries of 8 bits may come one or two to a word. A table whose entries need more bits than it declares gets them.
    """
    descriptor = header.numbers(item, "LUTDescriptor")
    if len(descriptor) != 3:
        return None
    # The value representation is ambiguous (US or SS): both numbers may have been read with the wrong sign.
    length = int(descriptor[0]) % 65536 or 65536
    first = int(descriptor[1]) % 65536
    first -= 65536 if signed_input and first >= 32768 else 0
    entries = _entries(header.value(item, "LUTData"), length)
    if entries is None:
        return None
    bits = max(int(descriptor[2]), int(entries.max()).bit_length(), 1)
    return LookupTable(entries.astype(np.float64), first, bits)


def linear(values: Values, center: float, width: float) -> Values:
    """VOI LUT function LINEAR, 0…1 (PS3.3 C.11.2.1.2.1); `width` ≥ 1, and at 1 it is a threshold."""
    if width == 1:
        return np.where(values <= center - 0.5, 0.0, 1.0)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def linear_exact(values: Values, center: float, width: float) -> Values:
    """VOI LUT function LINEAR_EXACT, 0…1 (PS3.3 C.11.2.1.3.2); `width` > 0."""
    return np.clip((values - center) / width + 0.5, 0, 1)


def sigmoid(values: Values, center: float, width: float) -> Values:
    """VOI LUT function SIGMOID, 0…1 (PS3.3 C.11.2.1.3.1); `width` > 0."""
    exponent = np.clip(-4 * (values - center) / width, -700, 700)
    return np.asarray(1 / (1 + np.exp(exponent)))


VOI_FUNCTIONS: dict[str, tuple[Callable[[Values, float, float], Values], float]] = {
    "LINEAR": (linear, 1.0),
    "LINEAR_EXACT": (linear_exact, np.nextafter(0.0, 1.0)),
    "SIGMOID": (sigmoid, np.nextafter(0.0, 1.0)),
}
"""VOI LUT Function → the function and the smallest width for which the standard defines it."""


def percentile_window(values: Values, counts: Counts, percentiles: tuple[float, float]) -> tuple[float, float]:
    """The smallest values that at least the given percentages of the pixels do not exceed.

    Args:
        values: one for each entry of `counts`, in any order.
        counts: how many pixels hold each value; at least two different values must occur.
        percentiles: lower and upper, in percent. Where both fall on one value, the whole range is the window.
    """
    order = np.argsort(values, kind="stable")
    values, counts = values[order][counts[order] > 0], counts[order][counts[order] > 0]
    reached = np.cumsum(counts) / counts.sum()
    places = np.searchsorted(reached, np.asarray(percentiles) / 100 - 1e-12)
    low, high = values[np.minimum(places, len(values) - 1)]
    return (float(low), float(high)) if low < high else (float(values[0]), float(values[-1]))


def _every_value(dtype: np.dtype[Any]) -> Values:
    bits = dtype.itemsize * 8
    return np.arange(1 << bits, dtype=f"u{dtype.itemsize}").view(dtype.newbyteorder("=")).astype(np.float64)


def _padding(values: Values, dataset: Dataset) -> NDArray[np.bool_]:
    """Which stored values are padding: one value, or the range up to a limit, both included (PS3.3 C.7.5.1.1.2)."""
    bounds = [header.number(dataset, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if bounds[0] is None:
        return np.zeros(len(values), bool)
    if values.min() < 0:  # the value representation is ambiguous: 63536 is -2000 read as unsigned
        ends = [(int(bound) + 32768) % 65536 - 32768 for bound in bounds if bound is not None]
    else:
        ends = [int(bound) % 65536 for bound in bounds if bound is not None]
    return (values >= min(ends)) & (values <= max(ends))


def _shown(meaning: Values, counts: Counts, dataset: Dataset, percentiles: tuple[float, float]) -> tuple[Values, str]:
    """The VOI step. A LUT or window that gives all pixels of the image one grey level is passed over as invalid."""
    present = counts > 0
    for item in header.items(dataset, "VOILUTSequence"):
        table = lookup_table(item, signed_input=bool(meaning.min() < 0))
        if table is not None and np.ptp(table(meaning)[present]) > 0:
            return table(meaning) / ((1 << table.bits) - 1), "voi_lut"
    function, least = VOI_FUNCTIONS.get("".join(header.texts(dataset, "VOILUTFunction")[:1]), VOI_FUNCTIONS["LINEAR"])
    windows = zip(header.numbers(dataset, "WindowCenter"), header.numbers(dataset, "WindowWidth"), strict=False)
    for center, width in windows:
        if width >= least and np.ptp(function(meaning[present], center, width)) > 0:
            return function(meaning, center, width), "window"
    low, high = percentile_window(meaning, counts, percentiles)
    if low == high:
        raise RefusedFileError(Reason.CONSTANT, "the modality LUT gives every pixel the same value")
    return np.clip((meaning - low) / (high - low), 0, 1), "percentiles"


def _inverse(dataset: Dataset) -> bool:
    """Whether low values are meant to be white: MONOCHROME1, which goes with the shape INVERSE and is not undone by it."""
    return "MONOCHROME1" in header.texts(dataset, "PhotometricInterpretation") or "INVERSE" in header.texts(
        dataset, "PresentationLUTShape"
    )


def _entries(data: Any, length: int) -> NDArray[np.uint16] | None:
    if isinstance(data, bytes | bytearray):
        words = np.frombuffer(bytes(data[: len(data) // 2 * 2]), "<u2").astype(np.uint16)
    elif data is None:
        return None
    else:
        words = np.atleast_1d(np.asarray(data, dtype=np.int64) % 65536).astype(np.uint16)
    if len(words) >= length:
        return words[:length]
    packed = words.astype("<u2").view(np.uint8)
    return packed[:length].astype(np.uint16) if len(packed) >= length else None
