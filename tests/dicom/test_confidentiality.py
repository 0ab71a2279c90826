"""PS3.15 Table E.1-1, and that what comes out of ingest is as strict as it asks, line by line."""

from __future__ import annotations

import hashlib
import tomllib
import warnings
from io import BytesIO
from itertools import chain, combinations
from pathlib import Path

import pytest
from made_dicom import CANARY, KEYED, file_bytes, gradient, header, with_pixels
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.sequence import Sequence

from pipelines.dicom import confidentiality
from pipelines.dicom.confidentiality import Entry, Option, entries, entry_for, entry_of
from pipelines.dicom.deidentify import Accept, deidentify
from pipelines.dicom.profile import DEFAULT, PROFILE

CHOICES = (Option.PATIENT, Option.DEVICE, Option.MODIFIED_DATES, Option.CLEAN_DESCRIPTORS)
SUBSETS = [frozenset(some) for some in chain.from_iterable(combinations(CHOICES, count) for count in range(len(CHOICES) + 1))]
KNOWN = [entry for entry in entries() if entry.keyword and tag_for_keyword(entry.keyword) is not None]
# How much of a value an action lets through; Z may put a dummy (Table E.1-1a).
TOLD = {"X": 0, "Z": 2, "D": 2, "U": 2, "C": 3, "K": 4}


def names(options: frozenset[Option]) -> str:
    return "+".join(sorted(option.name for option in options)) or "basic"


def test_the_table_holds_all_lines_once_and_known_actions_only() -> None:
    assert len(entries()) == 656
    assert len({entry.tag for entry in entries()}) == 656
    actions = {"X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"}
    assert {entry.basic for entry in entries()} == actions
    assert {action for entry in entries() for action in entry.options.values()} == {"K", "C"}


@pytest.mark.parametrize("entry", KNOWN[::7], ids=lambda entry: entry.keyword)
def test_tag_and_keyword_of_a_line_are_those_of_the_dictionary(entry: Entry) -> None:
    tag = int(entry.tag.replace(" ", "").replace("X", "0"), 16)
    assert keyword_for_tag(tag) == entry.keyword
    assert entry_of(tag) is entry
    assert entry_for(entry.keyword) is entry


@pytest.mark.parametrize(
    ("keyword", "basic", "options"),
    [  # lines that decide much
        ("PatientName", "Z", {}),
        ("PatientBirthDate", "Z", {}),
        ("PatientSex", "Z", {Option.PATIENT: "K"}),
        ("PatientAge", "X", {Option.PATIENT: "K"}),
        ("StudyDate", "Z", {Option.FULL_DATES: "K", Option.MODIFIED_DATES: "C"}),
        ("AcquisitionDate", "X/Z", {Option.FULL_DATES: "K", Option.MODIFIED_DATES: "C"}),
        ("InstitutionName", "X/Z/D", {Option.INSTITUTION: "K"}),
        ("DeviceSerialNumber", "X/Z/D", {Option.DEVICE: "K"}),
        ("StudyInstanceUID", "U", {Option.UIDS: "K"}),
        ("SourceImageSequence", "X/Z/U*", {Option.UIDS: "K"}),
        ("StudyDescription", "X", {Option.CLEAN_DESCRIPTORS: "C"}),
        ("GraphicAnnotationSequence", "D", {Option.CLEAN_GRAPHICS: "C"}),
        ("AcquisitionContextSequence", "X/Z", {Option.CLEAN_STRUCTURED: "C"}),
    ],
)
def test_lines_of_the_table(keyword: str, basic: str, options: dict[Option, str]) -> None:
    entry = entry_for(keyword)
    assert entry is not None
    assert (entry.basic, entry.options) == (basic, options)


@pytest.mark.parametrize(
    ("tag", "basic"), [(0x00091001, "X"), (0x60023000, "X"), (0x50040110, "X"), (0x60000010, None), (0x00280010, None)]
)
def test_private_and_repeating_groups_have_their_lines(tag: int, basic: str | None) -> None:
    entry = entry_of(tag)
    assert (entry.basic if entry else None) == basic


@pytest.mark.parametrize(
    ("keyword", "options", "action"),
    [
        ("AcquisitionDate", (), "X"),  # type 3: X/Z is X
        ("PatientID", (), "Z"),  # type 2: Z/D is Z
        ("AcquisitionContextSequence", (), "Z"),  # type 2: X/Z is Z
        ("ContentDate", (), "Z"),  # Z/D
        ("AcquisitionDate", (Option.MODIFIED_DATES,), "C"),
        ("AcquisitionDate", (Option.MODIFIED_DATES, Option.FULL_DATES), "K"),
        ("PatientAge", (Option.PATIENT,), "K"),
        ("PatientAge", (Option.DEVICE,), "X"),
    ],
)
def test_a_combination_is_resolved_by_the_type_and_options_come_first(
    keyword: str, options: tuple[Option, ...], action: str
) -> None:
    entry = entry_for(keyword)
    assert entry is not None
    assert entry.action(options) == action


def test_a_combination_of_an_attribute_that_needs_a_value_is_a_dummy() -> None:
    assert Entry("", "", 1, "X/Z/D", {}).action() == "D"
    assert Entry("", "", 1, "X/Z/U*", {}).action() == "U"


def planted(entry: Entry) -> object:
    """A value that its VR allows and that a vocabulary would know where there is one."""
    special = {"PatientSex": "F", "PatientAge": "061Y"}
    if entry.keyword in special:
        return special[entry.keyword]
    if Option.CLEAN_DESCRIPTORS in entry.options:
        return f"knee AP of {CANARY}"
    dates = {"DA": "20190314", "TM": "101112", "DT": "20190314101112", "AS": "061Y", "UI": f"1.2.3.{abs(hash(entry.tag))}"}
    return dates.get(dictionary_VR(entry.keyword), CANARY)


@pytest.fixture(scope="module")
def everything() -> bytes:
    """A radiograph with every attribute of the table that can hold text, and the sequences."""
    dataset = header(Modality="CR")
    decisive = {"SOPInstanceUID", "EncapsulatedDocument", "ContentSequence"}
    for entry in KNOWN:
        vr = dictionary_VR(entry.keyword)
        if entry.keyword in decisive or entry.tag.startswith(("0000", "0002", "0004")):
            continue
        if vr == "SQ":
            item = Dataset()
            item.PatientName = f"{CANARY}^in^Item"
            dataset.add(DataElement(entry.keyword, "SQ", Sequence([item])))
        elif vr in ("OB", "OW", "UN"):
            dataset.add(DataElement(entry.keyword, vr, CANARY.encode() + b" "))
        elif vr not in ("US", "UL", "FL", "FD", "SS", "SL", "DS", "IS", "AT"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dataset.add(DataElement(tag_for_keyword(entry.keyword), vr, planted(entry)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return file_bytes(with_pixels(dataset, gradient()))


@pytest.mark.parametrize("options", SUBSETS, ids=names)
def test_what_comes_out_is_as_strict_as_every_line_of_the_table(options: frozenset[Option], everything: bytes) -> None:
    done = deidentify(BytesIO(everything), KEYED, Accept(("CR",), options=options))
    assert done is not None
    before, after = dcmread(BytesIO(everything)), dcmread(BytesIO(done.content))
    assert CANARY.encode() in everything
    assert CANARY.encode() not in done.content
    seen = 0
    for entry in KNOWN:
        if entry.keyword not in after:
            continue
        told = told_by(entry, before, after)
        asked = [
            *(letter[0] for letter in entry.basic.split("/")),
            *(entry.options[one] for one in options & entry.options.keys()),
        ]
        assert told <= max(TOLD[letter] for letter in asked), entry.keyword
        seen += told > 0
    assert seen >= 6  # the UIDs, and the pseudonyms


def told_by(entry: Entry, before: Dataset, after: Dataset) -> int:
    """How much an attribute that is still there says of what it said."""
    value = str(after[entry.keyword].value)
    if not value:
        return 1
    if entry.keyword in before and value == str(before[entry.keyword].value):
        return TOLD["K"]
    information = dictionary_VR(entry.keyword) in ("DA", "TM", "DT") or Option.CLEAN_DESCRIPTORS in entry.options
    return TOLD["C"] if information else TOLD["D"]


@pytest.mark.parametrize(
    ("option", "kept", "gone"),
    [
        (Option.PATIENT, {"PatientSex": "F", "PatientAge": "061Y"}, {"PatientSex": "", "PatientAge": None}),
        (Option.DEVICE, {"Manufacturer": "Agfa"}, {"Manufacturer": None, "ManufacturerModelName": None}),
        (Option.MODIFIED_DATES, {}, {"StudyDate": "", "SeriesDate": None, "AcquisitionDate": None, "ContentDate": None}),
        (Option.CLEAN_DESCRIPTORS, {"StudyDescription": "KNEE AP"}, {"StudyDescription": None, "ProtocolName": None}),
    ],
)
def test_an_option_that_is_off_removes_or_empties(
    option: Option, kept: dict[str, str], gone: dict[str, str | None], everything: bytes
) -> None:
    def attributes(options: frozenset[Option]) -> Dataset:
        dataset = dcmread(BytesIO(everything))
        dataset.ManufacturerModelName = "DX-D"
        done = deidentify(BytesIO(file_bytes(dataset)), KEYED, Accept(("CR",), options=options))
        assert done is not None
        return dcmread(BytesIO(done.content))

    on, off = attributes(DEFAULT | {option}), attributes(DEFAULT - {option})
    assert {keyword: on.get(keyword) for keyword in kept} == kept
    assert {keyword: off.get(keyword) for keyword in gone} == gone
    modified = Option.MODIFIED_DATES is not option
    assert off.LongitudinalTemporalInformationModified == ("MODIFIED" if modified else "REMOVED")
    codes = {item.CodeValue: item.CodeMeaning for item in on.DeidentificationMethodCodeSequence}
    assert codes["113100"] == "Basic Application Confidentiality Profile"
    assert codes[option.code] == option.meaning
    assert option.code not in {item.CodeValue for item in off.DeidentificationMethodCodeSequence}
    assert {item.CodingSchemeDesignator for item in on.DeidentificationMethodCodeSequence} == {"DCM"}


def test_attributes_that_a_radiograph_must_have_are_there_and_empty() -> None:
    done = deidentify(BytesIO(file_bytes(with_pixels(header(), gradient()))), KEYED, Accept(("CR",)))
    assert done is not None
    dataset = dcmread(BytesIO(done.content))
    for keyword in ("PatientBirthDate", "StudyTime", "ReferringPhysicianName", "StudyID"):
        assert not dataset[keyword].value


def test_a_line_of_the_profile_beyond_the_table_names_attributes_that_the_table_does_not_list() -> None:
    for rule in PROFILE:
        assert not (rule.option and entry_for(rule.keyword)), rule.keyword


def test_the_table_is_part_of_the_package(repository: Path) -> None:
    table = Path(confidentiality.__file__).with_name("confidentiality.csv")
    assert confidentiality.fingerprint() == hashlib.sha256(table.read_bytes()).hexdigest()
    settings = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packaged = {path for pattern in settings["pipelines"] for path in (repository / "pipelines").glob(pattern)}
    assert repository / "pipelines" / "dicom" / "confidentiality.csv" in packaged
