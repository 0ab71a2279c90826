"""Training for a hospital without labels: whose images are looked at, what is written of it, and that it resumes to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_networks import vit
from tiny_workspace import save_tiny, write_workspace

from pipelines import files
from pipelines.config import Config
from pipelines.errors import ConfigurationError, TrainingError
from pipelines.metrics.thresholds import choose
from pipelines.paths import Paths
from pipelines.stages import train
from pipelines.training import adaptation_outcome
from pipelines.training.assembly import assemble
from pipelines.training.listener import Silence, Step
from pipelines.transfer.adaptation import METHODS, check_network
from pipelines.transfer.guard import Looks

OUTPUTS = ("model.safetensors", "model.json", "validation.parquet", "history.csv")
TARGET = "site-2"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny workspace with two hospitals, a test part, and labels wherever they were."""
    paths = write_workspace(tmp_path_factory.mktemp("template"))
    index, split = pd.read_parquet(paths.index), pd.read_parquet(paths.split)
    number = index["patient"].str.removeprefix("patient-").astype(int)
    index["site"] = ["site-1" if patient % 2 else TARGET for patient in number]
    files.write_table(paths.index, index.assign(study=index["patient"], pixel_hash=index["image"]))
    tested = split["patient"].isin([f"patient-{patient}" for patient in range(4, 30, 5)])
    files.write_table(paths.split, split.assign(part=split["part"].where(~tested, "test")))
    return paths.workspace


@pytest.fixture
def paths(template: Path, tmp_path: Path) -> Paths:
    shutil.copytree(template, tmp_path / "workspace")
    return Paths(tmp_path / "workspace")


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path / "weights"))
    save_tiny(tmp_path / "weights", seed=4)


def config(method: str | None = "mmd", strategy: str = "full", **changes: Any) -> Config:
    adaptation = {"method": method, "sites": [TARGET] if method else [], **changes.pop("adaptation", {})}
    settings = {
        "backbone": "resnet10",
        "weights": "tiny",
        "epochs": 2,
        "batch_size": 12,
        "device": "cpu",
        "strategy": {"name": strategy, **changes.pop("own", {})},
        "adaptation": adaptation,
    }
    return Config.model_validate({"task": {"kind": "binary", "targets": ["left"]}, "train": {**settings, **changes}})


def written(paths: Paths) -> dict[str, bytes]:
    return {name: (paths.model / name).read_bytes() for name in OUTPUTS}


def told(paths: Paths) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((paths.model / "model.json").read_text())["training"]["adaptation"]
    return found


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ends_in_a_model_and_says_whether_it_helped(method: str, paths: Paths) -> None:
    summary = train.run(config(method), paths, Silence())
    found = told(paths)
    assert found["verdict"] in ("helped", "did not help", "harmed", "cannot be known")
    assert summary.adaptation[0] == found["says"]
    assert found["says"] in summary.describe().replace("\\[", "[")
    assert (found["method"], found["sites"]) == (method, [TARGET])
    assert found["target"]["gain"]["value"] is not None
    assert found["source"]["gain"]["value"] is not None
    assert {"before", "after"} == set(found["apart"])
    assert not paths.checkpoint.exists()


def test_without_a_method_nothing_is_written_of_one(paths: Paths) -> None:
    summary = train.run(config(None), paths, Silence())
    assert summary.adaptation == ()
    assert "adaptation" not in json.loads((paths.model / "model.json").read_text())["training"]


@pytest.mark.parametrize("method", ["coral", "dann", "adabn"])
def test_labels_of_the_target_have_no_influence(method: str, paths: Paths) -> None:
    train.run(config(method), paths, Silence())
    first, judged = written(paths), told(paths)
    labels, index = pd.read_parquet(paths.labels), pd.read_parquet(paths.index)
    ours = labels["image"].isin(index.loc[index["site"] == TARGET, "image"])
    labels.loc[ours, "left"] = 1 - labels.loc[ours, "left"]
    files.write_table(paths.labels, labels)
    train.run(config(method), paths, Silence())
    again = written(paths)
    assert again["model.safetensors"] == first["model.safetensors"]
    assert again["history.csv"] == first["history.csv"]
    assert again["validation.parquet"] == first["validation.parquet"]
    assert told(paths)["target"] != judged["target"]  # where they do judge


def test_the_target_is_no_patient_of_the_validation_or_test_part(paths: Paths) -> None:
    settings = config("mmd", adaptation={"control": False})
    assembled = assemble(settings, paths)
    assert assembled.target is not None
    learnt, held_out = assembled.target.learnt.rows, assembled.target.held_out.rows
    split = pd.read_parquet(paths.split)
    judged = set(split.loc[split["part"] != "train", "patient"])
    assert not set(learnt["patient"]) & judged
    assert not set(held_out["patient"]) & set(split.loc[split["part"] == "test", "patient"])
    assert not set(learnt["patient"]) & set(held_out["patient"])
    assert np.isnan(assembled.target.learnt.examples.labels).all()
    assert not np.isnan(assembled.target.held_out.examples.labels).all()
    index = pd.read_parquet(paths.index).set_index("image")
    assert set(index.loc[[*learnt["image"], *held_out["image"]], "site"]) == {TARGET}
    for part in (assembled.train, assembled.validation):
        assert set(index.loc[part.rows["image"], "site"]) == {"site-1"}
    tested = split[(split["part"] == "test") & split["image"].map(index["site"]).eq(TARGET)]
    assert assembled.target.tested == len(tested) > 0


@pytest.mark.parametrize("method", ["dann", "mmd"])
def test_a_training_killed_in_control_or_adaptation_resumes_to_the_same_bytes(method: str, paths: Paths) -> None:
    train.run(config(method), paths, Silence())
    first = written(paths)
    for network in (1, 2):  # of the control and of the adapted one, killed in the second epoch
        with pytest.raises(KeyboardInterrupt):
            train.run(config(method), paths, Killed(network))
        assert paths.checkpoint.exists()
        notes = Killed(0)
        train.run(config(method), paths, notes)
        assert "resumed after epoch 1" in notes.notes
        assert written(paths) == first
        assert not paths.checkpoint.exists()


class Killed(Silence):
    """Ends the training in the second epoch of the first or the second network."""

    def __init__(self, network: int) -> None:
        self.notes: list[str] = []
        self._network, self._seconds = network, 0

    def noted(self, text: str) -> None:
        self.notes.append(text)

    def epoch_started(self, epoch: int, epochs: int, images: int) -> None:
        self._seconds += epoch == 2

    def stepped(self, step: Step) -> None:
        if step.epoch == 2 and self._seconds == self._network:
            raise KeyboardInterrupt


def test_without_named_sites_the_target_is_what_has_no_label_and_nobody_can_know(paths: Paths) -> None:
    split, index = pd.read_parquet(paths.split), pd.read_parquet(paths.index)
    ours = index.loc[index["site"] == TARGET, "image"]
    labels = pd.read_parquet(paths.labels)
    files.write_table(paths.split, split[~split["image"].isin(ours)])
    files.write_table(paths.labels, labels[~labels["image"].isin(ours)])
    summary = train.run(config("mmd", adaptation={"sites": []}), paths, Silence())
    found = told(paths)
    assert found["verdict"] == "cannot be known"
    assert "labelled patients of the target" in summary.adaptation[0]
    assert found["target"]["gain"] is None
    assert found["held_out"]["target"]["labelled_patients"] == 0
    assert found["learnt_patients"] + found["held_out"]["target"]["patients"] == 15
    assert found["held_out"]["target"]["patients"] == 3


def test_patients_who_share_a_study_or_an_image_with_a_judged_one_are_not_learnt_from(paths: Paths) -> None:
    split, index = pd.read_parquet(paths.split), pd.read_parquet(paths.index)
    free = index["site"] == TARGET
    files.write_table(paths.split, split[~split["image"].isin(index.loc[free, "image"])])
    judged = split[(split["part"] == "test") & ~split["image"].isin(index.loc[free, "image"])].iloc[0]
    twin = index.index[free][0]
    index.loc[twin, "pixel_hash"] = judged["pixel_hash"]
    files.write_table(paths.index, index)
    target = assemble(config("mmd", adaptation={"sites": []}), paths).target
    assert target is not None
    assert target.tested == 2
    looked_at = pd.concat([target.learnt.rows, target.held_out.rows])
    assert index.loc[twin, "patient"] not in set(looked_at["patient"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adaptation": {"sites": ["site-9"]}}, r"sites of the manifest \(site-1: 30 images, 30 with labels; .*got site-9"),
        ({"adaptation": {"sites": ["site-1", "site-2"]}}, "expected to leave a site with labels"),
        ({"strategy": "feature_extraction"}, "mmd changes the features, and the backbone does not learn"),
        ({"strategy": "head_only"}, "choose adabn, or a strategy such as differential or full"),
        ({"mixup": 0.2}, "train.mixup: 0.2, whose mixtures are images of no hospital"),
        ({"method": "adabn", "own": {"batch_norm": "frozen"}}, "expected adaptive, trained or null beside adabn"),
        ({"method": "adabn", "adaptation": {"weight": 2.0}}, "expected null for adabn, which adds nothing"),
        ({"method": None, "adaptation": {"sites": [TARGET]}}, "expected nothing without a method"),
    ],
)
def test_what_cannot_be_adapted_is_refused_with_the_remedy(changes: dict[str, Any], words: str, paths: Paths) -> None:
    with pytest.raises(ConfigurationError, match=words):
        train.run(config(**changes), paths, Silence())


def test_adabn_needs_batch_norm() -> None:
    settings = config("adabn").train
    with pytest.raises(ConfigurationError, match="adabn needs batch norm, and tiny_vit has none; choose coral, mmd or dann"):
        check_network(settings, vit())


def test_too_few_images_of_the_target_are_refused(paths: Paths) -> None:
    index = pd.read_parquet(paths.index)
    few = index.index[index["site"] == TARGET][6:]
    files.write_table(paths.index, index.assign(site=index["site"].mask(index.index.isin(few), "site-1")))
    with pytest.raises(TrainingError, match="expected at least 8 images of the target to learn from, got"):
        train.run(config(), paths, Silence())


@pytest.mark.parametrize("part", ["train", "validation"])
def test_what_only_the_hospital_to_adapt_to_has_is_missed_before_anything_is_learnt(
    part: str, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, index, split = (pd.read_parquet(path) for path in (paths.labels, paths.index, paths.split))
    there = labels["image"].isin(index.loc[index["site"] != TARGET, "image"])
    of_part = labels["image"].isin(split.loc[split["part"] == part, "image"])
    files.write_table(paths.labels, labels.assign(right=(np.arange(len(labels)) % 3 == 0.0).astype(float) * ~(there & of_part)))
    monkeypatch.setattr(train, "learn", None)
    told = config()
    both = told.model_copy(update={"task": type(told.task).model_validate({"kind": "multilabel", "targets": ["left", "right"]})})
    with pytest.raises(
        TrainingError, match=f"^{part} part without the hospital to adapt to: .* found none with right; name other"
    ):
        train.run(both, paths, Silence())


def test_without_a_control_there_is_no_comparison(paths: Paths) -> None:
    train.run(config("mmd", adaptation={"control": False}), paths, Silence())
    found = told(paths)
    assert found["target"]["gain"] is None
    assert found["verdict"] == "cannot be known"
    assert "set train.adaptation.control: true" in found["says"]


def test_adabn_chooses_thresholds_by_the_statistics_of_the_source(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its network answers for the target: what it says of the source's images is no measure."""
    seen: list[Looks] = []
    monkeypatch.setattr(
        adaptation_outcome, "look", lambda *args, own=adaptation_outcome.look: seen.append(own(*args)) or seen[-1]
    )
    summary = train.run(config("adabn"), paths, Silence())
    before, after = (looks.source for looks in seen)
    chosen = [choose(looks.labels[:, 0], looks.scores[:, 0], "youden", 0.9) for looks in (before, after)]
    assert chosen[0] != pytest.approx(chosen[1], abs=1e-3)
    assert summary.thresholds["left"] == pytest.approx(chosen[0], abs=1e-5)
    assert json.loads((paths.model / "model.json").read_text())["strategy"]["batch_norm"] == "adaptive"


@pytest.mark.parametrize("classifier", ["linear", "logistic_regression", "knn", "mlp"])
def test_adabn_goes_with_every_classifier_on_cached_features(classifier: str, paths: Paths) -> None:
    train.run(config("adabn", "feature_extraction", own={"classifier": classifier}), paths, Silence())
    assert told(paths)["target"]["gain"] is not None


def test_the_log_says_who_is_looked_at_and_who_is_not(paths: Paths) -> None:
    listener = Killed(0)
    train.run(config("mmd"), paths, listener)
    assert "control: the same training without adaptation" in listener.notes
    said = next(note for note in listener.notes if note.startswith("adaptation by mmd to "))
    assert "of 9 patients, whose labels are not looked at" in said
    assert "of test patients left alone" in said


@pytest.mark.parametrize("method", ["mmd", "adabn"])
def test_the_terminal_shows_control_and_adaptation(method: str, paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    train.run(config(method, epochs=1), paths)
    assert capsys.readouterr().err.count("strategy full") == (2 if method == "mmd" else 1)


SEVERAL = {
    "kind": "binary",
    "targets": ["left"],
    "also": {
        "level": {"kind": "regression", "targets": ["age_years"]},
        "side": {"kind": "multiclass", "targets": ["kind"], "classes": ["none", "left", "right"]},
        "degree": {"kind": "ordinal", "targets": ["kind_again"], "classes": ["none", "left", "right"]},
        "other": {"kind": "binary", "targets": ["right"]},
    },
}


@pytest.fixture
def several(paths: Paths) -> Paths:
    """With labels of further tasks, one of them named as a column of the index."""
    index, labels = pd.read_parquet(paths.index), pd.read_parquet(paths.labels)
    files.write_table(paths.index, index.assign(age_years=50.0))
    number = np.arange(len(labels))
    kinds = np.array(["none", "left", "right"])[number % 3]
    further = {"age_years": number * 1.0, "kind": kinds, "kind_again": kinds, "right": number // 2 % 4 // 2 * 1.0}
    files.write_table(paths.labels, labels.assign(**further))
    return paths


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
@pytest.mark.parametrize("method", METHODS)
def test_several_tasks_are_adapted_together_and_the_main_one_is_judged(method: str, weighting: str, several: Paths) -> None:
    given = config(method, epochs=1).model_dump(by_alias=True) | {"task": {**SEVERAL, "weighting": weighting}}
    settings = Config.model_validate(given)
    assembled = assemble(settings, several)
    assert assembled.target is not None
    assert np.isnan(assembled.target.learnt.examples.labels).all()
    assert assembled.target.learnt.examples.labels.shape[1] == settings.task.declared().width
    train.run(settings, several, Silence())
    found = told(several)
    assert list(found["mean_probability"]) == ["left"]
    assert found["target"]["gain"]["value"] is not None


def test_adabn_chooses_the_thresholds_of_further_tasks_by_the_source_too(several: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Config.model_validate(config("adabn").model_dump(by_alias=True) | {"task": SEVERAL})
    adapted = train.run(settings, several, Silence())
    monkeypatch.setattr(adaptation_outcome, "adapt_batch_norm", lambda *_: None)
    assert train.run(settings, several, Silence()).thresholds == adapted.thresholds
