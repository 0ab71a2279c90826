"""Who learns and who stops: whole patients, balanced, nested, and never those who judge."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_workspace import write_workspace

from pipelines import files
from pipelines.errors import TrainingError
from pipelines.paths import Paths
from pipelines.records import Head, Task
from pipelines.training.batches import Examples
from pipelines.training.drawing import Ground, ground, order

BINARY = Task("binary", ("left",))
SIZES = (4, 8, 12, 20, 30)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    return write_workspace(tmp_path_factory.mktemp("drawing"))


@pytest.fixture(scope="module")
def common(paths: Paths) -> Ground:
    return ground(paths, BINARY, 0.2, 17)


def places(examples: Examples) -> set[tuple[int, int]]:
    return set(zip(examples.shards.tolist(), examples.rows.tolist(), strict=True))


def test_learning_stopping_and_judging_share_no_patient_and_leave_the_test_part_alone(paths: Paths, tmp_path: Path) -> None:
    own = write_workspace(tmp_path)
    split = pd.read_parquet(own.split)
    test = split["patient"].isin(sorted(split.loc[split["part"] == "validation", "patient"].unique())[::2])
    files.write_table(own.split, split.assign(part=split["part"].mask(test, "test")))
    found = ground(own, BINARY, 0.3, 17)
    patients = [set(part.rows["patient"]) for part in (found.pool, found.stopping, found.judged)]
    assert all(patients)
    assert not patients[0] & patients[1]
    assert not (patients[0] | patients[1]) & patients[2]
    assert not set.union(*patients) & set(split.loc[test, "patient"])
    parts = pd.read_parquet(own.split).set_index("image")["part"]
    assert set(parts[found.judged.rows["image"]]) == {"validation"}
    assert set(parts[[*found.pool.rows["image"], *found.stopping.rows["image"]]]) == {"train"}


def test_the_stopping_share_is_as_large_as_asked_for_and_balanced(common: Ground) -> None:
    assert len(common.stopping.rows) == 6  # whole patients of two images: at most 7
    labels = common.stopping.examples.labels
    assert 0 < labels.mean() < 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_smaller_size_lies_within_every_larger_one(common: Ground, seed: int) -> None:
    drawn = [places(common.draw(size, seed)) for size in SIZES]
    assert all(smaller < larger for smaller, larger in pairwise(drawn))
    assert drawn[-1] <= places(common.draw(None, seed))


@pytest.mark.parametrize("size", SIZES)
def test_a_draw_holds_whole_patients_of_each_class_up_to_its_size(common: Ground, size: int) -> None:
    drawn = common.draw(size, 1)
    assert len(drawn) == min(size, len(common.pool.rows))
    assert set(np.unique(drawn.labels)) == {0, 1}
    assert (np.bincount(drawn.grouped())[np.unique(drawn.grouped())] == 2).all()


def test_another_seed_draws_others_and_the_same_one_the_same(common: Ground) -> None:
    assert places(common.draw(12, 1)) == places(common.draw(12, 1)) != places(common.draw(12, 2))


def test_where_each_patient_has_one_label_every_draw_is_balanced_nested_and_the_same_again(tmp_path: Path) -> None:
    own = write_workspace(tmp_path)
    labels = pd.read_parquet(own.labels)
    patient = labels["image"].str.removeprefix("2.25.").astype(int) // 2
    files.write_table(own.labels, labels.assign(left=(patient % 3 == 0).astype(float)))
    found = ground(own, BINARY, 0.2, 17)
    share, sizes = found.pool.examples.labels.mean(), (8, 12, 16, 20, 24)
    for seed in range(5):
        drawn = [found.draw(size, seed) for size in sizes]
        assert [part.labels.sum() for part in drawn] == pytest.approx([share * size for size in sizes], abs=2.01)
        assert all(places(smaller) < places(larger) for smaller, larger in pairwise(drawn))
        assert [places(found.draw(size, seed)) for size in sizes] == [places(part) for part in drawn]


def test_a_further_task_that_the_images_cannot_judge_is_refused_with_the_settings_of_compare(paths: Paths) -> None:
    task = Task("binary", ("left",), also=(Head("binary", ("right",), name="right"),))
    found = ground(paths, task, 0.2, 17)
    found.pool.examples.labels[:, 1] = 1
    with pytest.raises(TrainingError, match=r"a draw of 12 images, task right: .*; add labels.* or use larger compare.sizes"):
        found.draw(12, 1)


def test_a_stopping_share_that_cannot_judge_a_further_task_is_named(tmp_path: Path) -> None:
    own = write_workspace(tmp_path)
    task = Task("binary", ("left",), also=(Head("binary", ("right",), name="right"),))
    stops = set(ground(own, task, 0.2, 17).stopping.rows["image"])
    labels = pd.read_parquet(own.labels)
    files.write_table(own.labels, labels.assign(right=labels["right"].where(~labels["image"].isin(stops), 1.0)))
    with pytest.raises(
        TrainingError, match=r"share of the train part for early stopping, task right: .* change compare.stopping"
    ):
        ground(own, task, 0.2, 17)


def test_a_size_that_cannot_hold_every_class_is_refused(common: Ground) -> None:
    with pytest.raises(TrainingError, match=r"compare.sizes: expected images enough .* got 1"):
        common.draw(1, 1)


def test_every_beginning_is_balanced() -> None:
    labels = np.repeat([0.0, 1.0], [300, 100]).astype(np.float32)[:, None]
    chosen = order(labels, np.arange(400), BINARY, 5)
    assert sorted(chosen) == list(range(400))
    for size in (2, 20, 100, 200):
        assert labels[chosen[:size]].sum() == pytest.approx(size / 4, abs=1.01)


def test_images_that_share_a_study_or_pixels_stay_together() -> None:
    labels = np.tile([0.0, 1.0], 20).astype(np.float32)[:, None]
    group = np.arange(40) // 4
    assert sorted(order(labels, group, BINARY, 5)) == list(range(10))


def test_too_few_patients_are_named(paths: Paths, tmp_path: Path) -> None:
    own = write_workspace(tmp_path)
    labels = pd.read_parquet(own.labels)
    files.write_table(own.labels, labels.assign(left=(labels["image"] == "2.25.1").astype(float)))
    with pytest.raises(TrainingError, match=r"expected patients with and without each finding, found none with left"):
        ground(own, BINARY, 0.2, 17)
