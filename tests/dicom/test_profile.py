from __future__ import annotations

import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword

from pipelines.dicom import vocabulary as words
from pipelines.dicom.attributes import _ACTIONS
from pipelines.dicom.profile import CONSULTED, PROFILE, Action, Rule

TERMS = [rule for rule in PROFILE if rule.action is Action.TERM]


def keyword_of(rule: Rule) -> str:
    return rule.keyword


@pytest.mark.parametrize("rule", PROFILE, ids=keyword_of)
def test_a_rule_names_an_attribute_of_the_standard_and_says_why(rule: Rule) -> None:
    assert tag_for_keyword(rule.keyword) is not None
    assert rule.why
    assert rule.action in _ACTIONS or rule.action is Action.SET


def test_an_attribute_has_one_rule() -> None:
    keywords = [rule.keyword for rule in PROFILE]
    assert len(keywords) == len(set(keywords))
    assert not set(keywords) & set(CONSULTED)


def test_no_attribute_of_free_text_or_time_is_kept() -> None:
    free = {"PN", "LT", "ST", "UT", "TM", "DT", "UC", "UR", "UN"}
    kept = {rule.keyword for rule in PROFILE if dictionary_VR(rule.keyword) in free}
    assert kept == {"PatientName", "StudyTime", "ReferringPhysicianName"}  # written by us: the pseudonym, and empty


@pytest.mark.parametrize("rule", TERMS, ids=keyword_of)
def test_every_term_of_a_vocabulary_is_a_code_string_that_finds_itself(rule: Rule) -> None:
    assert rule.vocabulary
    for spelling, term in rule.vocabulary.items():
        assert words.squashed(spelling) == spelling
        assert rule.vocabulary[words.squashed(term)] == term
        assert len(term) <= 16
        assert term == term.upper()


def test_codes_lead_to_terms_that_the_plain_attributes_know() -> None:
    assert set(words.VIEW_CODES.values()) <= set(words.VIEWS.values())
    assert set(words.ANATOMY_CODES.values()) <= set(words.BODY_PARTS.values())


@pytest.mark.parametrize(
    ("written", "vendor"),
    [
        ("FUJI PHOTO FILM Co., ltd.", "FUJIFILM"),
        ("FUJIFILM Corporation", "FUJIFILM"),
        ("GE Healthcare", "GE"),
        ("GEMS", "GE"),
        ("SIEMENS", "Siemens"),
        ("Philips Medical Systems", "Philips"),
        ("Agfa-Gevaert AG", "Agfa"),
        ("George Washington Hospital", None),
        ("Orange", None),
    ],
)
def test_a_vendor_is_recognised_by_a_word_of_its_name(written: str, vendor: str | None) -> None:
    assert next((name for name, pattern in words.VENDORS.items() if pattern.search(written)), None) == vendor
