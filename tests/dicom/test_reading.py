from __future__ import annotations

import re
import struct
import zlib
from io import BytesIO

import pytest
from made_dicom import CANARY, COLUMNS, ROOT, ROWS, file_bytes, gradient, header, radiograph, with_pixels
from pydicom import Dataset, dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from pipelines.dicom.reading import open_source
from pipelines.dicom.walking import DEEPEST, LARGEST_VALUE, MOST_ELEMENTS
from pipelines.errors import RefusedFileError
from pipelines.records import Reason

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def refusal(content: bytes) -> RefusedFileError:
    with pytest.raises(RefusedFileError) as caught:
        open_source(BytesIO(content))
    return caught.value


def without_preamble(syntax: str, **attributes: object) -> bytes:
    buffer = BytesIO()
    dataset = with_pixels(header(**attributes), gradient())
    dcmwrite(buffer, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", NATIVE)
def test_a_header_is_read_in_every_encoding(syntax: str) -> None:
    source = open_source(BytesIO(radiograph(syntax=syntax)))
    assert source.transfer_syntax == syntax
    assert source.header.text("PatientID") == "MRN1"
    assert (source.header.integer("Rows"), source.header.integer("Columns")) == (ROWS, COLUMNS)
    assert source.header.numbers("PixelSpacing") == [0.2, 0.2]
    assert source.has_pixels


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_file_without_preamble_is_read_if_it_says_what_it_is(syntax: str) -> None:
    source = open_source(BytesIO(without_preamble(syntax)))
    assert source.header.text("SOPInstanceUID") == f"{ROOT}.1.1"
    assert source.has_pixels


def test_a_file_without_preamble_nor_storage_class_is_not_dicom() -> None:
    assert refusal(without_preamble(ExplicitVRLittleEndian, SOPClassUID=None)).reason is Reason.NOT_DICOM


def test_implicit_vr_is_noticed_where_the_transfer_syntax_says_explicit() -> None:
    content = radiograph(syntax=ImplicitVRLittleEndian)
    lying = content.replace(b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2.1\0").replace(b"UI\x12\0", b"UI\x14\0", 1)
    assert lying != content
    start = lying.index(b"\x10\0UI") + 4
    lying = lying[:start] + struct.pack("<H", 20) + lying[start + 2 :]
    assert open_source(BytesIO(lying)).header.text("PatientID") == "MRN1"


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"hello", b"%PDF-1.7 " + bytes(500), b"file,label\nx,1\n", bytes(4096), b"\xff" * 300]
)
def test_what_is_not_dicom_is_told(content: bytes) -> None:
    assert refusal(content).reason is Reason.NOT_DICOM


def test_a_file_that_ends_within_its_header_is_truncated() -> None:
    content = radiograph(PatientComments="x" * 400)
    end = content.index(b"\xe0\x7f\x10\0")
    between = re.compile(rb"[\x02-\x28]\0..(AE|AS|CS|DA|DS|IS|LO|LT|PN|SH|UI|US)", re.DOTALL)
    for cut in range(133, end, 7):
        # A cut between two attributes cannot be told from a file without pixels.
        if not between.match(content, cut):
            assert refusal(content[:cut]).reason is Reason.TRUNCATED


def test_garbage_behind_the_preamble_is_refused() -> None:
    for garbage in (b"\xff" * 400, b"text " * 100, bytes(range(256)) * 2):
        assert refusal(bytes(128) + b"DICM" + garbage).reason in (Reason.UNREADABLE, Reason.TRUNCATED)


def test_sequences_of_undefined_length_and_private_ones_are_stepped_over() -> None:
    dataset = header()
    inner = Dataset()
    inner.PatientName = CANARY
    inner.add_new(0x00411001, "SQ", Sequence([header(2)]))
    dataset.RequestAttributesSequence = Sequence([inner])
    dataset["RequestAttributesSequence"].is_undefined_length = True
    inner.is_undefined_length_sequence_item = True
    dataset.add_new(0x00410010, "LO", CANARY)
    dataset.add_new(0x00411002, "UN", CANARY.encode() + b" ")
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        source = open_source(BytesIO(file_bytes(with_pixels(dataset, gradient()), syntax)))
        assert source.header.text("PatientID") == "MRN1"
        assert source.has_pixels
        assert not any(CANARY.encode() in element.value for element in source.header.elements.values())


def nested(depth: int) -> bytes:
    """Sequences of undefined length within each other, never closed."""
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    sequence = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff"
    return bytes(128) + b"DICM" + b"\x08\0\x05\0CS\0\0" + (sequence + item) * depth


def test_bottomless_nesting_is_refused() -> None:
    assert refusal(nested(DEEPEST + 5000)).reason is Reason.UNREADABLE


def test_a_length_beyond_the_file_reads_nothing() -> None:
    content = bytes(128) + b"DICM" + b"\x08\0\x05\0CS\0\0" + b"\x10\0\x20\0UT\0\0" + struct.pack("<I", 0xFFFFFFF0)
    assert refusal(content).reason is Reason.TRUNCATED


class Counted(BytesIO):
    """A stream that counts what is read of it."""

    total = 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.total += len(content)
        return content


@pytest.mark.parametrize("syntax", [*NATIVE[:3], RLELossless])
def test_a_header_scan_reads_no_pixels(syntax: str) -> None:
    content = file_bytes(with_pixels(header(), gradient(600, 600, bits=16), syntax, 16), syntax)
    stream = Counted(content)
    source = open_source(stream)
    assert source.has_pixels
    assert content.index(b"\xe0\x7f\x10\0" if syntax != ExplicitVRBigEndian else b"\x7f\xe0\0\x10") == stream.tell()
    assert stream.total <= 8192 < len(content) // 50


def test_a_large_private_element_is_not_read() -> None:
    dataset = header()
    dataset.add_new(0x00090010, "LO", "SOMEBODY")
    dataset.add_new(0x00091001, "OB", bytes(1 << 20))
    stream = Counted(file_bytes(with_pixels(dataset, gradient())))
    assert open_source(stream).header.text("PatientID") == "MRN1"
    assert stream.total <= 3 * 8192


def test_a_listed_value_larger_than_any_is_not_read() -> None:
    huge = header(PatientID=None)
    huge.add_new("PatientID", "UT", "9" * (LARGEST_VALUE + 2))
    stream = Counted(file_bytes(with_pixels(huge, gradient())))
    assert open_source(stream).header.text("PatientID") == ""
    assert stream.total <= 3 * 8192


def endless(tag: bytes, count: int) -> bytes:
    """A sequence of so many empty items."""
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * count
    return bytes(128) + b"DICM" + b"\x08\0\x05\0CS\0\0" + tag + b"SQ\0\0" + struct.pack("<I", len(items)) + items


def test_a_header_of_items_without_end_is_refused() -> None:
    lut = b"\x28\0\x00\x30"
    assert len(open_source(BytesIO(endless(lut, 1000))).header.items("ModalityLUTSequence")) == 1000
    assert refusal(endless(lut, MOST_ELEMENTS)).reason is Reason.UNREADABLE


def test_deflated_data_that_end_early_are_truncated() -> None:
    assert refusal(radiograph(syntax=DeflatedExplicitVRLittleEndian)[:-40]).reason is Reason.TRUNCATED


def test_deflated_data_that_grow_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.dicom.reading.LARGEST_INFLATED", 1 << 16)
    whole = radiograph(syntax=DeflatedExplicitVRLittleEndian)
    start = whole.index(b"1.2.840.10008.1.2.1.99")
    start = 132 + 12 + struct.unpack("<I", whole[140:144])[0]
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    assert refusal(whole[:start] + engine.compress(bytes(1 << 20)) + engine.flush()).reason is Reason.SIZE


def test_a_dicomdir_is_told_by_its_class() -> None:
    directory = Dataset()
    directory.FileSetID = "DISC"
    directory.DirectoryRecordSequence = Sequence([])
    content = bytearray(file_bytes(directory)).replace(b"1.2.840.10008.5.1.4.1.1.1\0", b"1.2.840.10008.1.3.10\0\0\0\0\0\0")
    assert open_source(BytesIO(bytes(content))).is_directory


def test_values_that_are_no_numbers_are_none() -> None:
    dataset = header(SliceThickness=None)
    for keyword, value in (("KVP", f"12 {CANARY}"), ("Exposure", "1e5x"), ("DistanceSourceToDetector", "nan")):
        dataset.add_new(keyword, "LO", value)
    source = open_source(BytesIO(file_bytes(with_pixels(dataset, gradient()))))
    for keyword in ("KVP", "Exposure", "DistanceSourceToDetector", "WindowCenter", "PatientName"):
        assert source.header.numbers(keyword) == []
