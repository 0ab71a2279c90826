from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from made_dicom import CANARY, KEYED, SYNTAXES, file_bytes, frame, gradient, header, radiograph, with_pixels
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)

from pipelines.dicom.audit import Finding, Why, audit, audit_with_text
from pipelines.dicom.confidentiality import Option
from pipelines.dicom.deidentify import Accept, deidentify
from pipelines.dicom.profile import DEFAULT
from pipelines.errors import RefusedFileError

OPTIONS = (frozenset(), DEFAULT, DEFAULT | {Option.CLEAN_DESCRIPTORS})


def found(content: bytes) -> set[tuple[str, Why]]:
    return {(one.where, Why(one.why)) for one in audit(BytesIO(content))}


def treated(**attributes: Any) -> Dataset:
    """The header of a file that another tool de-identified well, by the Basic Profile alone."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113100", "DCM", "Basic Application Confidentiality Profile"
    values: dict[str, Any] = {
        "SOPInstanceUID": "2.25.1",
        "StudyInstanceUID": "2.25.2",
        "SeriesInstanceUID": "2.25.3",
        "StudyDate": "",
        "AccessionNumber": "",
        "InstitutionName": None,
        "PatientName": "Anonymous^0012",
        "PatientID": "ANON-0012",
        "PatientSex": "",
        "PatientAge": None,
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethodCodeSequence": Sequence([code]),
        **attributes,
    }
    return header(**values)


def declaring(*options: Option, **attributes: Any) -> Dataset:
    dataset = treated(**attributes)
    for option in options:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = option.code, "DCM", option.meaning[:64]
        dataset.DeidentificationMethodCodeSequence.append(code)
    return dataset


def whole(dataset: Dataset) -> bytes:
    return file_bytes(with_pixels(dataset, gradient()))


@pytest.mark.parametrize("options", OPTIONS, ids=len)
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_nothing_is_found_in_our_own_files(syntax: str, options: frozenset[Option]) -> None:
    content = radiograph(syntax=syntax, StudyDescription=f"Chest PA, {CANARY}", ManufacturerModelName="DX-D 600")
    done = deidentify(BytesIO(content), KEYED, Accept(("CR",), options=options))
    assert done is not None
    doubts = [one for one in audit(BytesIO(done.content)) if one.doubtful]
    assert [one for one in audit(BytesIO(done.content)) if not one.doubtful] == []
    assert doubts == ([Finding("StudyDescription", Why.CLEANED.value, True)] if Option.CLEAN_DESCRIPTORS in options else [])


def test_nothing_is_found_in_a_file_that_another_tool_treated_well() -> None:
    assert found(whole(treated())) == set()


def test_an_identified_file_is_found_out() -> None:
    assert found(radiograph()) >= {
        ("PatientIdentityRemoved", Why.NOT_DECLARED),
        ("DeidentificationMethod", Why.NO_METHOD),
        ("PatientName", Why.DUMMY),
        ("PatientID", Why.DUMMY),
        ("InstitutionName", Why.REMOVE),
        ("PatientAge", Why.REMOVE),
        ("StudyDate", Why.DATE),
    }


@pytest.mark.parametrize(
    ("attributes", "finding"),
    [
        ({"PatientName": "Mustermann^Erika"}, ("PatientName", Why.DUMMY)),
        ({"PatientName": "Anon^Erika"}, ("PatientName", Why.DUMMY)),
        ({"PatientID": "4711"}, ("PatientID", Why.DUMMY)),
        ({"PatientBirthDate": "19580314"}, ("PatientBirthDate", Why.DATE)),
        ({"StudyTime": "101112"}, ("StudyTime", Why.DATE)),
        ({"PatientAddress": "Here"}, ("PatientAddress", Why.REMOVE)),
        ({"StationName": "ROOM7"}, ("StationName", Why.REMOVE)),
        ({"StudyDescription": "Chest"}, ("StudyDescription", Why.REMOVE)),
        ({"StudyInstanceUID": "1.3.12.2.1107.5.4.1"}, ("StudyInstanceUID", Why.UID)),
        ({"Manufacturer": "Dr. Meier"}, ("Manufacturer", Why.TEXT)),
        ({"ManufacturerModelName": "Meier^Max"}, ("ManufacturerModelName", Why.TEXT)),
        ({"SoftwareVersions": "MRN: 17"}, ("SoftwareVersions", Why.TEXT)),
        ({"SoftwareVersions": "seen by Frau Meier"}, ("SoftwareVersions", Why.TEXT)),
        ({"SoftwareVersions": "12.03.1950"}, ("SoftwareVersions", Why.TEXT)),
        ({"BodyPartExamined": "MRN 12345678"}, ("BodyPartExamined", Why.TEXT)),
        ({"KVP": "1.2e+2"}, None),
        ({"Manufacturer": "vendor-123456", "ManufacturerModelName": "model-654321"}, None),
        ({"SoftwareVersions": "V10.2.14-3"}, None),
        ({"ManufacturerModelName": "DR System 20 ms"}, None),
        ({"PatientName": "ANON17^SUBJECT"}, None),
        ({"PatientID": "1b4e28ba-2fa1-11d2-883f-0016d3cca427"}, None),
        ({"FilterMaterial": "AL"}, None),
        ({"BurnedInAnnotation": "YES"}, ("BurnedInAnnotation", Why.BURNED_IN_FLAG)),
        ({"PatientIdentityRemoved": "NO"}, ("PatientIdentityRemoved", Why.NOT_DECLARED)),
        ({"DeidentificationMethodCodeSequence": None}, ("DeidentificationMethod", Why.NO_METHOD)),
        ({"PatientName": "p0123456789abcdef"}, None),
        ({"PatientName": "REMOVED"}, None),
        ({"PatientID": "9f86d081884c7d659a2feaa0c55ad015"}, None),
        ({"PatientBirthDate": "19000101"}, None),
        ({"PatientAddress": ""}, None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_attribute_is_judged_by_its_line_of_the_table(attributes: dict[str, Any], finding: tuple[str, Why] | None) -> None:
    assert found(whole(treated(**attributes))) == ({finding} if finding else set())


@pytest.mark.parametrize(
    ("option", "attributes"),
    [
        (Option.PATIENT, {"PatientAge": "061Y", "PatientSex": "F"}),
        (Option.MODIFIED_DATES, {"StudyDate": "20150102"}),
        (Option.FULL_DATES, {"StudyDate": "20150102", "StudyTime": "101112"}),
        (Option.DEVICE, {"DeviceSerialNumber": "A17", "StationName": "ROOM7"}),
        (Option.INSTITUTION, {"InstitutionName": "Somewhere General"}),
        (Option.UIDS, {"StudyInstanceUID": "1.3.12.2.1107.5.4.1"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_an_option_that_the_file_declares_lets_an_attribute_stay(option: Option, attributes: dict[str, Any]) -> None:
    assert found(whole(declaring(option, **attributes))) == set()
    assert {where for where, _ in found(whole(treated(**attributes)))} == set(attributes)


def test_a_description_that_was_to_be_cleaned_is_doubtful_and_wrong_where_it_names_somebody() -> None:
    option = Option.CLEAN_DESCRIPTORS
    assert found(whole(declaring(option, StudyDescription="CHEST PA"))) == {("StudyDescription", Why.CLEANED)}
    assert found(whole(declaring(option, StudyDescription="Chest, Dr. Meier"))) == {("StudyDescription", Why.TEXT)}
    assert Why.CLEANED.doubtful
    assert not Why.TEXT.doubtful


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_names_are_found_at_depth_and_in_private_and_unknown_attributes(syntax: str) -> None:
    inner, outer = Dataset(), Dataset()
    inner.PatientName = "Mustermann^Erika"
    outer.ReferencedSOPSequence = Sequence([inner])
    dataset = treated(AnatomicRegionSequence=Sequence([outer]))
    dataset.add_new(0x00090010, "LO", "SOMEBODY")
    dataset.add_new(0x00091001, "LO", "x")
    dataset.add_new(0x60000010, "US", 16)
    dataset.add_new(0x60003000, "OW", b"\1\0")
    dataset.add_new(0x00180007, "LO", "x")
    content = file_bytes(with_pixels(dataset, gradient()), syntax)
    assert found(content) == {
        ("PatientName", Why.DUMMY),
        ("(0009,0010)", Why.PRIVATE),
        ("(0009,1001)", Why.PRIVATE),
        ("OverlayData", Why.REMOVE),
        ("(0018,0007)", Why.UNKNOWN),
    }


def test_bytes_around_the_dataset_are_found() -> None:
    dataset = with_pixels(treated(), gradient())
    content = file_bytes(dataset, preamble=CANARY.encode().ljust(128, b"\0"))
    assert found(content) == {("preamble", Why.PREAMBLE)}
    assert found(file_bytes(dataset) + CANARY.encode()) == {("PixelData", Why.BEHIND)}
    assert found(file_bytes(dataset) + b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0\0\0\0\0") == set()
    assert found(file_bytes(dataset) + b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0ZEBR") == {("PixelData", Why.BEHIND)}


def test_the_file_meta_information_is_looked_into() -> None:
    content = whole(treated())
    end = 144 + struct.unpack("<I", content[140:144])[0]
    title = b"\x02\0\x16\0AE\x08\0WARD7PC1"
    assert found(content[:end] + title + content[end:]) == {("SourceApplicationEntityTitle", Why.TITLE)}
    assert found(content.replace(b"2.25.1", b"2.25.9", 1)) == {("MediaStorageSOPInstanceUID", Why.META_UID)}


def test_a_name_in_place_of_a_number_is_found() -> None:
    assert found(whole(treated(KVP="4711")).replace(b"4711", b"MEYR")) == {("KVP", Why.TEXT)}


def test_text_in_a_compressed_image_is_found() -> None:
    image = frame(gradient(), JPEGBaseline8Bit)
    planted = image[:2] + b"\xff\xfe" + struct.pack(">H", len(CANARY) + 2) + CANARY.encode() + image[2:]
    dataset = with_pixels(treated(), gradient(), JPEGBaseline8Bit)
    dataset.PixelData = encapsulate([planted])
    dataset["PixelData"].is_undefined_length = True
    assert found(file_bytes(dataset, JPEGBaseline8Bit)) == {("PixelData", Why.COMMENT)}
    dataset.PixelData = encapsulate([image + CANARY.encode()])
    dataset["PixelData"].is_undefined_length = True
    assert found(file_bytes(dataset, JPEGBaseline8Bit)) == {("PixelData", Why.BEHIND)}


def test_an_overlay_in_unused_bits_and_bytes_behind_the_last_pixel_are_found() -> None:
    stored = gradient(bits=12)
    assert found(file_bytes(with_pixels(treated(), stored, bits=12))) == set()
    assert found(file_bytes(with_pixels(treated(), stored | np.uint16(0x8000), bits=12))) == {("PixelData", Why.UNUSED_BITS)}
    dataset = with_pixels(treated(), stored, bits=12)
    dataset.PixelData += CANARY.encode() + b" "
    assert found(file_bytes(dataset)) == {("PixelData", Why.BEHIND)}


def test_an_overlay_in_unused_bits_of_a_compressed_image_is_found() -> None:
    overlaid = gradient(bits=12) | np.uint16(0x8000)
    dataset = with_pixels(treated(), overlaid, JPEGLSLossless, bits=12)
    assert found(file_bytes(dataset, JPEGLSLossless)) == {("PixelData", Why.UNUSED_BITS)}


def test_what_cannot_be_read_is_a_finding_and_what_is_no_dicom_is_refused() -> None:
    assert found(whole(treated())[:400]) == {("file", Why.CANNOT_READ)}
    assert found(whole(treated())[:-9]) == {("PixelData", Why.CANNOT_READ)}
    with pytest.raises(RefusedFileError, match="not_dicom"):
        audit(BytesIO(b"name,birthday\n" * 100))


def test_a_colour_image_is_said_not_to_have_been_looked_into() -> None:
    dataset = with_pixels(treated(PhotometricInterpretation="RGB", SamplesPerPixel=3), gradient())
    assert found(file_bytes(dataset)) == {("PixelData", Why.UNDECODED)}


def test_text_in_the_image_is_found() -> None:
    import cv2

    image = np.full((400, 500), 30, np.uint8)
    assert audit_with_text(BytesIO(file_bytes(with_pixels(treated(), image)))) == ()
    cv2.putText(image, "MUSTERMANN ERIKA 12.03.1950", (20, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 255, 2)
    findings = audit_with_text(BytesIO(file_bytes(with_pixels(treated(), image))))
    assert findings == (Finding("PixelData", Why.BURNED_IN_TEXT.value),)


def test_no_finding_repeats_a_value() -> None:
    dataset = header(PatientName=f"{CANARY}^A", PatientComments=CANARY, Manufacturer=f"Dr. {CANARY}")
    assert CANARY not in repr(audit(BytesIO(whole(dataset))))
