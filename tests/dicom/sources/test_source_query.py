from __future__ import annotations

from datetime import date

import pytest

from pipelines.config_sources import QuerySection
from pipelines.dicom.sources.query import Query

TODAY = date(2026, 3, 2)
MODALITIES = ("CR", "DX")


@pytest.mark.parametrize(
    ("settings", "dates"),
    [
        ({}, ""),
        ({"last_days": 0}, "20260302-"),
        ({"last_days": 3}, "20260227-"),
        ({"date_from": "20240131"}, "20240131-"),
        ({"date_to": "20240229"}, "-20240229"),
        ({"date_from": "20240131", "date_to": "20240229"}, "20240131-20240229"),
        ({"date_from": "20240131", "date_to": "20240131"}, "20240131"),
    ],
)
def test_dates_are_written_as_the_standard_has_ranges(settings: dict[str, str], dates: str) -> None:
    assert Query.of(QuerySection.model_validate(settings), MODALITIES, TODAY).dates == dates


@pytest.mark.parametrize(
    ("first", "last", "days", "windows"),
    [
        (date(2026, 2, 28), None, 1, ["20260228", "20260301", "20260302-"]),
        (date(2026, 2, 28), None, 2, ["20260228-20260301", "20260302-"]),
        (date(2026, 2, 28), None, 30, ["20260228-"]),
        (date(2026, 2, 1), date(2026, 2, 5), 3, ["20260201-20260203", "20260204-20260205"]),
        (date(2026, 2, 1), date(2026, 2, 1), 3, ["20260201"]),
        (None, None, 1, [""]),
        (None, date(2026, 2, 1), 1, ["-20260201"]),
        (date(2026, 3, 9), None, 1, []),
    ],
)
def test_a_long_range_is_asked_for_in_pieces(first: date | None, last: date | None, days: int, windows: list[str]) -> None:
    assert list(Query(MODALITIES, (), first, last).windows(days, TODAY)) == windows


@pytest.mark.parametrize(
    ("modality", "body_part", "wanted"),
    [
        ("CR", "CHEST", True),
        ("dx", "chest", True),
        ("CT", "CHEST", False),
        ("CR", "HAND", False),
        ("CR", "Thoracic Spine", True),
        ("CR", "", True),
        (None, None, True),
    ],
)
def test_what_the_server_says_otherwise_is_not_wanted(modality: str | None, body_part: str | None, wanted: bool) -> None:
    assert Query(MODALITIES, ("CHEST", "THORACICSPINE")).admits(modality, body_part) is wanted


def test_other_wants_have_another_fingerprint() -> None:
    prints = {
        query.fingerprint
        for query in (Query(("CR",)), Query(("DX",)), Query(("CR", "DX")), Query(("CR",), ("CHEST",)), Query(("CR",), ("HAND",)))
    }
    assert len(prints) == 5
    assert Query(("CR", "DX")).fingerprint == Query(("DX", "CR"), (), TODAY).fingerprint
