"""The pretrain stage on a tiny workspace: whom it looks at, what it publishes, and that it serves as a source."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from rich.progress import Progress
from tiny_workspace import save_tiny, write_workspace

from pipelines import files
from pipelines.config import Config
from pipelines.errors import ConfigurationError, MissingInputError, TrainingError, WeightsError
from pipelines.models import passports
from pipelines.paths import Paths
from pipelines.quality.leakage import split_sha256
from pipelines.stages import pretrain, train


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path / "weights"))
    return write_workspace(tmp_path / "workspace")


def config(**changes: object) -> Config:
    own = {"backbone": "resnet10", "weights": "scratch", "epochs": 1, "batch_size": 12, "method": "vicreg", "device": "cpu"}
    learns = {"backbone": "resnet10", "weights": "ssl", "epochs": 1, "batch_size": 12, "device": "cpu"}
    task = {"kind": "binary", "targets": ["left"]}
    return Config.model_validate({"task": task, "pretrain": {**own, **changes}, "train": learns})


def test_what_it_learns_is_a_source_like_any_other(paths: Paths) -> None:
    summary = pretrain.run(config(), paths)
    assert "radtransfer train --set train.backbone=resnet10 --set train.weights=ssl" in summary.describe()
    passport = passports.find("ssl", "resnet10", download=False).passport
    assert passport.source == "ssl"
    assert passport.trained_on == "36 radiographs of 18 patients, without labels"
    assert "vicreg (Bardes et al., ICLR 2022), 1 epochs from random weights" in passport.notes
    assert train.run(config(), paths).weights == "ssl"
    assert not paths.pretraining.exists()


def save_another(folder: Path, name: str, source: str) -> passports.Found:
    network = pretrain.starting.start("resnet10", "scratch", outputs=1, dropout=0.0, seed=8).network
    facts = {"name": name, "source": source, "licence": "none", "trained_on": "nothing"}
    return passports.save_backbone(network, folder / f"{name}.safetensors", **facts)


def test_the_command_that_it_names_trains_from_what_it_made_whatever_else_is_there(paths: Paths, tmp_path: Path) -> None:
    save_another(tmp_path / "weights", "our-vic", "ssl")
    assert "--set train.weights=ssl[" in pretrain.run(config(), paths).describe()
    assert train.run(config(), paths).weights == "ssl"


@pytest.mark.parametrize("name", ["imagenet", "scratch", "medical", "torchvision-resnet18-v1", "vendor"])
def test_a_name_that_stands_for_other_weights_is_refused_before_any_epoch(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    save_another(tmp_path / "weights", "theirs", "vendor")
    monkeypatch.setattr(pretrain, "pretrain", lambda *_: pytest.fail("learned already"))
    with pytest.raises(ConfigurationError, match=rf"pretrain\.name: expected a name of its own, {name} stands for other weights"):
        pretrain.run(config(name=name), paths)


def test_a_passport_of_a_file_of_another_kind_is_not_replaced(paths: Paths, tmp_path: Path) -> None:
    held = save_another(tmp_path / "weights", "ours", "medical")
    held.path.rename(held.path.with_suffix(".pt"))
    with pytest.raises(TrainingError, match=r"pretrain\.name: expected a free name, .*ours\.json came from another training"):
        pretrain.run(config(name="ours"), paths)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet99"}, r"^params\.yaml pretrain\.backbone: expected one of"),
        ({"backbone": "timm:no_such"}, r"^params\.yaml pretrain\.backbone: timm has no model"),
        ({"weights": "nothing"}, r"^params\.yaml pretrain\.weights: expected a passport"),
    ],
)
def test_an_error_names_the_key_of_this_stage(paths: Paths, changes: dict[str, str], message: str) -> None:
    with pytest.raises((ConfigurationError, WeightsError), match=message):
        pretrain.run(config(**changes), paths)


def test_a_training_in_between_does_not_cost_what_an_interrupted_pretraining_has_done(paths: Paths, tmp_path: Path) -> None:
    class Killed(pretrain._Display):
        def epoch_ended(self, epoch: int, loss: float, spread: float) -> None:
            raise KeyboardInterrupt

    save_tiny(tmp_path / "weights", seed=4)
    with Progress() as progress, pytest.raises(KeyboardInterrupt):
        pretrain.run(config(epochs=2), paths, Killed(progress, 2, 36))
    settings = config(epochs=2)
    train.run(settings.model_copy(update={"train": settings.train.model_copy(update={"weights": "tiny"})}), paths)
    assert pretrain.run(settings, paths).resumed_from_epoch == 1


def test_no_patient_who_is_judged_on_is_looked_at(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    index, split = pd.read_parquet(paths.index), pd.read_parquet(paths.split)
    unlabelled = index["patient"].isin(["patient-0", "patient-3"])  # patients of the train and of the validation part
    one_each = index[unlabelled].groupby("patient")["image"].first()
    files.write_table(paths.split, split[~split["image"].isin(one_each)])
    seen: list[int] = []
    learn = pretrain.pretrain

    def watched(network, examples, *rest):
        seen.extend(examples.shards * 20 + examples.rows)
        return learn(network, examples, *rest)

    monkeypatch.setattr(pretrain, "pretrain", watched)
    summary = pretrain.run(config(), paths)
    judged = set(split.loc[split["part"] == "validation", "patient"])
    assert {f"patient-{number // 2}" for number in seen}.isdisjoint(judged)
    assert {0, 1} <= set(seen)
    assert (summary.images, summary.patients, summary.held_out) == (36, 18, 24)


def test_nor_is_an_image_of_their_studies_or_with_their_pixels_whoevers_it_is(paths: Paths) -> None:
    index, split = pd.read_parquet(paths.index), pd.read_parquet(paths.split)
    judged = index[index["image"].isin(split.loc[split["part"] == "validation", "image"])].reset_index(drop=True)
    for number, column in enumerate(("study", "pixel_hash")):
        index.loc[4 * number, column] = judged.loc[number, column]  # of two patients of the train part
    files.write_table(paths.index, index)
    summary = pretrain.run(config(), paths)
    assert (summary.images, summary.held_out) == (32, 28)


def test_it_starts_from_the_weights_that_the_configuration_names(paths: Paths, tmp_path: Path) -> None:
    save_tiny(tmp_path / "weights", seed=4)
    assert pretrain.run(config(weights="tiny", name="mine"), paths).start == "tiny"
    assert "from tiny (Apache-2.0)" in passports.find("mine", "resnet10", download=False).passport.notes


def test_the_passport_says_of_which_split_nobody_who_is_judged_on_was_looked_at(paths: Paths) -> None:
    def told(name: str) -> bool:
        mark = f"part of split {split_sha256(pd.read_parquet(paths.split))[:16]} was looked at"
        return mark in passports.find(name, "resnet10", download=False).passport.notes

    pretrain.run(config(name="first"), paths)
    assert told("first")
    split = pd.read_parquet(paths.split)
    swapped = {"train": "validation", "validation": "train"}
    files.write_table(paths.split, split.assign(part=split["part"].map(swapped)))
    assert not told("first")
    pretrain.run(config(name="second", weights="first"), paths)
    assert not told("second")
    pretrain.run(config(name="third"), paths)
    assert told("third")


def test_running_twice_gives_the_same_bytes(paths: Paths, tmp_path: Path) -> None:
    pretrain.run(config(), paths)
    first = {path.name: path.read_bytes() for path in (tmp_path / "weights").iterdir()}
    pretrain.run(config(), paths)
    assert {path.name: path.read_bytes() for path in (tmp_path / "weights").iterdir()} == first


def test_weights_of_another_training_are_not_replaced(paths: Paths, tmp_path: Path) -> None:
    save_tiny(tmp_path / "weights", seed=4)
    with pytest.raises(TrainingError, match=r"pretrain.name: expected a free name, .*tiny.safetensors and .*tiny.json came from"):
        pretrain.run(config(name="tiny"), paths)


def test_an_image_size_that_the_network_cannot_take_is_refused(paths: Paths) -> None:
    with pytest.raises(ConfigurationError, match=r"prepare.size: expected .* for inception_v3, got 48"):
        pretrain.run(config(backbone="inception_v3"), paths)


def test_it_needs_a_split_so_that_test_patients_are_known(paths: Paths) -> None:
    paths.split.unlink()
    with pytest.raises(MissingInputError, match="split"):
        pretrain.run(config(), paths)


def test_the_passport_holds_no_path_and_no_patient(paths: Paths, tmp_path: Path) -> None:
    pretrain.run(config(), paths)
    text = json.dumps(json.loads((tmp_path / "weights" / "ssl.json").read_text()))
    assert "patient-" not in text
    assert str(tmp_path) not in text
