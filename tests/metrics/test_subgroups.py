"""Subgroups, the make-up of the parts, and the flow of images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pipelines.metrics.cohort import composition, flow
from pipelines.metrics.subgroups import UNKNOWN, age_group, attributes, ordered, subgroups


@pytest.mark.parametrize(
    ("years", "group"),
    [
        (0.0, "under 2"),
        (1.9, "under 2"),
        (2.0, "2 to 11"),
        (17.9, "12 to 17"),
        (18.0, "18 to 44"),
        (64.0, "45 to 64"),
        (65.0, "65 or more"),
        (89.0, "65 or more"),
        (float("nan"), UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_ages_fall_into_groups(years: float | None, group: str) -> None:
    assert age_group(years) == group


def test_ages_are_in_order_and_the_unrecorded_last() -> None:
    assert ordered([UNKNOWN, "65 or more", "2 to 11", "under 2", "2 to 11"]) == ["under 2", "2 to 11", "65 or more", UNKNOWN]


def test_sites_are_numbered_and_never_named() -> None:
    index = pd.DataFrame({"sex": ["F", None], "age_years": [30.0, np.nan], "view": ["PA", None], "site": ["b7", "a1"]})
    assert attributes(index) == {
        "Sex": ["female", UNKNOWN],
        "Age": ["18 to 44", UNKNOWN],
        "View": ["PA", UNKNOWN],
        "Site": ["site 2", "site 1"],
    }


def test_a_subgroup_has_the_metrics_of_its_own_images() -> None:
    generator = np.random.default_rng(1)
    labels, scores = generator.integers(0, 2, 90).astype(float), generator.random(90)
    views = ["PA"] * 60 + ["AP"] * 30
    found = subgroups(labels, scores, np.arange(90), {"View": views}, threshold=0.5, resamples=100, seed=1)
    assert [row.group for row in found] == ["AP", "PA"]
    assert (found[1].images, found[1].patients, found[1].positives) == (60, 60, int(labels[:60].sum()))
    assert found[1].auroc is not None
    assert found[1].auroc.value == pytest.approx(roc_auc_score(labels[:60], scores[:60]))
    assert found[0].sensitivity is not None
    assert found[0].sensitivity.value == pytest.approx((scores[60:][labels[60:] == 1] >= 0.5).mean())


def test_too_few_images_or_patients_give_no_number() -> None:
    labels = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0, np.nan])
    scores = np.linspace(0, 1, 11)
    (row,) = subgroups(labels, scores, np.arange(11), {"Sex": ["male"] * 11}, threshold=0.5, resamples=100, seed=1)
    assert (row.images, row.positives, row.negatives) == (10, 6, 4)
    assert row.sensitivity is not None
    assert row.specificity is None
    assert row.auroc is None
    (row,) = subgroups(labels, scores, np.zeros(11), {"Sex": ["male"] * 11}, threshold=0.5, resamples=100, seed=1)
    assert row.sensitivity is None


@pytest.fixture
def cohort() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": list("abcdefgh"),
            "patient": ["p", "p", "q", "r", "s", "t", "u", "u"],
            "left_out": [None, None, None, None, None, None, "undecodable_pixels", None],
            "part": ["train", "train", "train", "validation", "test", "test", None, None],
            "sex": ["F", "F", "M", "F", "M", None, "M", "M"],
            "age_years": [30.0, 30.0, 70.0, 1.0, 20.0, np.nan, 5.0, 5.0],
            "view": ["PA", "LL", "PA", "PA", "PA", "PA", "AP", "AP"],
            "site": ["x"] * 8,
            "y_opacity": [1.0, 0.0, np.nan, 1.0, 0.0, 1.0, 1.0, np.nan],
        }
    )


def test_every_image_is_accounted_for(cohort: pd.DataFrame) -> None:
    ingest = {"found": 12, "not_dicom": 1, "quarantined": {"truncated": 3}}
    found = flow(cohort, ["opacity"], ingest)
    assert found.found == 12
    assert found.found - sum(found.set_aside.values()) == found.ingested.images == 8
    assert found.left_out == {"undecodable_pixels": 1}
    assert found.ingested.images - sum(found.left_out.values()) - found.unlabelled == found.used.images == 6
    assert sum(part.size.images for part in found.parts) == found.used.images
    assert [(part.size.images, part.size.patients, part.positives["opacity"]) for part in found.parts] == [
        (3, 2, (1, 2)),
        (1, 1, (1, 1)),
        (2, 2, (1, 2)),
    ]


def test_the_flow_starts_with_the_images_where_ingest_left_no_count(cohort: pd.DataFrame) -> None:
    found = flow(cohort, ["opacity"], None)
    assert (found.found, found.set_aside) == (None, {})


def test_the_fractions_of_a_part_add_up(cohort: pd.DataFrame) -> None:
    rows = composition(cohort)
    for attribute in ("Sex", "Age", "View", "Site"):
        for part in ("train", "validation", "test"):
            assert sum(row.fractions[part] for row in rows if row.attribute == attribute) == pytest.approx(1.0)
    female = next(row for row in rows if row.group == "female")
    assert female.images == {"train": 2, "validation": 1, "test": 0}
