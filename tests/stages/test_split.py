from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_tables import made_cohort

from pipelines import files
from pipelines.config import Config, SplitSection, TaskSection
from pipelines.errors import LeakageError, MissingInputError, QualityError
from pipelines.paths import Paths
from pipelines.quality import leakage
from pipelines.records import PARTS, SPLIT
from pipelines.stages import check, split

CONFIG = Config(task=TaskSection(targets=("pneumonia",)))


def stored(folder: Path, index: pd.DataFrame, labels: pd.DataFrame) -> Paths:
    """A workspace whose data passed `check`."""
    paths = Paths(folder)
    files.write_table(paths.index, index)
    files.write_table(paths.labels, labels)
    inputs = {"index": files.sha256(paths.index), "labels": files.sha256(paths.labels)}
    files.write_json(paths.quality_result, {"passed": True, "expectations": [], "inputs": inputs})
    return paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return stored(tmp_path, *made_cohort())


def test_a_patient_never_spans_splits(paths: Paths) -> None:
    split.run(CONFIG, paths)
    table = pd.read_parquet(paths.split)
    assert [*table.columns] == [*SPLIT]
    assert table["image"].is_monotonic_increasing
    assert set(table["part"]) == set(PARTS)
    assert (table.groupby("patient")["part"].nunique() == 1).all()


def test_the_certificate_is_that_of_the_split(paths: Paths) -> None:
    summary = split.run(CONFIG, paths)
    certificate = json.loads(paths.leakage.read_text())
    assert certificate["clean"] is True
    assert certificate["split_sha256"] == leakage.split_sha256(pd.read_parquet(paths.split)) == summary.split_sha256
    assert sum(part["images"] for part in certificate["parts"].values()) == summary.images == 60
    assert "40 patients" in summary.describe()


def test_splitting_twice_gives_the_same_bytes_and_another_seed_another_split(paths: Paths) -> None:
    split.run(CONFIG, paths)
    first = paths.split.read_bytes(), paths.leakage.read_bytes()
    split.run(CONFIG, paths)
    assert (paths.split.read_bytes(), paths.leakage.read_bytes()) == first
    split.run(CONFIG.model_copy(update={"split": SplitSection(seed=18)}), paths)
    assert paths.split.read_bytes() != first[0]


def test_only_prepared_and_labelled_images_are_split(tmp_path: Path) -> None:
    index, labels = made_cohort()
    index.loc[0, "left_out"] = "undecodable_pixels"
    labels.loc[1, "pneumonia"] = np.nan
    paths = stored(tmp_path, index, labels)
    assert split.run(CONFIG, paths).images == 58
    assert not set(pd.read_parquet(paths.split)["image"]) & {"2.25.1000", "2.25.1001"}


def test_near_duplicates_are_told(tmp_path: Path) -> None:
    index, labels = made_cohort()
    paths = stored(tmp_path, index.assign(perceptual_hash="0" * 16), labels)
    summary = split.run(CONFIG, paths)
    assert summary.near_duplicate_pairs > 100
    assert "look almost alike" in summary.describe()


def test_what_check_passes_can_be_split(paths: Paths) -> None:
    paths.quality_result.unlink()
    check.run(CONFIG, paths)
    assert split.run(CONFIG, paths).patients == 40


def test_data_that_did_not_pass_check_are_not_split(paths: Paths) -> None:
    failed = {"name": "age in range", "severity": "error", "passed": False}
    files.write_json(paths.quality_result, {"passed": False, "expectations": [failed]})
    with pytest.raises(QualityError, match=r"check did not pass \(age in range\)"):
        split.run(CONFIG, paths)
    assert not paths.split.exists()


def test_data_that_changed_after_check_are_not_split(paths: Paths) -> None:
    files.write_table(paths.labels, made_cohort()[1].assign(pneumonia=1.0))
    with pytest.raises(MissingInputError, match=r"another version of labels\.parquet; run `radtransfer check` again"):
        split.run(CONFIG, paths)


def test_split_before_check_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="`radtransfer check` writes"):
        split.run(CONFIG, Paths(tmp_path))


def test_a_splitter_that_leaks_is_stopped_by_the_certificate(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "partition", lambda images, *_: np.array(PARTS, dtype=object)[np.arange(len(images)) % 3])
    with pytest.raises(LeakageError, match=r"× patient in more than one part"):
        split.run(CONFIG, paths)
    assert not paths.split.exists()
    assert not paths.leakage.exists()
