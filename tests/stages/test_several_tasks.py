"""One network for five tasks with labels missing here and there, from labels to predictions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evaluated_workspace
import numpy as np
import pandas as pd
import pytest
import trained_workspace

from pipelines import config, files, model_card, tracking
from pipelines.config import Config
from pipelines.errors import MissingInputError
from pipelines.inference import Model, ModelCard
from pipelines.metrics.numbers import concordance
from pipelines.paths import Paths
from pipelines.quality.expectations import expectations
from pipelines.quality.tables import build
from pipelines.quality.validation import validate
from pipelines.records import Task
from pipelines.stages import audit_shortcuts, check, evaluate, predict, rank, register, split, train
from pipelines.stages.evaluate import EvaluateSummary
from pipelines.stages.train import TrainSummary
from pipelines.tracking import client
from pipelines.training.listener import Silence

TRAIN = {"strategy": {"name": "scratch"}, "backbone": "resnet10", "epochs": 3, "batch_size": 16, "device": "cpu"}
ACQUIRED = {
    "modality": "DX",
    "photometric": "MONOCHROME2",
    "window": "window",
    "mean": 0.4,
    "std": 0.2,
    "dark": 0.0,
    "bright": 0.0,
}
FURTHER = ["age", "severity", "projection", "pleura", "fracture"]


@dataclass(frozen=True)
class Made:
    config: Config
    paths: Paths
    trained: TrainSummary
    evaluated: EvaluateSummary

    @property
    def task(self) -> Task:
        return self.config.task.declared()

    def json(self, path: Path) -> dict[str, Any]:
        return dict(json.loads(path.read_text()))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """From prepared images and a table of labels: two of them have no label of the main task, and one has none at all."""
    settings, paths = evaluated_workspace.make(tmp_path_factory.mktemp("several"), "several")
    settings = config.overridden(
        settings, [f"train={json.dumps(TRAIN)}", "task.weighting=uncertainty", "split.validation=0.3", "split.test=0.3"]
    )
    labels = files.read_table(paths.labels, made_by="test")
    labels.loc[[3, 4], "opacity"] = np.nan
    labels.loc[[3, 4], ["years", "fracture"]] = [50.0, 1.0]
    labels.loc[5, list(labels.columns[1:])] = None
    files.write_table(paths.labels, labels)
    index = files.read_table(paths.index, made_by="test")
    files.write_table(paths.index, index.assign(**ACQUIRED))
    check.run(settings, paths)
    split.run(settings, paths)
    audit_shortcuts.run(settings, paths)
    trained = train.run(settings, paths, Silence())
    return Made(settings, paths, trained, evaluate.run(settings, paths))


def test_an_image_is_learnt_from_if_any_task_has_a_label_of_it(made: Made) -> None:
    parts = files.read_table(made.paths.split, made_by="split").set_index("image")["part"]
    labels = files.read_table(made.paths.labels, made_by="test")
    assert {labels["image"][3], labels["image"][4]} <= set(parts.index)
    assert labels["image"][5] not in parts.index
    assert len(parts) == evaluated_workspace.IMAGES - 1


def test_the_main_task_is_judged_on_its_own_images_and_each_other_one_on_its_own(made: Made) -> None:
    metrics = made.json(made.paths.metrics)
    parts = files.read_table(made.paths.split, made_by="split")
    test = parts[parts["part"] == "test"].merge(files.read_table(made.paths.labels, made_by="test"), on="image")
    assert metrics["images"] == test["opacity"].notna().sum()
    assert set(metrics["tasks"]) == set(FURTHER)
    columns = {"age": ["years"], "severity": ["severity"], "projection": ["projection"], "fracture": ["fracture"]}
    for name, targets in {**columns, "pleura": ["effusion", "thickening"]}.items():
        assert metrics["tasks"][name]["images"] == test[targets].notna().any(axis=1).sum(), name
    assert metrics["tasks"]["age"]["unit"] == "years"
    assert set(metrics["tasks"]["age"]["metrics"]) == {"mae", "rmse", "r2", "spearman"}
    assert set(metrics["tasks"]["severity"]["metrics"]) == {"kappa", "mae_ranks", "accuracy", "auroc"}


def test_the_card_keeps_tasks_scales_weights_and_thresholds(made: Made) -> None:
    said = made.json(made.paths.model / "model.json")
    card = ModelCard.from_dict(said)
    assert card.task == made.task
    labels = files.read_table(made.paths.labels, made_by="test").merge(files.read_table(made.paths.split, made_by="split"))
    years = labels.loc[labels["part"] == "train", "years"]
    assert card.scales["age"] == pytest.approx((years.mean(), years.std(ddof=0)), rel=1e-5)
    assert set(said["training"]["task_weights"]) == {"opacity", *FURTHER}
    assert set(card.thresholds) == {"opacity", "effusion", "thickening", "fracture"}
    assert ModelCard.from_dict(card.to_dict()) == card


def test_validation_and_test_predictions_hold_every_answer_beside_its_label(made: Made) -> None:
    for table, calls in ((made.paths.model / "validation.parquet", 0), (made.paths.evaluation / "predictions.parquet", 1)):
        rows = files.read_table(table, made_by="test")
        further = [
            "value_age",
            "y_years",
            "p_severity_none",
            "p_severity_mild",
            "p_severity_severe",
            "class_severity",
            "y_severity",
        ]
        further += ["p_projection_PA", "p_projection_AP", "class_projection", "y_projection"]
        further += ["p_effusion", "p_thickening", *["predicted_effusion", "predicted_thickening"] * calls, "y_effusion"]
        further += ["y_thickening", "p_fracture", *["predicted_fracture"] * calls, "y_fracture"]
        main = ["image", "patient", "part", "p_opacity", "y_opacity", *["predicted_opacity"] * calls]
        assert list(rows.columns) == [*main, *further]
        grades = rows[["p_severity_none", "p_severity_mild", "p_severity_severe"]].to_numpy()
        assert grades.sum(axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-5)
        for name in ("effusion", "thickening", "fracture") * calls:
            threshold = made.json(made.paths.model / "model.json")["thresholds"][name]
            assert rows[f"predicted_{name}"].tolist() == (rows[f"p_{name}"] >= threshold).tolist()
        assert rows["value_age"].between(-100, 300).all()
        assert set(rows["class_severity"]) <= {"none", "mild", "severe"}


def test_the_score_of_the_best_epoch_is_the_mean_over_the_tasks(made: Made) -> None:
    rows = files.read_table(made.paths.model / "validation.parquet", made_by="test")
    known = rows.dropna(subset=["y_years"])
    assert 0 <= concordance(known["y_years"].to_numpy(), known["value_age"].to_numpy()) <= 1
    assert "validation mean score" in made.trained.describe()
    assert 0 < made.trained.validation_auroc < 1


def test_the_mean_score_is_not_called_an_auroc_in_the_card_nor_in_mlflow(made: Made) -> None:
    training = made.json(made.paths.model / "model.json")["training"]
    assert "validation_auroc" not in training
    assert training["validation_score"] == made.trained.validation_auroc
    history = made.paths.model / "history.csv"
    assert history.read_text().startswith("epoch,train_loss,validation_loss,validation_auroc,")
    names = {point.key for point in client.curves_of(history, made.task.score_name, 0)}
    assert "validation_score" in names
    assert "validation_auroc" not in names


def test_the_packet_has_a_table_for_every_further_task_and_says_that_no_gate_judges_it(made: Made) -> None:
    text = made.paths.packet.read_text()
    assert "No gate of the policy judges these" in text
    for said in ("a value in years", "one of none, mild, severe, in this order", "Quadratic weighted κ", "said severe"):
        assert said in text, said
    assert "How much each task counted was learned from its uncertainty: " in text
    assert "validation mean score of" in text
    assert all(f"<b>{name}</b>" in text for name in FURTHER)
    assert "age: Mean absolute error" in made.evaluated.describe()


def test_predictions_of_files_name_value_class_and_probabilities(made: Made, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(trained_workspace.radiograph(1))
    (tmp_path / "b.dcm").write_bytes(b"nothing")
    model = Model.load(made.paths.model, "cpu")
    table = model.predict([tmp_path / "a.dcm", tmp_path / "b.dcm"])
    assert table["left_out"].isna().tolist() == [True, False]
    assert np.isfinite(table["value_age"][0])
    assert table["class_severity"][0] in ("none", "mild", "severe")
    answers = table.loc[1].drop(["source", "left_out"])
    assert answers.isna().all()
    schema = tracking._signature(made.task).outputs
    assert schema is not None
    assert [column.name for column in schema.inputs] == list(table.columns)
    answered = list(predict._predictions(model, [tmp_path / "a.dcm", tmp_path / "b.dcm"], 60))
    assert answered[0].values == {"age": pytest.approx(float(table["value_age"][0]))}
    assert answered[0].classes == {"severity": table["class_severity"][0], "projection": table["class_projection"][0]}
    assert set(answered[0].positive) == {"opacity", "effusion", "thickening", "fracture"}
    units = {"age": "years", "severity": "", "projection": ""}
    summary = predict.PredictSummary("a model", True, dict(model.card.thresholds), tuple(answered), 0, units)
    header, first, second, *_ = summary.describe().splitlines()
    assert "age (years)" in header
    assert f"{table['value_age'][0]:.4g}" in first
    assert "refused: not_dicom" in second


def test_mlflow_gets_the_metrics_of_every_task_and_the_card_says_what_the_gates_judge(made: Made) -> None:
    metrics = made.json(made.paths.metrics)
    sent = dict(register._metrics(metrics))
    assert sent["auroc"] == metrics["macro"]["auroc"]["value"]
    assert sent["age/mae_low"] == metrics["tasks"]["age"]["metrics"]["mae"]["low"]
    assert sent["pleura/effusion/auroc"] == metrics["tasks"]["pleura"]["outputs"]["effusion"]["auroc"]["value"]
    rows = list(model_card._metric_rows(metrics))
    assert "Tasks beside the main one, which the gates do not judge" in rows[1]
    assert any(row.startswith("- age (years), regression") for row in rows)


def test_what_looks_at_the_main_task_alone_says_so(made: Made) -> None:
    ranked = rank.run(config.overridden(made.config, ["rank.candidates=[resnet10@scratch]", "rank.bootstrap=100"]), made.paths)
    assert "ranked by the main task alone, not by age, severity, projection, pleura, fracture" in ranked.describe()
    audited = audit_shortcuts.run(made.config, made.paths)
    assert "the main task alone is audited, not age, severity, projection, pleura, fracture" in audited.describe()
    assert all(set(found["outputs"]) == {"opacity"} for found in audited.shortcuts.values())


def test_a_model_of_other_tasks_is_not_judged(made: Made) -> None:
    for change in ("task.also.age.unit=months", "task.also={}"):
        other = config.overridden(made.config, ["task.weighting=fixed", change])
        with pytest.raises(MissingInputError, match=r"model\.json: expected a model for opacity.* run `radtransfer train`"):
            evaluate.run(other, made.paths)


def test_labels_that_a_task_does_not_declare_are_unknown_and_fail_the_check(made: Made) -> None:
    labels = files.read_table(made.paths.labels, made_by="test")
    index = files.read_table(made.paths.index, made_by="test")
    whole = build(index, labels, made.task)["labels"]["known_labels"]
    spoiled = labels.assign(years=300.0, severity="unheard of")
    known = build(index, spoiled, made.task)["labels"]["known_labels"]
    fewer = labels["years"].notna() + labels["severity"].map({"none": 1, "mild": 2, "severe": 2}).fillna(0)
    assert (whole - known).tolist() == fewer.tolist()
    wanted = [item for item in expectations(made.config.check, made.task) if item.name in ("years valid", "severity valid")]
    found = validate(build(index, spoiled, made.task), wanted)
    assert [item.expectation.name for item in found.failed("error")] == ["years valid", "severity valid"]
    assert not validate(build(index, labels, made.task), wanted).failed("error")


@pytest.mark.parametrize("kind", ["binary", "multilabel", "multiclass"])
def test_what_a_single_task_writes_is_as_it_was(kind: str, tmp_path: Path) -> None:
    settings, paths = evaluated_workspace.make(tmp_path, kind)
    settings = config.overridden(settings, [f"train={json.dumps({**TRAIN, 'epochs': 1})}"])
    train.run(settings, paths, Silence())
    evaluate.run(settings, paths)
    task = settings.task.declared()
    said = json.loads((paths.model / "model.json").read_text())
    plain = {"kind": task.kind, "targets": [*task.targets], "classes": [*task.classes], "outputs": [*task.outputs]}
    assert said["task"] == plain
    assert "scales" not in said
    assert "task_weights" not in said["training"]
    metrics = json.loads(paths.metrics.read_text())
    assert set(metrics) == {"images", "patients", "macro", "outputs", "shortcuts", "model_sha256"}
    per_output = [column for name in task.outputs for column in (f"p_{name}", f"y_{name}")]
    assert list(pd.read_parquet(paths.model / "validation.parquet")) == ["image", "patient", "part", *per_output]
    assert "Further tasks" not in paths.packet.read_text()
