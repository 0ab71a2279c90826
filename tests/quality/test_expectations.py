"""Each expectation is held against a table that keeps it and one that breaks it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from made_tables import made_cohort, made_index

from pipelines.config import CheckSection
from pipelines.quality import tables
from pipelines.quality.expectations import Expectation, expectations
from pipelines.quality.validation import Finding, validate
from pipelines.records import INDEX, Task

TASK = Task("binary", ("pneumonia",))
CHECK = CheckSection(views=("PA", "AP"), body_parts=("CHEST",))
EXPECTED = expectations(CHECK, TASK)

Broken = Callable[[pd.DataFrame, pd.DataFrame], tuple[pd.DataFrame, pd.DataFrame]]


def findings(index: pd.DataFrame, labels: pd.DataFrame, task: Task = TASK, check: CheckSection = CHECK) -> dict[str, Finding]:
    found = validate(tables.build(index, labels, task), expectations(check, task)).findings
    return {item.expectation.name: item for item in found}


def broken(column: str, value: object, rows: list[int] | None = None) -> Broken:
    def change(index: pd.DataFrame, labels: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        changed = index.astype({column: object}) if isinstance(value, str) or value is None else index.copy()
        changed.loc[rows or [3], column] = value
        return changed, labels

    return change


def relabelled(value: object, rows: list[int]) -> Broken:
    def change(index: pd.DataFrame, labels: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        changed = labels.astype({"pneumonia": object}) if isinstance(value, str) else labels.copy()
        changed.loc[rows, "pneumonia"] = value
        return index, changed

    return change


def without(column: str) -> Broken:
    return lambda index, labels: (index.drop(columns=column), labels)


def text(column: str) -> Broken:
    return lambda index, labels: (index.assign(**{column: "a text"}), labels)


def label_rows(rows: slice) -> Broken:
    return lambda index, labels: (index, labels[rows])


IMAGE = "2.25.1003"
"""The image of row 3."""

HALF = list(range(30))

BREAKS: dict[str, tuple[Broken, tuple[str, ...]]] = {
    "index: columns": (without("view"), ()),
    "labels: columns": (lambda index, labels: (index, labels.drop(columns="pneumonia")), ()),
    **{f"index: {name} is a number": (text(name), ()) for name in ("age_years", "rows", "columns", "bits_stored", "spacing_mm")},
    **{f"index: {name} is a number": (text(name), ()) for name in ("mean", "std", "dark", "bright", "shard", "row")},
    "index: image present": (broken("image", None), ()),
    "index: patient present": (broken("patient", None), (IMAGE,)),
    "index: study present": (broken("study", None), (IMAGE,)),
    "index: image unique": (broken("image", "2.25.1004"), ("2.25.1004",)),
    **{f"images: {name} present": (broken(name, None), (IMAGE,)) for name in ("modality", "photometric", "window")},
    **{f"images: {name} present": (broken(name, np.nan), (IMAGE,)) for name in ("mean", "std", "dark", "bright")},
    **{f"images: {name} present": (broken(name, None), (IMAGE,)) for name in ("pixel_hash", "perceptual_hash")},
    "labels: image present": (lambda index, labels: (index, labels.assign(image=[None, *labels["image"][1:]])), ()),
    "labels: image unique": (lambda index, labels: (index, pd.concat([labels, labels[3:4]])), (IMAGE,)),
    "image pseudonym": (broken("image", "1.2.840.1"), ("1.2.840.1",)),
    "modality allowed": (broken("modality", "CT"), (IMAGE,)),
    "view allowed": (broken("view", "LL"), (IMAGE,)),
    "body_part allowed": (broken("body_part", "HAND"), (IMAGE,)),
    "sex valid": (broken("sex", "X"), (IMAGE,)),
    "age in range": (broken("age_years", 93.0), (IMAGE,)),
    "study date valid": (broken("study_date", "2020"), (IMAGE,)),
    "rows in range": (broken("rows", 8), (IMAGE,)),
    "columns in range": (broken("columns", 40000), (IMAGE,)),
    "rows enough": (broken("rows", 200), (IMAGE,)),
    "columns enough": (broken("columns", 200), (IMAGE,)),
    "bits in range": (broken("bits_stored", 1), (IMAGE,)),
    "spacing in range": (broken("spacing_mm", 0.0), (IMAGE,)),
    "polarity known": (broken("photometric", "RGB"), (IMAGE,)),
    "one patient per study": (broken("study", "2.25.500002"), ("2.25.1002", IMAGE)),
    "few left out": (broken("left_out", "undecodable_pixels", HALF), tuple(f"2.25.{1000 + row}" for row in HALF)),
    "array place unique": (broken("row", 2), ("2.25.1002", IMAGE)),
    "array place known": (broken("shard", -1), (IMAGE,)),
    "window known": (broken("window", "guessed"), (IMAGE,)),
    "pixel fingerprint": (broken("pixel_hash", "abc"), (IMAGE,)),
    "perceptual hash": (broken("perceptual_hash", "abc"), (IMAGE,)),
    **{f"{name} in range": (broken(name, 1.5), (IMAGE,)) for name in ("mean", "std", "dark", "bright")},
    "not constant": (broken("std", 0.0), (IMAGE,)),
    "not blank": (broken("std", 0.001), (IMAGE,)),
    "few blank": (broken("std", 0.001, HALF), tuple(f"2.25.{1000 + row}" for row in HALF)),
    **{f"not saturated {name}": (broken(name, 0.7), (IMAGE,)) for name in ("dark", "bright")},
    **{
        f"few saturated {name}": (broken(name, 0.7, HALF), tuple(f"2.25.{1000 + row}" for row in HALF))
        for name in ("dark", "bright")
    },
    "no pixels of two patients": (broken("pixel_hash", "a" * 64, [3, 4]), (IMAGE, "2.25.1004")),
    "pneumonia valid": (relabelled(2.0, [3]), (IMAGE,)),
    "labels of known images": (lambda index, labels: (index.drop(index=3), labels), (IMAGE,)),
    "labels say something": (relabelled(np.nan, [3]), (IMAGE,)),
    "identical images agree": (broken("pixel_hash", "a" * 64, [2, 3]), ("2.25.1002", IMAGE)),
    "enough images": (label_rows(slice(49)), ()),
    "enough images with": (relabelled(0.0, list(range(40))), ("pneumonia",)),
    "enough images without": (relabelled(1.0, list(range(60))), ("pneumonia",)),
    "enough patients with": (relabelled(0.0, list(range(2, 60))), ("pneumonia",)),
    "enough patients without": (relabelled(1.0, list(range(60))), ("pneumonia",)),
    "prevalence in range": (relabelled(0.0, list(range(60))), ("pneumonia",)),
}


def test_good_data_meet_every_expectation() -> None:
    index, labels = made_cohort()
    assert [name for name, found in findings(index, labels).items() if not found.passed] == []


@pytest.mark.parametrize("expectation", EXPECTED, ids=lambda expectation: expectation.name)
def test_each_expectation_notices_what_breaks_it_and_names_the_rows(expectation: Expectation) -> None:
    change, rows = BREAKS[expectation.name]
    (found,) = validate(tables.build(*change(*made_cohort()), TASK), [expectation]).findings
    assert not found.passed
    assert found.failing_rows == rows


def test_names_are_unique_and_every_expectation_is_broken_by_a_test() -> None:
    names = [expectation.name for expectation in EXPECTED]
    assert len(names) == len(set(names))
    assert set(names) == set(BREAKS)


def test_one_blank_image_is_a_warning_and_many_are_an_error() -> None:
    by_name = {expectation.name: expectation for expectation in EXPECTED}
    assert by_name["not blank"].severity == "warning"
    assert by_name["few blank"].severity == "error"
    found = findings(*broken("std", 0.001)(*made_cohort()))
    assert not found["not blank"].passed
    assert found["few blank"].passed


def test_what_is_unknown_breaks_no_range() -> None:
    index, labels = made_cohort()
    index = index.assign(age_years=np.nan, sex=None, view=None, body_part=None, study_date=None, spacing_mm=np.nan)
    assert [name for name, found in findings(index, labels).items() if not found.passed] == []


def test_no_views_in_params_allows_every_view() -> None:
    found = findings(*broken("view", "LL")(*made_cohort()), check=CheckSection())
    assert all(item.passed for item in found.values())
    assert "view allowed" not in found


def test_a_missing_column_fails_what_depends_on_it_and_says_so() -> None:
    found = findings(*without("modality")(*made_cohort()))
    assert found["index: columns"].observed == "missing: modality"
    assert found["modality allowed"].observed == "no column modality"
    assert not found["modality allowed"].passed


def test_a_text_among_numbers_fails_instead_of_crashing() -> None:
    found = findings(*text("age_years")(*made_cohort()))
    assert not found["index: age_years is a number"].passed
    assert found["age in range"].observed == "could not be decided"
    assert not found["age in range"].passed


def test_an_empty_index_fails_instead_of_crashing() -> None:
    found = findings(pd.DataFrame(columns=[*INDEX]), pd.DataFrame(columns=["image", "pneumonia"]))
    assert not found["enough images"].passed
    assert not found["enough images with"].passed


def test_every_observation_is_in_plain_words() -> None:
    found = findings(*broken("age_years", -4.0)(*made_cohort()))
    assert found["age in range"].observed == "1 of 60 rows do not fit"
    assert found["sex valid"].observed == "all 60 rows fit"
    assert found["enough images with"].observed == "pneumonia 18"
    assert found["enough images"].observed == "60"
    assert found["labels: columns"].observed == "every column is there"


def test_a_multilabel_task_is_checked_finding_by_finding_and_unknown_labels_do_not_count() -> None:
    index = made_index(list(range(60)))
    mass = np.where(np.arange(60) < 20, np.nan, np.arange(60) % 2)
    labels = pd.DataFrame({"image": index["image"], "effusion": np.arange(60) % 2.0, "mass": mass})
    found = findings(index, labels, Task("multilabel", ("effusion", "mass")), CheckSection(min_images_per_class=25))
    assert found["enough images with"].observed == "effusion 30, mass 20"
    assert found["enough images with"].failing_rows == ("mass",)


def test_a_multiclass_task_needs_each_of_its_classes() -> None:
    index = made_index(list(range(60)))
    names = ["none"] * 40 + ["viral"] * 18 + ["fungal", None]
    task = Task("multiclass", ("etiology",), ("none", "viral", "bacterial"))
    found = findings(index, pd.DataFrame({"image": index["image"], "etiology": names}), task)
    assert found["etiology valid"].failing_rows == ("2.25.1058",)
    assert found["enough images with"].failing_rows == ("bacterial",)
    assert found["enough images with"].observed == "none 40, viral 18, bacterial 0"
    assert "enough images without" not in found
