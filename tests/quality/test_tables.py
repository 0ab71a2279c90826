from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_tables import made_cohort, made_index

from pipelines.quality import tables
from pipelines.records import Head, Task

BINARY = Task("binary", ("pneumonia",))


def test_only_prepared_and_labelled_images_are_usable() -> None:
    index, labels = made_cohort()
    index.loc[0, "left_out"] = "undecodable_pixels"
    labels.loc[1, "pneumonia"] = np.nan
    images, matrix = tables.usable(index, labels.drop(index=2), BINARY)
    assert set(index["image"]) - set(images["image"]) == {"2.25.1000", "2.25.1001", "2.25.1002"}
    assert len(matrix) == 57


def test_labels_follow_their_image_whatever_the_order_of_the_tables() -> None:
    index, labels = made_cohort()
    shuffled = labels.sample(frac=1, random_state=3)
    images, matrix = tables.usable(index.sample(frac=1, random_state=4), shuffled, BINARY)
    assert images["image"].is_monotonic_increasing
    expected = labels.set_index("image").loc[images["image"], "pneumonia"]
    assert matrix[:, 0].tolist() == expected.tolist()


def test_an_image_with_one_known_label_of_several_is_usable() -> None:
    index = made_index([0, 1])
    labels = pd.DataFrame({"image": index["image"], "mass": [np.nan, np.nan], "effusion": [1.0, np.nan]})
    images, matrix = tables.usable(index, labels, Task("multilabel", ("mass", "effusion")))
    assert images["image"].tolist() == ["2.25.1000"]
    assert np.isnan(matrix[0, 0])
    assert matrix[0, 1] == 1


@pytest.mark.parametrize("value", [2.0, -1.0, "yes", None])
def test_what_is_no_label_counts_as_unknown(value: object) -> None:
    matrix = tables.label_matrix(pd.DataFrame({"pneumonia": pd.Series([value, 1.0], dtype=object)}), BINARY)
    assert np.isnan(matrix[0, 0])
    assert matrix[1, 0] == 1


def test_signatures_tell_known_from_unknown() -> None:
    assert tables.signatures(np.array([[1, 0], [np.nan, 1]], dtype=np.float32)) == ["10", "?1"]


def test_identical_images_contradict_each_other_in_any_task_but_not_by_a_missing_label() -> None:
    index = made_index([0, 1, 2, 3, 4])
    index["pixel_hash"] = ["a", "a", "b", "b", "c"]
    labels = pd.DataFrame({"image": index["image"], "pneumonia": [1.0, np.nan, 0.0, 0.0, 1.0], "age": [7.0, 7.0, 3.0, 5.0, 5.0]})
    further = Head("regression", ("age",), name="age", unit="years")

    def counted(labels: pd.DataFrame, task: Task) -> list[int]:
        return list(tables.build(index, labels, task)["cohort"]["labellings_of_these_pixels"])

    assert counted(labels, Task("binary", ("pneumonia",), also=(further,))) == [1, 1, 2, 2, 1]
    assert counted(labels.assign(pneumonia=[1.0, 0.0, 0.0, 0.0, 1.0]), BINARY) == [2, 2, 1, 1, 1]


def test_classes_count_images_and_patients_on_both_sides() -> None:
    index = made_index([0, 0, 1, 2])
    labels = pd.DataFrame({"image": index["image"], "pneumonia": [1.0, 1.0, 0.0, np.nan]})
    (row,) = tables.build(index, labels, BINARY)["classes"].to_dict("records")
    assert row == {
        "output": "pneumonia",
        "images_with": 2,
        "images_without": 1,
        "patients_with": 1,
        "patients_without": 1,
        "prevalence": pytest.approx(2 / 3),
    }


def test_raw_detector_data_count_as_left_out_by_choice() -> None:
    index, labels = made_cohort()
    index.loc[[0, 1, 2], "left_out"] = ["undecodable_pixels", "raw_for_processing", "raw_for_processing"]
    unusable = tables.build(index, labels, BINARY)["index"]["unusable"]
    assert unusable.dropna().tolist() == ["undecodable_pixels"]
