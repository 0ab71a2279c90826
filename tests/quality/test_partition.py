from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from made_tables import digest, made_cohort, made_index

from pipelines.config import SplitSection
from pipelines.errors import ConfigurationError, LeakageError
from pipelines.quality import partition as division
from pipelines.quality.tables import usable
from pipelines.records import PARTS, Task

BINARY = Task("binary", ("pneumonia",))
SECTION = SplitSection()


def divided(
    index: pd.DataFrame, labels: pd.DataFrame, task: Task = BINARY, section: SplitSection = SECTION
) -> tuple[pd.DataFrame, np.ndarray]:
    images, matrix = usable(index, labels, task)
    return images.assign(part=division.partition(images, matrix, task, section)), matrix


@st.composite
def tangled(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame, Task, SplitSection]:
    """Tables in which patients share studies and pixels, and labels are partly unknown."""
    patients = draw(st.lists(st.integers(0, 25), min_size=20, max_size=80))
    index = made_index(patients)
    some = st.integers(0, len(patients) - 1)
    for column in ("study", "pixel_hash"):
        for first, second in draw(st.lists(st.tuples(some, some), max_size=6)):
            index.loc[first, column] = index.loc[second, column]
    task = draw(
        st.sampled_from([BINARY, Task("multilabel", ("mass", "effusion")), Task("multiclass", ("etiology",), ("a", "b", "c"))])
    )
    values = [*task.classes, None] if task.kind == "multiclass" else [0.0, 1.0, np.nan]
    sized = st.lists(st.sampled_from(values), min_size=len(patients), max_size=len(patients))
    labels = pd.DataFrame({"image": index["image"], **{target: draw(sized) for target in task.targets}})
    return index, labels, task, SplitSection(seed=draw(st.integers(0, 9)))


@settings(max_examples=60, deadline=None)
@given(tangled())
def test_no_patient_study_or_pixels_span_parts_and_each_part_has_each_class(
    case: tuple[pd.DataFrame, pd.DataFrame, Task, SplitSection],
) -> None:
    index, labels, task, section = case
    try:
        split, matrix = divided(index, labels, task, section)
    except LeakageError:
        event("too few patients")
        return
    event("divided")
    for column in ("patient", "study", "pixel_hash"):
        assert (split.groupby(column)["part"].nunique() == 1).all()
    for part in PARTS:
        found = matrix[(split["part"] == part).to_numpy()]
        assert (found == 1).any(axis=0).all()
        assert task.kind == "multiclass" or (found == 0).any(axis=0).all()


def test_sixty_images_of_forty_patients_give_parts_of_the_sizes_asked_for() -> None:
    split, _ = divided(*made_cohort(60, 40))
    patients = split.groupby("part")["patient"].nunique()
    assert patients["test"] == pytest.approx(6, abs=1)
    assert patients["validation"] == pytest.approx(6, abs=1)
    assert patients.sum() == 40


def test_parts_have_the_same_prevalence_and_the_same_sites() -> None:
    index, labels = made_cohort(1000, 800)
    split, matrix = divided(index, labels)
    for part in PARTS:
        here = (split["part"] == part).to_numpy()
        assert matrix[here].mean() == pytest.approx(0.3, abs=0.04)
        assert (split["site"][here] == "site-0").mean() == pytest.approx(0.5, abs=0.04)
    assert split.groupby("part")["patient"].nunique().to_dict() == {"test": 120, "train": 560, "validation": 120}


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    index, labels = made_cohort(120, 100)
    first, _ = divided(index, labels)
    again, _ = divided(index.sample(frac=1, random_state=1), labels.sample(frac=1, random_state=2))
    other, _ = divided(index, labels, section=SplitSection(seed=18))
    assert first["part"].tolist() == again["part"].tolist()
    assert first["part"].tolist() != other["part"].tolist()


@pytest.mark.parametrize("number", range(200, 210))
def test_one_more_patient_moves_at_most_six_others(number: int) -> None:
    index, labels = made_cohort(200, 200)
    more = pd.concat([index, made_index([number]).assign(image="2.25.9", study="2.25.8", pixel_hash=digest("another"))])
    told = pd.concat([labels, pd.DataFrame({"image": ["2.25.9"], "pneumonia": [float(number % 2)]})])
    before, _ = divided(index, labels)
    after, _ = divided(more, told)
    both = before.merge(after, on="image")
    assert (both["part_x"] != both["part_y"]).sum() <= 6


def test_a_tenth_more_patients_leave_nearly_all_where_they_were() -> None:
    index, labels = made_cohort(440, 440)
    before, _ = divided(index[:400], labels[:400])
    after, _ = divided(index, labels)
    both = before.merge(after, on="image")
    assert (both["part_x"] == both["part_y"]).mean() > 0.97


def test_images_are_one_group_through_patient_study_or_pixels() -> None:
    index = made_index([0, 0, 1, 2, 3, 4])
    index.loc[2, "study"] = index.loc[1, "study"]
    index.loc[3, "pixel_hash"] = index.loc[2, "pixel_hash"]
    groups = division.groups(index)
    assert len(set(groups[:4])) == 1
    assert len({groups[0], groups[4], groups[5]}) == 3


def test_unknown_pixels_connect_nobody() -> None:
    index = made_index([0, 1]).assign(pixel_hash=None)
    assert len(set(division.groups(index))) == 2


def test_too_few_patients_of_a_class_are_counted_and_named() -> None:
    index, labels = made_cohort()
    labels["pneumonia"] = (index["patient"] == "patient-0001").astype(float)
    with pytest.raises(LeakageError, match=r"with pneumonia: 1 patients, 2 missing .*ingest more patients"):
        divided(index, labels)


def test_no_images_at_all_are_too_few() -> None:
    index, labels = made_cohort()
    with pytest.raises(LeakageError, match="with pneumonia: 0 patients, 3 missing; without pneumonia: 0 patients, 3 missing"):
        divided(index, labels[:0])


def test_three_patients_of_a_rare_class_go_to_one_part_each() -> None:
    index, labels = made_cohort(100, 100)
    labels["pneumonia"] = [1.0] * 3 + [0.0] * 97
    split, matrix = divided(index, labels)
    assert sorted(split["part"][matrix[:, 0] == 1]) == sorted(PARTS)


def test_classes_that_hang_on_the_same_patients_are_refused_with_what_is_lacking() -> None:
    index = made_index([0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8])
    seven = [(0, 1, 2), (0, 3, 4), (0, 5, 6), (1, 3, 5), (1, 4, 6), (2, 3, 6), (2, 4, 5)]
    index = made_index(list(range(7)) * 2)
    task = Task("multilabel", tuple(f"line{number}" for number in range(7)))
    findings = {
        name: [float(row in line) if row < 7 else 0.0 for row in range(14)]
        for name, line in zip(task.targets, seven, strict=True)
    }
    with pytest.raises(LeakageError, match=r"found no way to give every part every class .*lacks with line"):
        divided(index, pd.DataFrame({"image": index["image"], **findings}), task)


@pytest.mark.parametrize("column", ["age_years", "hospital"])
def test_a_column_that_cannot_be_balanced_is_refused(column: str) -> None:
    index, labels = made_cohort()
    with pytest.raises(ConfigurationError, match=rf"split.stratify_by: expected any of site, .*got {column}"):
        divided(index, labels, section=SplitSection(stratify_by=("site", column)))


def test_unknown_sites_are_a_stratum_of_their_own() -> None:
    index, labels = made_cohort(200, 200)
    split, _ = divided(index.assign(site=[None] * 100 + ["site"] * 100), labels)
    test = split[split["part"] == "test"]
    assert test["site"].isna().sum() == pytest.approx(15, abs=1)


@pytest.mark.parametrize(
    ("quotas", "total", "caps", "expected"),
    [
        ([1.5, 2.5, 3.0], 7, [9, 9, 9], [2, 2, 3]),
        ([0.15] * 5, 1, [1] * 5, [1, 0, 0, 0, 0]),
        ([0.15] * 5, 1, [0, 1, 1, 1, 1], [0, 1, 0, 0, 0]),
        ([3.0, 3.0], 6, [1, 9], [1, 5]),
        ([3.0], 5, [2], [2]),
    ],
)
def test_quotas_are_apportioned_by_largest_remainder(
    quotas: list[float], total: int, caps: list[int], expected: list[int]
) -> None:
    assert division.apportion(quotas, total, caps).tolist() == expected
