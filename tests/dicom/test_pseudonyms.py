from __future__ import annotations

import re

import pytest

from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.errors import MissingKeyError

ONE, OTHER = Pseudonyms(b"one key, long enough"), Pseudonyms(b"another key, long too")
KINDS = ("uid", "patient", "patient_of_study", "accession", "site", "vendor", "model")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_key_and_value_always_give_the_same_pseudonym(kind: str) -> None:
    assert getattr(ONE, kind)("value") == getattr(Pseudonyms(ONE.key), kind)("value")


@pytest.mark.parametrize("kind", KINDS)
def test_another_key_or_another_value_gives_another_pseudonym(kind: str) -> None:
    assert len({getattr(ONE, kind)("value"), getattr(OTHER, kind)("value"), getattr(ONE, kind)("value2")}) == 3


def test_the_same_text_in_two_attributes_gives_two_pseudonyms() -> None:
    assert len({getattr(ONE, kind)("12345").rpartition("-")[2].lstrip("pa")[:6] for kind in KINDS}) == len(KINDS)


def test_a_uid_is_a_valid_one_under_2_25() -> None:
    uid = ONE.uid("1.2.3")
    assert re.fullmatch(r"2\.25\.(0|[1-9]\d*)", uid)
    assert len(uid) <= 64
    assert int(uid.removeprefix("2.25.")) < 1 << 128


def test_blanks_around_a_patient_id_do_not_make_another_patient() -> None:
    assert ONE.patient(" MRN7 ") == ONE.patient("MRN7") == ONE.patient("MRN7\0")


def test_an_institution_is_the_same_site_in_any_case() -> None:
    assert ONE.site("Somewhere  General") == ONE.site("SOMEWHERE GENERAL")


def test_dates_move_into_the_past_by_one_to_ten_years() -> None:
    days = [ONE.days(ONE.patient(str(number))) for number in range(500)]
    assert len(set(days)) > 400
    assert all(-3652 <= day <= -365 for day in days)


def test_the_key_is_in_no_representation() -> None:
    assert "long enough" not in repr(ONE)


def test_no_key_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RADTRANSFER_PSEUDONYM_KEY", raising=False)
    with pytest.raises(MissingKeyError, match=r"export RADTRANSFER_PSEUDONYM_KEY=\$\(python -c .*token_hex.*keep it safe"):
        Pseudonyms.from_environment()


def test_a_short_key_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADTRANSFER_PSEUDONYM_KEY", "hunter2-hunter2")
    with pytest.raises(MissingKeyError, match="at least 16 characters, got 15") as caught:
        Pseudonyms.from_environment()
    assert "hunter2" not in str(caught.value)


def test_a_key_of_sixteen_characters_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADTRANSFER_PSEUDONYM_KEY", "0123456789abcdef")
    assert Pseudonyms.from_environment().key == b"0123456789abcdef"
