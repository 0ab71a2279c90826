from __future__ import annotations

from io import BytesIO

import pytest
from made_dicom import CANARY, KEYED, file_bytes, gradient, header, radiograph, with_pixels
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipelines.dicom.confidentiality import Option
from pipelines.dicom.deidentify import Accept, deidentify
from pipelines.dicom.descriptors import LONGEST, WORDS, cleaned
from pipelines.dicom.profile import DEFAULT

ON = Accept(("CR",), options=DEFAULT | {Option.CLEAN_DESCRIPTORS})


def kept(accept: Accept = ON, **attributes: object) -> Dataset:
    done = deidentify(BytesIO(radiograph(**attributes)), KEYED, accept)
    assert done is not None
    assert CANARY.encode() not in done.content
    return dcmread(BytesIO(done.content))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Chest PA and lateral, 2 views", "CHEST PA LATERAL 2 VIEWS"),
        ("thorax p.a./lat.", "THORAX LAT"),
        ("Schädel 2 Ebenen", "SCHAEDEL 2 EBENEN"),
        ("Côtes, face", "COTES FACE"),
        ("Tórax PA", "TORAX PA"),
        ("Knee of Mrs Mustermann, born 12.3.1950", "KNEE 3"),
        ("ZEBRACANARY", ""),
        ("MRN 4711 1234567", ""),
        ("", ""),
    ],
)
def test_words_of_the_vocabulary_stay_and_others_go(text: str, left: str) -> None:
    assert cleaned(text, frozenset()) == left


def test_a_long_description_ends_with_a_whole_word() -> None:
    left = cleaned("Chest lateral " * 20, frozenset())
    assert len(left) <= LONGEST
    assert set(left.split()) == {"CHEST", "LATERAL"}


def test_the_vocabulary_holds_no_number_beyond_the_count_of_views() -> None:
    assert {word for word in WORDS if not word.isalpha()} == {"1", "2", "3", "4"}
    assert all(word == word.upper() and word.isascii() for word in WORDS)


def test_descriptions_go_where_the_option_is_off() -> None:
    dataset = kept(Accept(("CR",)), StudyDescription="Chest PA", SeriesDescription="Chest", ProtocolName="Chest")
    assert not {"StudyDescription", "SeriesDescription", "ProtocolName"} & {element.keyword for element in dataset}


def test_descriptions_stay_cleaned_where_it_is_on() -> None:
    dataset = kept(StudyDescription=f"Chest PA for Dr {CANARY}", SeriesDescription=CANARY, ProtocolName="Knee lat")
    assert (dataset.StudyDescription, dataset.ProtocolName) == ("CHEST PA", "KNEE LAT")
    assert "SeriesDescription" not in dataset


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientName": "Hand^Lateral"},
        {"ReferringPhysicianName": "Dr. Hand"},
        {"InstitutionName": "Hand-Klinik"},
        {"PatientID": "HAND2"},
        {"OperatorsName": "Meier^Hand"},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_a_word_that_names_somebody_in_the_same_header_goes(attributes: dict[str, object]) -> None:
    assert kept(StudyDescription="Hand AP", **attributes).StudyDescription == "AP"


def test_a_word_that_names_somebody_within_a_sequence_goes() -> None:
    item = Dataset()
    item.PatientID = "hand 7"
    assert kept(StudyDescription="Hand AP", OtherPatientIDsSequence=Sequence([item])).StudyDescription == "AP"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_word_that_names_somebody_in_a_private_attribute_goes(syntax: str) -> None:
    dataset = header(StudyDescription="Hand AP", Modality="CR")
    dataset.add_new(0x00090010, "LO", "SOMEBODY")
    dataset.add_new(0x00091001, "LO", "Frau Hand")
    done = deidentify(BytesIO(file_bytes(with_pixels(dataset, gradient()), syntax)), KEYED, ON)
    assert done is not None
    assert dcmread(BytesIO(done.content)).StudyDescription == "AP"
