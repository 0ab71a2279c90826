from __future__ import annotations

import logging
import struct
import warnings
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from made_dicom import CANARY, KEYED, ROOT, SYNTAXES, file_bytes, frame, gradient, header, radiograph, with_pixels
from pydicom import Dataset, dcmread
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from pipelines.dicom.deidentify import Accept, Clean, deidentify, image_sha256, key_fingerprint, manifest_row
from pipelines.dicom.profile import PROFILE
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.reading import open_source
from pipelines.errors import RefusedFileError
from pipelines.records import MANIFEST, Reason

ACCEPT = Accept(("CR", "DX", "RG"))
TEXT_VRS = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")


def clean(content: bytes, accept: Accept = ACCEPT, pseudonyms: Pseudonyms = KEYED) -> Clean:
    done = deidentify(BytesIO(content), pseudonyms, accept)
    assert done is not None
    return done


def reread(**attributes: Any) -> Dataset:
    """What is left of a file with these attributes, as pydicom reads it."""
    return dcmread(BytesIO(clean(radiograph(**attributes)).content))


def text_everywhere() -> Dataset:
    """Every attribute of the standard that holds text says the canary, but for the few that decide about refusal."""
    dataset = header()
    decisive = {"SOPInstanceUID", "Modality", "PhotometricInterpretation", "NumberOfFrames", "BurnedInAnnotation"}
    item = Dataset()
    for target, keep in ((item, set()), (dataset, decisive)):
        for tag, (vr, _vm, _name, _retired, keyword) in DicomDictionary.items():
            if vr in TEXT_VRS and tag >> 16 not in (0, 2, 4) and keyword and keyword not in keep:
                target.add(_unchecked(tag, vr, CANARY))
    for keyword in ("VOILUTSequence", "IconImageSequence"):
        dataset.add(DataElement(keyword, "SQ", Sequence([item])))
    del dataset.SpecificCharacterSet
    return dataset


def _unchecked(tag: int, vr: str, text: str) -> DataElement:
    """An element whose value its VR does not allow: text is stored under VRs that take any."""
    return DataElement(tag, vr if vr in ("LO", "LT", "PN", "SH", "ST", "UC", "UT") else "LO", text)


@pytest.fixture(scope="module")
def planted() -> dict[str, bytes]:
    """A file for each syntax with the canary in every text attribute, private tags, preamble, overlays and behind the pixels."""
    made = {}
    for syntax in SYNTAXES:
        dataset = with_pixels(text_everywhere(), gradient(), syntax)
        dataset.add_new(0x00090010, "LO", CANARY)
        dataset.add_new(0x00091001, "UN", CANARY.encode() + b" ")
        dataset.add_new(0x60000010, "US", 16)
        dataset.add_new(0x60003000, "OW", CANARY.encode() + b" ")
        dataset.add_new(0x50003000, "OW", CANARY.encode() + b" ")
        dataset.add_new(0xFFFCFFFC, "OB", CANARY.encode() + b" ")
        content = file_bytes(dataset, syntax, preamble=CANARY.encode().ljust(128, b"!"))
        made[syntax] = content + CANARY.encode()
    return made


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_no_planted_text_survives(
    syntax: str, planted: dict[str, bytes], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    if syntax != DeflatedExplicitVRLittleEndian:
        assert planted[syntax].count(CANARY.encode()) > 3000
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        done = clean(planted[syntax])
    assert CANARY.encode() not in done.content
    assert CANARY not in str(done.row)
    assert not warned
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


def test_text_in_the_file_meta_information_goes() -> None:
    content = radiograph()
    title = b"\x02\0\x16\0AE\x0c\0" + CANARY.encode() + b" "
    private = b"\x02\0\x02\x01OB\0\0\x0c\0\0\0" + CANARY.encode() + b" "
    end = 144 + struct.unpack("<I", content[140:144])[0]
    planted = content[:end] + title + private + content[end:]
    assert CANARY.encode() not in clean(planted).content


def test_only_listed_attributes_survive() -> None:
    dataset = reread(PatientAddress="Here", StationName="ROOM7", StudyTime="120000", ImageComments="x", StudyID="5")
    assert {element.keyword for element in dataset} <= {rule.keyword for rule in PROFILE}


def test_the_file_says_that_it_is_deidentified() -> None:
    dataset = reread()
    assert dataset.PatientIdentityRemoved == "YES"
    assert dataset.LongitudinalTemporalInformationModified == "MODIFIED"
    assert dataset.DeidentificationMethod == f"radtransfer allow-list 2, key {KEYED.fingerprint}"
    assert dataset.preamble == bytes(128)
    assert "SourceApplicationEntityTitle" not in dataset.file_meta
    assert dataset.file_meta.ImplementationClassUID.startswith("2.25.")


def test_the_key_of_a_data_set_of_the_first_version_is_recognised() -> None:
    written = radiograph(DeidentificationMethod="radtransfer allow-list 1, key 0123abcd")
    assert key_fingerprint(open_source(BytesIO(written))) == "0123abcd"
    assert key_fingerprint(open_source(BytesIO(radiograph(DeidentificationMethod="another tool, key 0123abcd")))) == ""


def test_who_and_where_become_pseudonyms() -> None:
    dataset = reread(ManufacturerModelName="Room of Dr Smith")
    assert dataset.PatientID == dataset.PatientName == KEYED.patient("MRN1")
    assert dataset.AccessionNumber == KEYED.accession("ACC1")
    assert dataset.InstitutionName == KEYED.site("Somewhere General")
    assert dataset.ManufacturerModelName == KEYED.model("Room of Dr Smith")
    assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID == KEYED.uid(f"{ROOT}.1.1")
    assert dataset.StudyInstanceUID == KEYED.uid(f"{ROOT}.2.1")
    assert dataset.SeriesInstanceUID == KEYED.uid(f"{ROOT}.3.1")


def test_an_unknown_vendor_becomes_a_pseudonym() -> None:
    assert reread(Manufacturer="SIEMENS").Manufacturer == "Siemens"
    assert reread(Manufacturer="Smith and Daughters").Manufacturer == KEYED.vendor("Smith and Daughters")
    assert "Manufacturer" not in reread(Manufacturer="")


@pytest.mark.parametrize(
    ("keyword", "written", "kept"),
    [
        ("BodyPartExamined", "chest", "CHEST"),
        ("BodyPartExamined", "Cervical Spine", "CSPINE"),
        ("BodyPartExamined", "SMITH", None),
        ("ViewPosition", "LAT", "LATERAL"),
        ("ViewPosition", "P. Smith", None),
        ("PatientSex", "f", "F"),
        ("PatientSex", "X", ""),
        ("ImageLaterality", "L", "L"),
        ("Laterality", "Lefty Smith", None),
        ("PresentationLUTShape", "INVERSE", "INVERSE"),
        ("VOILUTFunction", "SIGMOID", "SIGMOID"),
        ("PixelIntensityRelationship", "LOG", "LOG"),
        ("PatientOrientation", ["L", "F"], ["L", "F"]),
        ("PatientOrientation", ["L", "SMITH"], None),
        ("ImageType", ["ORIGINAL", "PRIMARY", "SMITH"], ["ORIGINAL", "PRIMARY"]),
        ("KVP", "120.50", 120.5),
        ("KVP", "20250101", None),
        ("WindowCenter", ["2047.5", "100"], [2047.5, 100]),
        ("WindowCenter", ["1000000", "100"], None),
        ("RescaleSlope", "1.19580314", 1.1958),
        ("KVP", "0.00019580314", 0.000195803),
        ("ExposureTimeInuS", 1234.5678, 1234.57),
        ("EntranceDoseInmGy", "4711e300", None),
        ("InstanceNumber", "0007", 7),
        ("Exposure", "4", 4),
        ("PixelPaddingValue", 4095, 4095),
    ],
)
def test_a_value_is_a_number_or_a_word_of_the_vocabulary(keyword: str, written: object, kept: object) -> None:
    beside: dict[str, dict[str, object]] = {
        "WindowCenter": {"WindowWidth": ["4095", "200"]},
        "RescaleSlope": {"RescaleIntercept": "0"},
    }
    attributes = {keyword: written, **beside.get(keyword, {})}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert reread(**attributes).get(keyword) == kept


def test_a_window_without_its_width_is_no_window() -> None:
    dataset = with_pixels(header(WindowCenter="2048"), gradient())
    dataset.add(DataElement("WindowWidth", "LO", f"4096 {CANARY}"))
    kept = dcmread(BytesIO(clean(file_bytes(dataset)).content))
    assert "WindowCenter" not in kept
    assert "WindowWidth" not in kept


def test_an_unknown_storage_class_becomes_secondary_capture() -> None:
    assert reread().SOPClassUID == "1.2.840.10008.5.1.4.1.1.1"
    assert reread(SOPClassUID="1.2.840.113619.4.30").SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"


def test_an_ill_formed_storage_class_warns_of_nothing() -> None:
    content = radiograph().replace(b"1.2.840.10008.5.1.4.1.1.1\0", b"1.2.840.10008.5.1.4.1.1.X\0")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert clean(content).row["modality"] == "CR"
    assert not warned


def coded(value: str) -> Sequence:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "SRT"
    item.CodeMeaning = CANARY
    return Sequence([item])


def test_view_and_body_part_are_filled_from_their_codes() -> None:
    sequences = {"ViewCodeSequence": coded("R-10214"), "AnatomicRegionSequence": coded("T-D3000")}
    filled = reread(ViewPosition=None, BodyPartExamined="", **sequences)
    assert (filled.ViewPosition, filled.BodyPartExamined) == ("PA", "CHEST")
    assert "ViewCodeSequence" not in filled
    assert reread(ViewPosition="AP", **sequences).ViewPosition == "AP"
    assert "ViewPosition" not in reread(ViewPosition=None, ViewCodeSequence=coded("SMITH"))


def test_dates_of_a_patient_move_together() -> None:
    first = reread(number=1, PatientID="P", StudyDate="20190301", AcquisitionDate="20190302")
    second = reread(number=2, PatientID="P", StudyDate="2020.03.01")
    other = reread(number=3, PatientID="Q", StudyDate="20190301")
    moved = [
        np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}") for day in (first.StudyDate, first.AcquisitionDate, second.StudyDate)
    ]
    assert (moved[1] - moved[0]).astype(int) == 1
    assert (moved[2] - moved[0]).astype(int) == 366
    assert first.StudyDate not in ("20190301", other.StudyDate)


@pytest.mark.parametrize("placeholder", ["00010101", "18991230", "19000101", "19700101", "19800101", "20000101", "99991231"])
def test_a_placeholder_does_not_give_away_by_how_much_the_dates_were_moved(placeholder: str) -> None:
    assert "AcquisitionDate" not in reread(AcquisitionDate=placeholder)


@pytest.mark.parametrize("written", ["20191341", "SMITH", "2019", "00000000", "19000101-20200101"])
def test_what_is_no_date_goes(written: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert reread(StudyDate=written).StudyDate == ""


@pytest.mark.parametrize(
    ("attributes", "age", "years"),
    [
        ({"PatientAge": "061Y"}, "061Y", 61),
        ({"PatientAge": "61"}, "061Y", 61),
        ({"PatientAge": "090Y"}, "089Y", 89),
        ({"PatientAge": "999M"}, "999M", 83.25),
        ({"PatientAge": "006M"}, "006M", 0.5),
        ({"PatientAge": "SMITH"}, None, None),
        ({"PatientAge": None, "PatientBirthDate": "19580315"}, "060Y", 60),
        ({"PatientAge": None, "PatientBirthDate": "19580314"}, "061Y", 61),
        ({"PatientAge": None, "PatientBirthDate": "20180914"}, "006M", 0.5),
        ({"PatientAge": None, "PatientBirthDate": "19200101"}, "089Y", 89),
        ({"PatientAge": None, "PatientBirthDate": "20200101"}, None, None),
        ({"PatientAge": None}, None, None),
    ],
)
def test_age_is_kept_up_to_89_and_the_birth_date_goes(attributes: dict[str, Any], age: str | None, years: float | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = clean(radiograph(**attributes))
    dataset = dcmread(BytesIO(done.content))
    assert dataset.get("PatientAge") == age
    assert dataset.PatientBirthDate == ""
    np.testing.assert_equal(done.row["age_years"], np.nan if years is None else years)


def table(values: list[int], bits: int, first: int = 0, **more: str) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(values), first, bits])
    item.add_new("LUTData", "OW", np.array(values, "<u2").tobytes())
    item.LUTExplanation = CANARY
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return item


RISING, FALLING = list(range(0, 4096, 256)), list(range(60, 20, -2))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_lookup_tables_are_rebuilt_from_their_numbers(syntax: str) -> None:
    dataset = header(VOILUTSequence=Sequence([table(RISING, 12), table(FALLING, 16)]))
    dataset.ModalityLUTSequence = Sequence([table(FALLING, 12, ModalityLUTType="OD")])
    done = clean(file_bytes(with_pixels(dataset, gradient()), syntax))
    kept = dcmread(BytesIO(done.content))
    assert [list(np.frombuffer(item.LUTData, "<u2")) for item in kept.VOILUTSequence] == [RISING, FALLING]
    assert list(kept.VOILUTSequence[0].LUTDescriptor) == [16, 0, 12]
    assert kept.ModalityLUTSequence[0].ModalityLUTType == "OD"
    assert {element.keyword for item in kept.VOILUTSequence for element in item} == {"LUTDescriptor", "LUTData"}
    assert CANARY.encode() not in done.content


def test_a_lookup_table_holds_nothing_behind_its_entries() -> None:
    item = table(RISING, 12)
    item.LUTData += CANARY.encode() + b" "
    done = clean(radiograph(VOILUTSequence=Sequence([item])))
    assert list(np.frombuffer(dcmread(BytesIO(done.content)).VOILUTSequence[0].LUTData, "<u2")) == RISING
    assert CANARY.encode() not in done.content


def test_a_lookup_table_with_more_bits_than_it_declares_keeps_them() -> None:  # `imaging.grayscale` gives it the bits
    item = table([16 * value for value in RISING], 12)
    assert reread(VOILUTSequence=Sequence([item])).VOILUTSequence[0].LUTData == item.LUTData


@pytest.mark.parametrize(
    "values",
    [[*RISING[:8], RISING[7] - 2, *RISING[8:]], [*RISING, 0, 0, 0], [*FALLING, 0, 0]],
    ids=["noise", "unused end", "falling"],
)
def test_a_lookup_table_may_be_noisy_and_end_in_zeros(values: list[int]) -> None:
    kept = reread(VOILUTSequence=Sequence([table(values, 12)])).VOILUTSequence[0]
    assert list(np.frombuffer(kept.LUTData, "<u2")) == values


@pytest.mark.parametrize(
    "values",
    [
        list(np.frombuffer(b"Mustermann^Erika 12.03.1950 Feldweg ", "<u2")),
        [*RISING, *np.frombuffer(b"ERIK", "<u2")],
        list(np.frombuffer(b"ERIKA!", "<u2")),
    ],
    ids=["text", "text behind", "too short to tell"],
)
def test_a_lookup_table_that_could_be_text_goes(values: list[int]) -> None:
    assert "VOILUTSequence" not in reread(VOILUTSequence=Sequence([table(values, 16)]))
    with pytest.raises(RefusedFileError, match="a modality LUT that cannot be written anew"):
        clean(radiograph(ModalityLUTSequence=Sequence([table(values, 16)])))


def test_a_lookup_table_that_does_not_fit_its_descriptor_goes() -> None:
    item = table(RISING, 12)
    item.LUTDescriptor = [300, 0, 12]
    assert "VOILUTSequence" not in reread(VOILUTSequence=Sequence([item]))


def test_a_negative_first_entry_keeps_its_sign() -> None:
    dataset = with_pixels(header(PixelRepresentation=1), gradient(bits=16).view(np.int16))
    dataset.ModalityLUTSequence = Sequence([table(RISING, 12, first=-5)])
    kept = dcmread(BytesIO(clean(file_bytes(dataset)).content))
    assert list(kept.ModalityLUTSequence[0].LUTDescriptor) == [16, -5, 12]


def test_an_empty_patient_id_takes_the_study(caplog: pytest.LogCaptureFixture) -> None:
    done = clean(radiograph(PatientID="  "))
    assert done.without_patient
    assert done.row["patient"] == KEYED.patient_of_study(f"{ROOT}.2.1")
    assert not clean(radiograph()).without_patient


def test_missing_study_and_series_are_those_of_the_image() -> None:
    row = clean(radiograph(StudyInstanceUID=None, SeriesInstanceUID=None)).row
    assert row["study"] == row["series"] == row["image"]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_same_file_and_key_give_the_same_bytes(syntax: str) -> None:
    content = radiograph(syntax=syntax)
    assert clean(content).content == clean(content).content
    assert clean(content).content != clean(content, pseudonyms=Pseudonyms(b"another key, long enough")).content


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_comes_out_can_be_read_and_shows_the_same_image(syntax: str) -> None:
    source = dcmread(BytesIO(radiograph(syntax=syntax)))
    done = clean(radiograph(syntax=syntax))
    np.testing.assert_array_equal(dcmread(BytesIO(done.content)).pixel_array, source.pixel_array)
    assert image_sha256(BytesIO(done.content)) == done.image_sha256


def test_a_clean_file_gives_its_row_and_key_again() -> None:
    done = clean(radiograph())
    source = open_source(BytesIO(done.content))
    assert manifest_row(source) == done.row
    assert list(done.row) == list(MANIFEST)
    assert key_fingerprint(source) == KEYED.fingerprint
    assert key_fingerprint(open_source(BytesIO(radiograph()))) == ""


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"SOPInstanceUID": None}, Reason.MISSING_UID),
        ({"SOPInstanceUID": ""}, Reason.MISSING_UID),
        ({"Modality": "CT"}, Reason.MODALITY),
        ({"Modality": None}, Reason.MODALITY),
        ({"BurnedInAnnotation": "YES"}, Reason.BURNED_IN),
        ({"BurnedInAnnotation": "yes"}, Reason.BURNED_IN),
        ({"BurnedInAnnotation": "Y"}, Reason.BURNED_IN),
        ({"BurnedInAnnotation": ["NO", "YES"]}, Reason.BURNED_IN),
    ],
)
def test_a_file_that_must_not_come_in_is_refused(attributes: dict[str, Any], reason: Reason) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = radiograph(**attributes)
    with pytest.raises(RefusedFileError, match=reason.value) as caught:
        clean(content)
    assert caught.value.reason is reason


def test_burned_in_text_is_taken_where_the_configuration_says_so() -> None:
    done = clean(radiograph(BurnedInAnnotation="YES"), Accept(("CR",), "keep"))
    assert dcmread(BytesIO(done.content)).BurnedInAnnotation == "YES"


def test_comments_of_the_codestream_go() -> None:
    image = frame(gradient(), JPEGBaseline8Bit)
    planted = image[:2] + b"\xff\xfe" + struct.pack(">H", len(CANARY) + 2) + CANARY.encode() + image[2:]
    dataset = with_pixels(header(), gradient(), JPEGBaseline8Bit)
    dataset.PixelData = encapsulate([planted])
    dataset["PixelData"].is_undefined_length = True
    content = file_bytes(dataset, JPEGBaseline8Bit)
    assert CANARY.encode() in content
    assert CANARY.encode() not in clean(content).content


def test_an_image_that_loses_its_compression_with_an_overlay_still_tells_of_the_loss() -> None:
    dataset = with_pixels(header(), gradient(bits=12) | np.uint16(0x8000), JPEGLSLossless, bits=12)
    done = clean(file_bytes(dataset, JPEGLSNearLossless))
    assert done.row["transfer_syntax"] == ExplicitVRLittleEndian
    assert dcmread(BytesIO(done.content)).LossyImageCompression == "01"


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "BitsStored"])
def test_an_image_described_by_several_values_is_refused(keyword: str) -> None:
    dataset = with_pixels(header(), gradient())
    dataset[keyword].value = [dataset[keyword].value] * 2
    with pytest.raises(RefusedFileError, match=r"unreadable_header|absurd_size|inconsistent_bit_depth"):
        clean(file_bytes(dataset))
