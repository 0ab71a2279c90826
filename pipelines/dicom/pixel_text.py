"""The pixel data of one radiograph without identifying text (PS3.15 E.3.1, Clean Pixel Data Option)."""

from __future__ import annotations

from io import BytesIO

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from pipelines.dicom.blanking import Pixels
from pipelines.dicom.burned_in import Kind, Region, clean, find
from pipelines.dicom.pixels import PixelData, Shape
from pipelines.errors import RefusedFileError
from pipelines.imaging.decode import Frame, frame
from pipelines.imaging.header import quiet
from pipelines.imaging.samples import of_stream
from pipelines.records import Reason

FEWEST_PIXELS = 1200  # along the longer side; a little less than `text_lines.WORKING_SIDE`, since 2,500 is a common size


def without_text(content: bytes, shape: Shape, *, declared: bool) -> PixelData | None:
    """Blank identifying text.

    Args:
        content: the de-identified file.
        shape: what its header says of the image.
        declared: the source's header says that there is such text; if none is found, somebody has to look.

    Returns:
        Uncompressed pixel data, which no codec can blur; None where there is nothing to blank, so
        that the image's bytes can stay what they are.

    Raises:
        RefusedFileError: text is left, or declared and not found; or the image cannot be decoded, so that nobody knows.
    """
    with quiet():
        checked = frame(dcmread(BytesIO(content)))
    glimpsed = None if declared else _glimpsed(checked)
    if glimpsed == ():
        return None
    cleaned = clean(checked.decode(), thorough=declared or bool(glimpsed))
    if cleaned.left:
        raise RefusedFileError(Reason.BURNED_IN, f"{cleaned.left} texts could not be blanked")
    if declared and not cleaned.blanked:
        raise RefusedFileError(Reason.BURNED_IN, "the header says so, and none was found")
    if not cleaned.blanked:
        return None
    return PixelData(_cells(cleaned.stored, shape), "OW" if shape.bits_allocated > 8 else "OB", ExplicitVRLittleEndian)


def _glimpsed(checked: Frame) -> tuple[Region, ...] | None:
    """Identifying text in the image at a lower resolution, where about as many pixels are left as text is looked for in anyway.

    None where its stream allows no such look.
    """
    side, count = max(checked.layout.rows, checked.layout.columns), 0
    while side // (2 << count) >= FEWEST_PIXELS:
        count += 1
    samples = of_stream(checked, count) if count else None
    if samples is None:
        return None
    return tuple(region for region in find(samples.codes) if region.kind is not Kind.MARKER)


def _cells(stored: Pixels, shape: Shape) -> bytes:
    """Stored values as little endian pixel cells (PS3.5 8.1.1)."""
    cells = stored.astype(f"<{stored.dtype.kind}{shape.bits_allocated // 8}")
    return (cells << (shape.high_bit + 1 - shape.bits_stored)).tobytes()
