"""The Data Docs stand alone."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from made_tables import made_cohort

from pipelines.config import CheckSection
from pipelines.quality import docs, tables
from pipelines.quality.expectations import expectations
from pipelines.quality.validation import Validation, validate
from pipelines.records import Task

TASK = Task("binary", ("pneumonia",))
PLANTED = "<script>alert('view')</script>"
COUNTS = {"images": 1234, "patients": 40}


def checked(index: pd.DataFrame, labels: pd.DataFrame) -> Validation:
    return validate(tables.build(index, labels, TASK), expectations(CheckSection(views=("PA", "AP")), TASK))


def spoiled() -> Validation:
    index, labels = made_cohort()
    index.loc[:11, "view"] = PLANTED
    index.loc[5, "std"] = 0.001
    index["age_years"] = "old"
    return checked(index, labels)


@pytest.fixture(scope="module")
def failed() -> Validation:
    return spoiled()


@pytest.fixture(scope="module")
def page(failed: Validation) -> str:
    return docs.page(failed, COUNTS)


def test_the_page_loads_nothing_from_anywhere(page: str) -> None:
    assert re.findall(r"(?:src|href|action)\s*=|url\(|@import|<link|<script|<iframe", page) == []
    assert "default-src 'none'" in page


def test_what_failed_stands_at_the_top_with_its_rows(page: str) -> None:
    verdict = page.index("Not passed: 3 expectations of severity error failed")
    assert verdict < page.index("Every view is one of PA, AP") < page.index("<table")
    assert "<code>2.25.1000</code>" in page
    assert "and 4 more" in page
    assert "<dd>1,234</dd>" in page


def test_values_from_the_tables_are_escaped(page: str) -> None:
    assert PLANTED not in page
    assert "&lt;script&gt;" in page


def test_no_traceback_and_no_path_reaches_the_page(page: str) -> None:
    assert "could not be decided" in page
    assert not re.search(r"Traceback|site-packages|/home/|/tmp/|\.py\b", page)


def test_the_sections_of_great_expectations_are_there_for_every_column(page: str) -> None:
    for column in ("age_years", "pixel_hash", "view", "pneumonia", "prevalence"):
        assert re.search(rf'<h5 class="m-0"\s*>\s*{column}\s*</h5>', page)


def test_the_same_data_give_the_same_page(page: str) -> None:
    assert docs.page(spoiled(), COUNTS) == page


def test_good_data_give_a_page_that_says_so() -> None:
    page = docs.page(checked(*made_cohort()), COUNTS)
    assert re.search(r'class="verdict good">\s*Passed\.', page)
    assert "failed</span>" not in page
