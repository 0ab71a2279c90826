"""The grayscale transformations of PS3.3, once and in the standard's order.

Stored values → modality LUT (C.11.1) → VOI LUT (C.11.2) → polarity (C.7.6.3.1.2, C.11.6). The chain is a function of the
stored value alone, so it is worked out once for every value that occurs and then looked up for every pixel. Between values
that are stored, where an image was resampled, a lookup table takes the nearest. Overlays (C.9.2) are not shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines.errors import RefusedFileError
from pipelines.imaging import detector, header
from pipelines.imaging.samples import Codes, Samples, of_stored
from pipelines.records import Reason

Values = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Grayscale:
    """An image as it is meant to be shown.

    Attributes:
        codes: uint16 (rows, columns).
        table: float32 (65536), the grey level of each code that occurs, 0 (black) … 1 (white).
        blank: which pixels are padding, and black; None for none of them.
        window: where the grey levels came from: `voi_lut`, `window` or `percentiles`.
    """

    codes: Codes
    table: NDArray[np.float32]
    blank: NDArray[np.bool_] | None
    window: str

    @property
    def image(self) -> NDArray[np.float32]:
        """The grey levels, (rows, columns), 0…1."""
        return self._looked_up(self.table)

    def levels(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The grey levels, (rows, columns), over the whole range of uint8 or uint16."""
        return self._looked_up(np.rint(self.table * np.iinfo(dtype).max).astype(dtype))

    def _looked_up(self, table: NDArray[Any]) -> NDArray[Any]:
        image: NDArray[Any] = table.take(self.codes)
        if self.blank is not None:
            image[self.blank] = 0
        return image


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

    def fraction(self, values: Values) -> Values:
        """The outputs as parts of the largest that the bits per entry allow, 0…1."""
        return self(values) / ((1 << self.bits) - 1)


@dataclass(frozen=True)
class Showing:
    """How images are shown where their headers leave a choice.

    Attributes:
        percentiles: the window in percent, lower and upper, of the pixels that are not padding, where the header has none.
        window: explanation of the window or VOI LUT to take where there are several; None takes the first.
    """

    percentiles: tuple[float, float]
    window: str | None = None


def grayscale(stored: NDArray[Any], dataset: Dataset, showing: Showing) -> Grayscale:
    """Show stored pixel values the way the header asks, or between robust percentiles where it asks for nothing usable.

    Args:
        stored: (rows, columns), uint8, int8, uint16 or int16, as `decode` returns them.

    Raises:
        RefusedFileError: all pixels that are not padding hold the same value (`Reason.CONSTANT`).
    """
    samples = of_stored(stored)
    return shown(samples.codes, samples, padding(stored, dataset), dataset, showing)


def shown(codes: Codes, samples: Samples, blank: NDArray[np.bool_] | None, dataset: Dataset, showing: Showing) -> Grayscale:
    """Show an image, of any size, given by codes.

    Args:
        codes: uint16 (rows, columns), as in `samples`, which says what they stand for.
        blank: which pixels are padding; None for none of them.

    Raises:
        RefusedFileError: all pixels that are not padding hold the same value (`Reason.CONSTANT`).
    """
    codes = samples.coarse(codes)
    counts = histogram(codes, None if blank is None else ~blank)
    present = np.flatnonzero(counts > 0)
    if len(present) < 2:
        raise RefusedFileError(Reason.CONSTANT, "every pixel holds the same value")
    with header.quiet():
        extremes = (0, (1 << 16) - (1 << (16 - samples.bits)))
        outputs = modality(samples.values(np.append(present, extremes)), dataset, signed=samples.signed)
        meaning, below_zero = outputs[:-2], bool(outputs[-2:].min() < 0)
        if detector.is_raw(dataset):
            meaning, inverse = detector.density(meaning, dataset)
            grey, window = _between_percentiles(meaning, counts[present], showing.percentiles), "percentiles"
        else:
            inverse = _inverse(dataset)
            grey, window = _voi(meaning, counts[present], dataset, showing, signed=below_zero)
    table = np.zeros(1 << 16, np.float32)
    table[present] = 1 - grey if inverse else grey
    return Grayscale(codes, table, blank, window)


def histogram(values: NDArray[Any], counted: NDArray[np.bool_] | None = None) -> Counts:
    """How many pixels of an image, uint8 or uint16, hold each value; up to 2^24 of one value exactly.

    Args:
        counted: which pixels count; None for all.
    """
    bins = int(np.iinfo(values.dtype).max) + 1
    mask = None if counted is None else counted.view(np.uint8)
    found = cv2.calcHist([np.ascontiguousarray(values)], [0], mask, [bins], [0, bins])
    counts: Counts = found.reshape(-1).astype(np.int64)
    return counts


def padding(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.bool_] | None:
    """Which pixels are padding: of one value, or of the range up to a limit, both included (PS3.3 C.7.5.1.1.2).

    Returns:
        (rows, columns), or None where no pixel is.
    """
    with header.quiet():
        ends = [header.number(dataset, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:
        return None
    # The value representation is ambiguous (US or SS): 63536 is -2000 read as unsigned.
    middle = 32768 if stored.dtype.kind == "i" else 0
    limits = [(int(end) + middle) % 65536 - middle for end in ends if end is not None]
    found: NDArray[np.bool_] = (stored >= min(limits)) & (stored <= max(limits))
    return found if found.any() else None


def modality(values: Values, dataset: Dataset, *, signed: bool) -> Values:
    """Apply the modality LUT: the sequence if there is one, else rescale slope and intercept (PS3.3 C.11.1.1).

    Args:
        signed: whether stored values can be negative.
    """
    for item in header.items(dataset, "ModalityLUTSequence")[:1]:
        table = lookup_table(item, signed_input=signed)
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


def _voi(meaning: Values, counts: Counts, dataset: Dataset, showing: Showing, *, signed: bool) -> tuple[Values, str]:
    """The VOI step: grey levels 0…1, and where they came from.

    A LUT or window that gives all pixels of the image one grey level is passed over as invalid.

    Args:
        signed: whether values after the modality LUT can be negative.
    """
    choices = [*_luts(dataset, signed=signed), *_windows(dataset)]
    if showing.window is not None:
        wanted = showing.window.upper()
        choices.sort(key=lambda choice: choice.explanation != wanted)
    for choice in choices:
        grey = choice.function(meaning)
        if np.ptp(grey) > 0:
            return grey, choice.kind
    return _between_percentiles(meaning, counts, showing.percentiles), "percentiles"


@dataclass(frozen=True)
class _Choice:
    """One way that the header offers to show the image."""

    kind: str
    explanation: str
    function: Callable[[Values], Values]


def _luts(dataset: Dataset, *, signed: bool) -> Iterator[_Choice]:
    for item in header.items(dataset, "VOILUTSequence"):
        table = lookup_table(item, signed_input=signed)
        if table is not None:
            yield _Choice("voi_lut", "".join(header.texts(item, "LUTExplanation")[:1]), table.fraction)


def _windows(dataset: Dataset) -> Iterator[_Choice]:
    function, least = VOI_FUNCTIONS.get("".join(header.texts(dataset, "VOILUTFunction")[:1]), VOI_FUNCTIONS["LINEAR"])
    explanations = header.texts(dataset, "WindowCenterWidthExplanation")
    pairs = zip(header.numbers(dataset, "WindowCenter"), header.numbers(dataset, "WindowWidth"), strict=False)
    for place, (center, width) in enumerate(pairs):
        if width >= least:
            explanation = explanations[place] if place < len(explanations) else ""
            yield _Choice("window", explanation, partial(_windowed, function, center, width))


def _windowed(function: Callable[[Values, float, float], Values], center: float, width: float, values: Values) -> Values:
    return function(values, center, width)


def _between_percentiles(meaning: Values, counts: Counts, percentiles: tuple[float, float]) -> Values:
    low, high = percentile_window(meaning, counts, percentiles)
    if low == high:
        raise RefusedFileError(Reason.CONSTANT, "the modality LUT gives every pixel the same value")
    return np.clip((meaning - low) / (high - low), 0, 1)


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
