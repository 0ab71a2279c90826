"""What is no image is refused as such, and a header that nobody can read to its end is not guessed at."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from made_dicom import KEYED, file_bytes, gradient, header, radiograph, with_pixels
from pydicom import Dataset
from pydicom.sequence import Sequence

from pipelines.dicom.deidentify import Accept, deidentify
from pipelines.errors import RefusedFileError
from pipelines.records import Reason

CLASSES = "1.2.840.10008.5.1.4.1.1."
ACCEPT = Accept(("CR", "DX", "RG"))


def reason(content: bytes) -> Reason:
    with pytest.raises(RefusedFileError) as caught:
        deidentify(BytesIO(content), KEYED, ACCEPT)
    return caught.value.reason


@pytest.mark.parametrize(
    ("attributes", "what"),
    [
        ({"SOPClassUID": f"{CLASSES}88.11", "Modality": "SR"}, "a report"),
        ({"SOPClassUID": f"{CLASSES}88.59", "Modality": "KO"}, "key objects"),
        ({"SOPClassUID": f"{CLASSES}104.1", "Modality": "DOC"}, "an encapsulated PDF"),
        ({"SOPClassUID": f"{CLASSES}104.2", "Modality": "CR"}, "an encapsulated CDA that claims a modality"),
        ({"SOPClassUID": f"{CLASSES}11.1", "Modality": "PR"}, "a presentation state"),
        ({"SOPClassUID": f"{CLASSES}9.1.1", "Modality": "ECG"}, "a waveform"),
        ({"SOPClassUID": f"{CLASSES}66.4", "Modality": "SEG"}, "a segmentation"),
        ({"SOPClassUID": f"{CLASSES}481.5", "Modality": "RTPLAN"}, "a plan"),
        ({"SOPClassUID": "1.2.3", "Modality": "SR"}, "a report of an unknown class"),
        ({"EncapsulatedDocument": b"%PDF-1.7"}, "a document in the dress of a radiograph"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_documents_and_reports_are_refused_as_what_they_are(attributes: dict[str, Any], what: str) -> None:
    assert reason(file_bytes(header(**attributes))) is Reason.NOT_IMAGE


def test_a_document_that_brings_pixels_is_refused_all_the_same() -> None:
    report = header(SOPClassUID=f"{CLASSES}88.11", Modality="CR")
    assert reason(file_bytes(with_pixels(report, gradient()))) is Reason.NOT_IMAGE
    document = header(EncapsulatedDocument=b"%PDF-1.7")
    assert reason(file_bytes(with_pixels(document, gradient()))) is Reason.NOT_IMAGE


def test_content_without_pixels_is_a_report_whatever_it_claims_to_be() -> None:
    item = Dataset()
    item.TextValue = "Mrs Mustermann has a cough"
    assert reason(file_bytes(header(ContentSequence=Sequence([item])))) is Reason.NOT_IMAGE


def test_a_radiograph_that_lost_its_pixels_is_told_from_a_document() -> None:
    assert reason(file_bytes(header())) is Reason.NO_PIXELS


def test_an_image_of_another_modality_is_told_from_a_document() -> None:
    assert reason(radiograph(SOPClassUID=f"{CLASSES}481.1", Modality="RTIMAGE")) is Reason.MODALITY


@pytest.mark.parametrize("vr", [b"ZZ", b"QX", b"PX"])
def test_a_vr_that_the_standard_does_not_know_is_refused(vr: bytes) -> None:
    content = radiograph(PatientComments="x" * 8)
    planted = content.replace(b"\x10\x00\x00\x40LT", b"\x10\x00\x00\x40" + vr)
    assert planted != content
    assert reason(planted) is Reason.UNKNOWN_VR
