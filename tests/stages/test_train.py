"""The train stage on a tiny workspace: what it writes, and that neither a second run nor a kill changes a byte of it."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from rich.progress import Progress
from tiny_workspace import SIZE, save_tiny, write_workspace

from pipelines import files
from pipelines.config import Config
from pipelines.errors import ConfigurationError, MissingInputError, TrainingError, WeightsError
from pipelines.imaging.radiograph import Recipe
from pipelines.inference import Model
from pipelines.metrics.discrimination import auroc
from pipelines.metrics.thresholds import choose
from pipelines.models import backbones, passports
from pipelines.models.provenance import Normalisation
from pipelines.paths import Paths
from pipelines.quality.leakage import split_sha256
from pipelines.stages import train
from pipelines.training.listener import Epoch, Silence, Step
from pipelines.training_display import Display
from pipelines.transfer.strategies import STRATEGIES

OUTPUTS = ("model.safetensors", "model.json", "validation.parquet", "history.csv")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_workspace(tmp_path_factory.mktemp("template")).workspace


@pytest.fixture
def paths(template: Path, tmp_path: Path) -> Paths:
    shutil.copytree(template, tmp_path / "workspace")
    return Paths(tmp_path / "workspace")


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> passports.Found:
    """A pretrained tiny network, known by the name `tiny`, in a weights folder of the test's own."""
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path / "weights"))
    return save_tiny(tmp_path / "weights", seed=4)


MULTILABEL = {"kind": "multilabel", "targets": ["left", "right"]}
BINARY = {"kind": "binary", "targets": ["left"]}
MULTICLASS = {"kind": "multiclass", "targets": ["kind"], "classes": ["none", "left", "right"]}


def config(strategy: str = "differential", task: dict[str, Any] = MULTILABEL, **changes: Any) -> Config:
    settings = {
        "backbone": "resnet10",
        "weights": "tiny",
        "epochs": 3,
        "batch_size": 12,
        "device": "cpu",
        "strategy": {"name": strategy, **changes.pop("own", {})},
    }
    return Config.model_validate({"task": task, "train": {**settings, **changes}})


def written(paths: Paths) -> dict[str, bytes]:
    return {name: (paths.model / name).read_bytes() for name in OUTPUTS}


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "lora"])  # which needs a transformer
def test_every_strategy_ends_in_a_model_and_the_same_bytes_twice(strategy: str, paths: Paths) -> None:
    summary = train.run(config(strategy), paths, Silence())
    first = written(paths)
    assert train.run(config(strategy), paths, Silence()).thresholds == summary.thresholds
    assert written(paths) == first
    assert not paths.checkpoint.exists()
    assert summary.weights == (None if strategy == "scratch" else "tiny")
    assert (summary.strategy, summary.epochs, summary.resumed_from_epoch) == (strategy, 3, None)
    json.dumps(asdict(summary), allow_nan=False)


def test_the_probe_that_no_epoch_betters_is_epoch_0_of_what_is_written_and_said(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    aurocs = iter([0.9, 0.8, 0.7])
    monkeypatch.setattr("pipelines.training.judging.macro_auroc", lambda labels, scores: next(aurocs))
    shown = io.StringIO()
    with Progress(console=Console(file=shown, width=200)) as progress:
        summary = train.run(config("lp_ft", epochs=2), paths, Display(progress))
    assert (summary.best_epoch, summary.epochs, summary.validation_auroc) == (0, 2, 0.9)
    assert "validation AUROC [bold]0.900[/bold] of the probe at its start, which none of 2 epochs bettered" in summary.describe()
    history = pd.read_csv(paths.model / "history.csv")
    assert list(history["epoch"]) == [0, 1, 2]
    training = Model.load(paths.model, "cpu").card.training
    assert (training["epochs"], training["best_epoch"]) == (2, 0)
    assert "epoch   0  train loss" in shown.getvalue()
    assert "no epoch was better on validation than the logistic_regression" in shown.getvalue()


@pytest.mark.parametrize("task", [BINARY, MULTILABEL, MULTICLASS], ids=lambda task: task["kind"])
def test_thresholds_and_predictions_come_from_the_model_as_it_is_loaded(task: dict[str, Any], paths: Paths) -> None:
    summary = train.run(config("scratch", task), paths, Silence())
    model = Model.load(paths.model, "cpu")
    predictions = pd.read_parquet(paths.model / "validation.parquet")
    outputs = config(task=task).task.declared().outputs
    columns = [name for output in outputs for name in (f"p_{output}", f"y_{output}")]
    assert list(predictions.columns) == ["image", "patient", "part", *columns]
    assert len(predictions) == 24
    assert set(predictions["part"]) == {"validation"}
    place = pd.read_parquet(paths.index).set_index("image").loc[predictions["image"]]
    arrays = np.stack(
        [np.load(paths.prepared / f"shard-{s:05d}.npy")[r] for s, r in zip(place["shard"], place["row"], strict=True)]
    )
    answers = model.probabilities(arrays)
    for number, output in enumerate(outputs):
        labels, scores = predictions[f"y_{output}"].to_numpy(), predictions[f"p_{output}"].to_numpy()
        assert np.allclose(scores, answers[:, number], atol=1e-6)
        assert model.card.thresholds[output] == summary.thresholds[output] == choose(labels, scores, "youden", 0.9)
    areas = [auroc(predictions[f"y_{output}"].to_numpy(), predictions[f"p_{output}"].to_numpy()) for output in outputs]
    assert summary.validation_auroc == pytest.approx(np.mean(areas), abs=1e-6)


def test_the_operating_point_is_the_one_of_the_configuration(paths: Paths) -> None:
    train.run(config("scratch", BINARY, operating_point={"rule": "specificity", "value": 1.0}), paths, Silence())
    predictions = pd.read_parquet(paths.model / "validation.parquet")
    threshold = Model.load(paths.model, "cpu").card.thresholds["left"]
    assert (predictions.loc[predictions["y_left"] == 0, "p_left"] < threshold).all()


def test_the_card_says_what_went_in(paths: Paths, weights: passports.Found) -> None:
    train.run(config(own={"decay": 0.5}), paths, Silence())
    card = Model.load(paths.model, "cpu").card
    assert card.passport == weights.passport
    assert card.weights is not None
    assert card.weights.sha256 == files.sha256(weights.path)
    assert card.normalisation == weights.passport.normalisation
    assert card.recipe == Recipe(SIZE, "uint8", (0.5, 99.5))
    assert card.training["train_images"] == 36
    assert card.training["validation_images"] == 24
    assert card.training["split_sha256"] == split_sha256(pd.read_parquet(paths.split))
    assert [group["name"] for group in card.strategy["groups"]] == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    assert card.strategy["groups"][4]["learning_rate"] == pytest.approx(card.strategy["groups"][5]["learning_rate"] / 2)
    assert card.strategy["batch_norm"] == "frozen"


def test_pretrained_weights_really_go_in(paths: Paths, weights: passports.Found) -> None:
    train.run(config("feature_extraction"), paths, Silence())
    network = Model.load(paths.model, "cpu").network
    fresh = backbones.build("resnet10", outputs=2, dropout=0.0, normalisation=weights.passport.normalisation)
    passports.load(fresh, weights)
    for name, tensor in fresh.trunk.state_dict().items():
        assert torch.equal(tensor, network.trunk.state_dict()[name]), name


def test_the_history_has_one_line_per_epoch_and_no_clock(paths: Paths) -> None:
    train.run(config(), paths, Silence())
    history = pd.read_csv(paths.model / "history.csv")
    columns = ["epoch", "train_loss", "validation_loss", "validation_auroc", "learning_rate_head"]
    assert list(history.columns) == columns
    assert history["epoch"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("task", [MULTILABEL, MULTICLASS], ids=lambda task: task["kind"])
@pytest.mark.parametrize(
    ("classifier", "kind"),
    [("logistic_regression", "linear"), ("linear_svm", "linear"), ("knn", "knn"), ("mlp", "mlp")],
)
def test_the_card_says_what_kind_of_head_it_is_and_how_it_was_found(
    classifier: str, kind: str, task: dict[str, Any], paths: Paths
) -> None:
    summary = train.run(config("feature_extraction", task, own={"classifier": classifier}), paths, Silence())
    model = Model.load(paths.model, "cpu")
    assert model.card.head["kind"] == kind
    assert model.card.strategy["classifier"] == classifier
    assert ("classifier" in model.card.training) == (classifier != "mlp")
    predictions = pd.read_parquet(paths.model / "validation.parquet")
    place = pd.read_parquet(paths.index).set_index("image").loc[predictions["image"]]
    arrays = np.stack(
        [np.load(paths.prepared / f"shard-{s:05d}.npy")[r] for s, r in zip(place["shard"], place["row"], strict=True)]
    )
    outputs = list(model.card.task.outputs)
    assert np.allclose(predictions[[f"p_{name}" for name in outputs]], model.probabilities(arrays), atol=1e-6)
    json.dumps(asdict(summary), allow_nan=False)


@pytest.mark.parametrize(("source", "strategy"), [("tiny", "differential"), ("scratch", "scratch")])
def test_the_data_decide_what_is_recommended_and_the_log_and_the_card_say_why(source: str, strategy: str, paths: Paths) -> None:
    notes: list[str] = []

    class Noting(Silence):
        def noted(self, text: str) -> None:
            notes.append(text)

    summary = train.run(config("recommended", epochs=1, weights=source), paths, Noting())
    card = Model.load(paths.model, "cpu").card
    assert summary.strategy == card.strategy["name"] == strategy
    assert card.strategy["recommended"] == notes[0]
    assert notes[0].startswith(f"recommended: {strategy} for 36 labelled images of ")


def test_the_card_repeats_the_regularisers_and_reports_the_anchor(paths: Paths) -> None:
    train.run(config("l2_sp", epochs=1, label_smoothing=0.1, mixup=0.2, ema=0.9), paths, Silence())
    card = Model.load(paths.model, "cpu").card
    assert card.strategy["anchor"] == 0.1
    assert card.training["distance_from_source"] > 0
    in_effect = card.strategy["settings"]
    assert (in_effect["label_smoothing"], in_effect["mixup"], in_effect["ema"]) == (0.1, 0.2, 0.9)


def another_label(paths: Paths) -> None:
    labels = pd.read_parquet(paths.labels)
    labels.loc[1, "left"] = 1 - labels.loc[1, "left"]
    files.write_table(paths.labels, labels)


def another_split(paths: Paths) -> None:
    split = pd.read_parquet(paths.split).sort_values("image")
    split["part"] = split["part"].to_numpy()[::-1]
    files.write_table(paths.split, split)


def other_weights(paths: Paths) -> None:
    save_tiny(paths.workspace.parent / "weights", seed=5)


@pytest.mark.parametrize("change", [another_label, another_split, other_weights])
def test_what_changed_trains_anew_after_an_interruption(change: Callable[[Paths], None], paths: Paths) -> None:
    class Stopped(Silence):
        notes: list[str] = []  # noqa: RUF012 one for the class is enough here

        def epoch_ended(self, epoch: Epoch, *, best: bool) -> None:
            if epoch.epoch == 2 and not self.notes:
                raise KeyboardInterrupt

        def noted(self, text: str) -> None:
            self.notes.append(text)

    listener = Stopped()
    with pytest.raises(KeyboardInterrupt):
        train.run(config(), paths, listener)
    assert (paths.checkpoint / "training.safetensors").is_file()
    change(paths)
    summary = train.run(config(), paths, listener)
    assert summary.resumed_from_epoch is None
    assert "discarded" in listener.notes[0]


KILLED = """
import os, signal, sys
from pathlib import Path
from pipelines.config import Config
from pipelines.paths import Paths
from pipelines.stages import train
from pipelines.training.listener import Silence

class Killer(Silence):
    def stepped(self, step):
        if step.epoch == 3:
            os.kill(os.getpid(), signal.SIGKILL)

train.run(Config.model_validate_json(sys.argv[1]), Paths(Path(sys.argv[2])), Killer())
"""


def test_a_process_killed_in_mid_epoch_goes_on_to_the_same_bytes(paths: Paths, template: Path, tmp_path: Path) -> None:
    asked = config(epochs=4)
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    arguments = [sys.executable, "-c", KILLED, asked.model_dump_json(by_alias=True), str(paths.workspace)]
    killed = subprocess.run(arguments, env=environment, capture_output=True, check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not paths.model.exists()
    summary = train.run(asked, paths, Silence())
    assert summary.resumed_from_epoch == 2
    whole = Paths(Path(shutil.copytree(template, tmp_path / "whole")))
    train.run(asked, whole, Silence())
    assert written(paths) == written(whole)


def test_the_terminal_shows_layer_groups_rates_and_each_epoch(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, width=140, force_terminal=False)
    monkeypatch.setattr("pipelines.console.console", lambda: terminal)
    summary = train.run(config(own={"learning_rate": 0.004, "decay": 0.5}), paths)
    shown = screen.getvalue()
    rows = {line.split()[1]: line for line in shown.splitlines() if line.startswith("│")}
    assert list(rows) == ["stem", "stage1", "stage2", "stage3", "stage4", "head", "all"]
    assert "4.0e-03" in rows["head"]
    assert "2.0e-03" in rows["stage4"]
    assert "frozen" in rows["stage4"]
    assert f"{summary.trainable:,}" in rows["all"]
    assert shown.count("validation AUROC") == 3


def test_the_table_says_from_which_epoch_a_group_learns(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, width=140, force_terminal=False)
    monkeypatch.setattr("pipelines.console.console", lambda: terminal)
    train.run(config("gradual", epochs=1, own={"unfreeze_every": 2}), paths)
    rows = {line.split()[1]: line.split() for line in screen.getvalue().splitlines() if line.startswith("│")}
    assert [rows[name][-2] for name in ("stem", "stage4", "head")] == ["11", "3", "1"]


def test_groups_that_were_never_reached_did_not_learn_in_what_is_said_and_in_the_card(paths: Paths) -> None:
    summary = train.run(config("gradual", epochs=2, own={"unfreeze_every": 3}), paths, Silence())
    head = train.run(config("head_only", epochs=2), paths, Silence())
    assert summary.trainable == head.trainable < summary.parameters
    train.run(config("gradual", epochs=2, own={"unfreeze_every": 3}), paths, Silence())
    groups = json.loads((paths.model / "model.json").read_text())["strategy"]["groups"]
    assert {group["name"]: group["trained"] for group in groups if group["trained"]} == {"head": head.trainable}


def test_the_progress_bar_carries_the_rate_of_each_group(paths: Paths) -> None:
    notes: list[str] = []
    with Progress(console=Console(file=io.StringIO())) as progress:

        class Watching(Display):
            def stepped(self, step: Step) -> None:
                super().stepped(step)
                notes.extend(task.fields["note"] for task in progress.tasks)

        train.run(config(epochs=1, own={"learning_rate": 0.004, "decay": 0.5}), paths, Watching(progress))
    assert notes[-1].startswith("loss ")
    assert notes[-1].endswith("stage4 2e-03 head 4e-03")


def test_the_summary_reads_as_a_sentence(paths: Paths) -> None:
    text = train.run(config("scratch", BINARY), paths, Silence()).describe()
    assert "resnet10[/bold] from random weights, all layers from random numbers" in text
    assert "validation AUROC" in text
    assert "thresholds: left 0." in text


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"weights": "nobody"}, WeightsError, "nobody"),
        ({"backbone": "resnet99"}, ConfigurationError, "train.backbone: expected one of resnet10, resnet18"),
        ({"backbone": "resnet99", "strategy": "scratch"}, ConfigurationError, "train.backbone: expected one of"),
    ],
)
def test_nothing_falls_back_in_silence(changes: dict[str, Any], error: type[Exception], message: str, paths: Paths) -> None:
    with pytest.raises(error, match=message):
        train.run(config(**changes), paths, Silence())
    assert not paths.model.exists()


@pytest.mark.parametrize(("missing", "stage"), [("index", "prepare"), ("split", "split"), ("labels", "ingest")])
def test_a_missing_input_names_the_stage_that_writes_it(missing: str, stage: str, paths: Paths) -> None:
    getattr(paths, missing).unlink()
    with pytest.raises(MissingInputError, match=f"radtransfer {stage}"):
        train.run(config(), paths, Silence())


def test_a_split_of_images_that_are_not_prepared_is_refused(paths: Paths) -> None:
    index = pd.read_parquet(paths.index)
    files.write_table(paths.index, index.iloc[3:])
    with pytest.raises(TrainingError, match=r"3 of 60 are not; run `radtransfer split` again"):
        train.run(config(), paths, Silence())


def test_a_target_that_no_label_column_holds_is_named(paths: Paths) -> None:
    with pytest.raises(TrainingError, match="labels: expected columns fracture, fracture not there"):
        train.run(config(task={"kind": "binary", "targets": ["fracture"]}), paths, Silence())


def test_the_source_scratch_goes_with_the_strategy_scratch_only(paths: Paths) -> None:
    with pytest.raises(ConfigurationError, match=r"train\.weights: expected a source of weights for .*name=scratch"):
        train.run(config("full", weights="scratch"), paths, Silence())


def test_a_network_that_cannot_take_the_prepared_size_is_refused_first(paths: Paths) -> None:
    with pytest.raises(ConfigurationError, match=rf"prepare\.size: expected at least 75 for inception_v3, got {SIZE}"):
        train.run(config(backbone="inception_v3", weights="imagenet"), paths, Silence())


def test_weights_of_one_channel_make_a_model_of_one_channel(paths: Paths, tmp_path: Path) -> None:
    grey = Normalisation((0.5,), (1 / 2048,))
    network = backbones.build("resnet10", outputs=1, dropout=0.0, normalisation=grey)
    facts = {"name": "grey", "source": "medical", "licence": "none", "trained_on": "nothing"}
    passports.save_backbone(network, tmp_path / "weights" / "grey.safetensors", **facts)
    train.run(config("full", weights="medical"), paths, Silence())
    model = Model.load(paths.model, "cpu")
    assert model.card.passport is not None
    assert (model.card.passport.channels, model.card.normalisation.mean) == ("grey", (0.5,))
    assert model.network.trunk.get_submodule("conv1").weight.shape[1] == 1
