"""The rank stage on a tiny workspace: it tells a good network from a bad one, and looks at training patients only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_workspace import save_blind, save_tiny, write_workspace

from pipelines import files
from pipelines.config import Config
from pipelines.errors import ConfigurationError, TrainingError, WeightsError
from pipelines.models import passports
from pipelines.paths import Paths
from pipelines.stages import rank


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path / "weights"))
    return write_workspace(tmp_path / "workspace")


def config(task: dict[str, object] | None = None, **changes: object) -> Config:
    own = {"device": "cpu", "bootstrap": 100, **changes}
    task = task or {"kind": "multilabel", "targets": ["left", "right"]}
    return Config.model_validate({"task": task, "rank": own, "train": {"backbone": "resnet10"}})


def test_a_network_that_sees_nothing_stands_last(paths: Paths, tmp_path: Path) -> None:
    save_blind(tmp_path / "weights")
    summary = rank.run(config(), paths)
    assert {place.candidate for place in summary.places} == {"resnet10@tiny", "resnet10@blind", "resnet10@scratch"}
    last = summary.places[-1]
    assert last.candidate == "resnet10@blind"
    assert last.probe["value"] < 0.6
    assert summary.places[0].probe["value"] > 0.8
    assert summary.recommended == summary.places[0].candidate
    assert summary.places[0].behind["value"] == 0
    assert not last.tied
    assert "not even its features" not in summary.describe()


def test_what_is_written_is_what_is_said_and_the_features_are_drawn(paths: Paths, tmp_path: Path) -> None:
    save_tiny(tmp_path / "weights", seed=4)
    summary = rank.run(config(), paths)
    written = json.loads((paths.ranking / "ranking.json").read_text())
    assert written["recommended"] == summary.recommended
    assert [place["candidate"] for place in written["places"]] == [place.candidate for place in summary.places]
    assert (paths.ranking / "features.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("candidate", "settings"), [("resnet10@tiny", "train.weights=tiny"), ("resnet10@scratch", "train.strategy.name=scratch")]
)
def test_the_command_that_it_names_trains_the_candidate(paths: Paths, tmp_path: Path, candidate: str, settings: str) -> None:
    save_tiny(tmp_path / "weights", seed=4)
    described = rank.run(config(candidates=[candidate]), paths).describe()
    assert f"radtransfer train --set train.backbone=resnet10 --set {settings}" in described


def test_features_that_do_not_tell_the_label_are_said_not_to(paths: Paths, tmp_path: Path) -> None:
    save_blind(tmp_path / "weights")
    assert "not even its features surely tell the label" in rank.run(config(candidates=["resnet10@blind"]), paths).describe()


def test_features_are_computed_once(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny(tmp_path / "weights", seed=4)
    first = rank.run(config(), paths)
    monkeypatch.setattr("pipelines.training.material._computed", lambda *_: pytest.fail("features were computed again"))
    again = rank.run(config(), paths)
    assert [place.seconds[0] for place in again.places] == [0.0, 0.0]
    assert [place.probe for place in again.places] == [place.probe for place in first.places]


def test_features_of_another_version_are_not_used(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny(tmp_path / "weights", seed=4)
    settings = config(candidates=["resnet10@tiny"])
    rank.run(settings, paths)
    monkeypatch.setattr(rank, "__version__", "0.0.0")
    assert rank.run(settings, paths).places[0].seconds[0] > 0


def test_only_training_patients_are_looked_at(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny(tmp_path / "weights", seed=4)
    seen: list[int] = []
    extract = rank.extract

    def watched(network, parts, *rest):
        seen.extend(parts[0].shards * 20 + parts[0].rows)
        return extract(network, parts, *rest)

    monkeypatch.setattr(rank, "extract", watched)
    rank.run(config(candidates=["resnet10@tiny"]), paths)
    split = pd.read_parquet(paths.split).set_index("image")["part"]
    assert {split[f"2.25.{number}"] for number in seen} == {"train"}


def test_of_many_images_whole_patients_are_drawn(paths: Paths, tmp_path: Path) -> None:
    save_tiny(tmp_path / "weights", seed=4)
    summary = rank.run(config(max_images=21, candidates=["resnet10@tiny"]), paths)
    assert (summary.images, summary.patients) == (20, 10)


def test_a_patient_with_more_images_than_may_be_looked_at_is_said(paths: Paths, tmp_path: Path) -> None:
    index = pd.read_parquet(paths.index)
    index.assign(patient="only").to_parquet(paths.index)
    with pytest.raises(TrainingError, match=r"at most 20, of whole patients, got at least \d+ of every patient; raise rank.max_"):
        rank.run(config(max_images=20, candidates=["resnet10@tiny"]), paths)


def test_a_train_part_without_labels_is_said(paths: Paths, tmp_path: Path) -> None:
    labels = pd.read_parquet(paths.labels)
    labels.assign(left=np.nan, right=np.nan).to_parquet(paths.labels)
    with pytest.raises(TrainingError, match=r"expected labelled images in the train part, .* got none; add labels"):
        rank.run(config(candidates=["resnet10@tiny"]), paths)


def test_classes_of_which_one_is_true_are_ranked_too(paths: Paths, tmp_path: Path) -> None:
    save_tiny(tmp_path / "weights", seed=4)
    task = {"kind": "multiclass", "targets": ["kind"], "classes": ["none", "left", "right"]}
    assert rank.run(config(task=task, candidates=["resnet10@tiny"]), paths).places[0].probe["value"] > 0.7


def test_a_candidate_that_cannot_be_used_is_left_out_and_said_unless_it_was_named(paths: Paths, tmp_path: Path) -> None:
    found = save_tiny(tmp_path / "weights", seed=4)
    (tmp_path / "weights" / "broken.safetensors").write_bytes(b"nonsense")
    passport = json.loads(found.path.with_suffix(".json").read_text())
    (tmp_path / "weights" / "broken.json").write_text(json.dumps({**passport, "name": "broken", "file": "broken.safetensors"}))
    summary = rank.run(config(), paths)
    assert list(summary.skipped) == ["resnet10@broken"]
    assert "left out resnet10@broken" in summary.describe()
    with pytest.raises(WeightsError, match=r"expected SHA-256"):
        rank.run(config(candidates=["resnet10@broken"]), paths)


@pytest.mark.parametrize("multi_label", [False, True])
def test_leep_is_for_a_source_that_decides_between_classes(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, multi_label: bool
) -> None:
    found = save_tiny(tmp_path / "weights", seed=4)
    passport = found.path.with_suffix(".json")
    passport.write_text(json.dumps({**json.loads(passport.read_text()), "multi_label": multi_label}))
    monkeypatch.setattr(rank, "source_head", lambda found, width: (np.ones((3, width)), np.arange(3.0)))
    summary = rank.run(config(candidates=["resnet10@tiny"]), paths)
    assert ("leep" in summary.places[0].scores) is not multi_label
    reason = "its source's classifier says several things of an image at once"
    assert (f"no leep for resnet10@tiny: {reason}" in summary.describe()) is multi_label
    assert list(summary.places[0].unscored) == ["leep"] * multi_label


@pytest.mark.parametrize("candidate", ["resnet10", "@tiny", "resnet10@"])
def test_a_candidate_is_a_network_and_its_weights(paths: Paths, candidate: str) -> None:
    with pytest.raises(ConfigurationError, match=r"rank.candidates: expected BACKBONE@WEIGHTS, got"):
        rank.run(config(candidates=[candidate]), paths)


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        ("foo@imagenet", r"^params\.yaml rank\.candidates: expected one of resnet10, .*, got 'foo'"),
        ("timm:foo@imagenet", r"^params\.yaml rank\.candidates: timm has no model 'foo'"),
        ("resnet10@nothing", r"^params\.yaml rank\.candidates: expected a passport for resnet10"),
    ],
)
def test_a_candidate_that_does_not_exist_is_said_to_be_one(paths: Paths, candidate: str, message: str) -> None:
    with pytest.raises((ConfigurationError, WeightsError), match=message):
        rank.run(config(candidates=[candidate]), paths)


def test_two_self_supervised_networks_are_two_candidates(paths: Paths, tmp_path: Path) -> None:
    for name, seed in (("our-vic", 4), ("ssl", 5)):
        network = rank.starting.start("resnet10", "scratch", outputs=1, dropout=0.0, seed=seed).network
        facts = {"name": name, "source": "ssl", "licence": "none", "trained_on": "nothing"}
        passports.save_backbone(network, tmp_path / "weights" / f"{name}.safetensors", **facts)
    places = {place.candidate: place for place in rank.run(config(), paths).places}
    assert places["resnet10@ssl"].scores != places["resnet10@our-vic"].scores


def test_an_image_size_that_a_named_network_cannot_take_is_refused(paths: Paths) -> None:
    with pytest.raises(ConfigurationError, match=r"prepare.size: expected"):
        rank.run(config(candidates=["inception_v3@scratch"]), paths)


def test_a_finding_of_one_patient_cannot_be_ranked_by(paths: Paths, tmp_path: Path) -> None:
    save_tiny(tmp_path / "weights", seed=4)
    labels = pd.read_parquet(paths.labels)
    files.write_table(paths.labels, labels.assign(left=np.where(labels["image"] == "2.25.1", 1.0, 0.0), right=np.nan))
    with pytest.raises(TrainingError, match=r"at least two patients with, and two without, each finding"):
        rank.run(config(task={"kind": "binary", "targets": ["left"]}), paths)
