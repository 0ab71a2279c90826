"""Modality and VOI lookup tables, rebuilt from their numbers, which must be credible as grey levels: text is not."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from pipelines.dicom import vocabulary as words
from pipelines.dicom.header import Header
from pipelines.dicom.writing import Attributes, Items, Typed, Value

SHORTEST, LONGEST = 16, 65536
NOISE = 1 / 64
"""Of its range, how far a table may step back; vendors' tables do, by a count or two."""


def rewritten(item: Header, header: Header) -> Attributes | None:
    """A lookup table (PS3.3 C.11.1.1, C.11.2.1.1) from its numbers.

    Returns:
        None if they do not fit its descriptor, or do not rise or fall throughout (but for noise, and zeros at the end), as grey
        levels do and letters do not.
    """
    order = "<" if header.little_endian else ">"
    if len(item.raw("LUTDescriptor")) != 6:
        return None
    entries, first, bits = struct.unpack(f"{order}3H", item.raw("LUTDescriptor"))
    count, data = entries or LONGEST, item.raw("LUTData")
    if not 8 <= bits <= 16 or count < SHORTEST or len(data) < count:
        return None
    # Tables of eight bits are found packed, one byte for each entry.
    kind = np.dtype(f"{order}u2") if len(data) >= 2 * count else np.dtype("u1")
    table = np.frombuffer(data, kind, count).astype("<u2")
    if not _rises(table.astype(np.int64)) and not _rises(-table.astype(np.int64)):
        return None
    # The first mapped value takes the sign of the pixels; only then is the descriptor's VR SS.
    signed = header.integer("PixelRepresentation") == 1 and first >= 1 << 15
    unit = words.LUT_TYPES.get(words.squashed(item.text("ModalityLUTType")))
    descriptor = Typed("SS" if signed else "US", struct.pack("<3H", entries, first, bits))
    kept: dict[str, Value | Typed | Items] = {"LUTDescriptor": descriptor, "LUTData": Typed("OW", table.tobytes())}
    name = words.WINDOWS.get(words.squashed(item.text("LUTExplanation")))
    return kept | ({"ModalityLUTType": unit} if unit else {}) | ({"LUTExplanation": name} if name else {})


def _rises(table: NDArray[np.int64]) -> bool:
    """Whether entries never step back by more than noise, zeros at the end left out."""
    used = np.trim_zeros(table, "b")
    return len(used) < 2 or bool(np.diff(used).min() >= -NOISE * np.ptp(used))
