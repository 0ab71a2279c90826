from __future__ import annotations

from datetime import date

import pytest

from pipelines.dicom.sources import answers
from pipelines.dicom.sources.protocol import Study


@pytest.mark.parametrize("text", ["", None, "1.2 3", "1.2\\3", "../1.2", "1.2?x", "1" * 65, "\u0661.2"])
def test_what_is_no_uid_is_none(text: str | None) -> None:
    assert answers.uid(text) is None
    assert answers.study(text, "1", "20240131") is None


def test_a_uid_may_be_padded() -> None:
    assert answers.uid("1.2.3\0") == "1.2.3"


@pytest.mark.parametrize(
    ("instances", "day", "study"),
    [
        ("2", "20240131", Study("1.2", 2, date(2024, 1, 31))),
        ("2 ", None, Study("1.2", 2)),
        (None, "", Study("1.2")),
        ("\u00b2", "2024-01-31", Study("1.2")),
        ("9" * 5000, "20240230", Study("1.2")),
        ("-1", "yesterday", Study("1.2")),
    ],
)
def test_what_is_no_number_and_no_date_is_not_known(instances: str | None, day: str | None, study: Study) -> None:
    assert answers.study("1.2", instances, day) == study
