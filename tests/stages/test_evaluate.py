"""The evaluate stage on a small made workspace."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import evaluated_workspace
import numpy as np
import pandas as pd
import pytest
from rich.text import Text
from sklearn.metrics import roc_auc_score

from pipelines import config, files
from pipelines.config import Config
from pipelines.errors import MissingInputError
from pipelines.metrics.evaluation import METRICS
from pipelines.paths import Paths
from pipelines.quality.leakage import certify
from pipelines.stages import STAGES, evaluate

OUTPUTS = {"binary": ["opacity"], "multilabel": ["opacity", "effusion"], "multiclass": ["none", "bacterial", "viral"]}


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Config, Paths, evaluate.EvaluateSummary]]:
    done = {}
    for kind in OUTPUTS:
        settings, paths = evaluated_workspace.make(tmp_path_factory.mktemp(kind), kind)
        done[kind] = (settings, paths, evaluate.run(settings, paths))
    return done


@pytest.mark.parametrize("kind", OUTPUTS)
def test_every_declared_output_is_written(evaluated: dict, kind: str) -> None:
    _, paths, _ = evaluated[kind]
    stage = next(stage for stage in STAGES if stage.name == "evaluate")
    for path in (*stage.outs, *stage.metrics):
        assert (paths.workspace / path).exists(), path
    figures = {path.name for path in (paths.evaluation / "figures").iterdir()}
    names = ("roc", "precision_recall", "reliability", "confusion", "shortcuts")
    assert figures == {f"{name}.{suffix}" for name in names for suffix in ("png", "svg")}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_only_the_test_part_is_judged_and_only_by_its_labels(evaluated: dict, kind: str) -> None:
    _, paths, summary = evaluated[kind]
    predictions = pd.read_parquet(paths.evaluation / "predictions.parquet")
    split = pd.read_parquet(paths.split)
    assert set(predictions["image"]) == set(split.loc[split["part"] == "test", "image"])
    assert set(predictions["part"]) == {"test"}
    metrics = json.loads(paths.metrics.read_text())
    assert (metrics["images"], metrics["patients"]) == (20, 10) == (summary.images, summary.patients)
    assert list(OUTPUTS[kind]) == [column.removeprefix("p_") for column in predictions if column.startswith("p_")]
    for name in OUTPUTS[kind]:
        known = predictions[predictions[f"y_{name}"].notna()]
        assert metrics["outputs"][name]["positives"] == known[f"y_{name}"].sum()
        area = roc_auc_score(known[f"y_{name}"], known[f"p_{name}"])
        assert metrics["outputs"][name]["auroc"]["value"] == pytest.approx(area)
    areas = [metrics["outputs"][name]["auroc"]["value"] for name in OUTPUTS[kind]]
    assert metrics["macro"]["auroc"]["value"] == pytest.approx(np.mean(areas))


@pytest.mark.parametrize("kind", OUTPUTS)
def test_the_thresholds_are_the_models_own(evaluated: dict, kind: str) -> None:
    _, paths, summary = evaluated[kind]
    card = json.loads((paths.model / "model.json").read_text())
    predictions = pd.read_parquet(paths.evaluation / "predictions.parquet")
    assert summary.thresholds == card["thresholds"]
    for name, threshold in card["thresholds"].items():
        assert predictions[f"predicted_{name}"].dtype == bool
        np.testing.assert_array_equal(predictions[f"predicted_{name}"], predictions[f"p_{name}"] >= threshold)


def test_labels_that_are_unknown_do_not_count(evaluated: dict) -> None:
    _, paths, _ = evaluated["multilabel"]
    predictions = pd.read_parquet(paths.evaluation / "predictions.parquet")
    counted = json.loads(paths.metrics.read_text())["outputs"]["effusion"]
    assert predictions["y_effusion"].isna().any()
    assert counted["positives"] + counted["negatives"] == predictions["y_effusion"].notna().sum() < 20


@pytest.mark.parametrize(("kind", "rows"), [("binary", 20), ("multiclass", 20)])
def test_the_confusion_table_has_a_row_for_each_image(evaluated: dict, kind: str, rows: int) -> None:
    _, paths, _ = evaluated[kind]
    table = pd.read_csv(paths.evaluation / "confusion.csv", keep_default_na=False)
    assert len(table) == rows
    classes = {"binary": {"opacity", "no opacity"}, "multiclass": {"none", "bacterial", "viral"}}[kind]
    assert set(table["actual"]) <= classes
    assert set(table["predicted"]) <= classes


def test_the_likeliest_class_is_the_predicted_one(evaluated: dict) -> None:
    _, paths, _ = evaluated["multiclass"]
    table = pd.read_csv(paths.evaluation / "confusion.csv", keep_default_na=False)
    predictions = pd.read_parquet(paths.evaluation / "predictions.parquet")
    likeliest = predictions[[f"p_{name}" for name in OUTPUTS["multiclass"]]].to_numpy().argmax(axis=1)
    assert table["predicted"].tolist() == [OUTPUTS["multiclass"][number] for number in likeliest]


@pytest.mark.parametrize(
    ("name", "columns"),
    [("roc", ["fpr", "tpr"]), ("precision_recall", ["recall", "precision"]), ("reliability", ["predicted", "observed"])],
)
def test_curves_have_the_columns_that_dvc_plots(evaluated: dict, name: str, columns: list[str]) -> None:
    _, paths, _ = evaluated["multilabel"]
    table = pd.read_csv(paths.evaluation / f"{name}.csv")
    assert set(columns) | {"output"} <= set(table)
    assert table[columns].notna().all(axis=None)
    assert table[columns].ge(0).all(axis=None)
    assert table[columns].le(1).all(axis=None)
    assert list(dict.fromkeys(table["output"])) == OUTPUTS["multilabel"]


def test_subgroups_count_patients_apart_from_images(evaluated: dict) -> None:
    """Two images of each patient; ten patients, of whom every other one is a woman."""
    _, paths, _ = evaluated["binary"]
    cells = r'<th scope="row">(female|male)</th><td class="num">(\d+)</td><td class="num">(\d+)</td>'
    assert re.findall(cells, paths.packet.read_text()) == [("female", "10", "5"), ("male", "10", "5")]


def test_running_twice_gives_the_same_bytes(evaluated: dict) -> None:
    settings, paths, _ = evaluated["binary"]
    before = content(paths.evaluation)
    (paths.evaluation / "figures" / "stale.png").write_bytes(b"of an earlier version")
    evaluate.run(settings, paths)
    assert content(paths.evaluation) == before


def test_the_summary_is_plain_and_reads_well(evaluated: dict) -> None:
    _, paths, summary = evaluated["binary"]
    json.dumps(asdict(summary), allow_nan=False)
    assert set(summary.macro) == set(METRICS)
    assert (paths.workspace / summary.packet).is_file()
    words = Text.from_markup(summary.describe()).plain
    assert "20 test images of 10 patients" in words
    assert "AUROC" in words
    assert f"opacity ≥ {summary.thresholds['opacity']:.3f}" in words
    predictions = pd.read_parquet(paths.evaluation / "predictions.parquet")
    wrong = predictions["predicted_opacity"] != (predictions["y_opacity"] == 1)
    assert summary.false_positives + summary.false_negatives == wrong.sum()


def test_a_model_for_another_task_is_refused(evaluated: dict) -> None:
    _, paths, _ = evaluated["binary"]
    other = config.validate(Config, {"task": {"targets": ["fracture"]}, "train": {"device": "cpu"}}, "tests")
    with pytest.raises(
        MissingInputError, match=r"for fracture, got one for opacity \(task.targets is \[fracture\], the model's is"
    ):
        evaluate.run(other, paths)


def test_a_split_that_the_model_was_not_trained_on_is_refused(tmp_path: Path) -> None:
    """Its test part may hold patients that the model learnt from."""
    settings, paths = evaluated_workspace.make(tmp_path)
    split = pd.read_parquet(paths.split)
    split["part"] = split["part"].map({"train": "test", "test": "train", "validation": "validation"})
    files.write_table(paths.split, split)
    with pytest.raises(MissingInputError, match=r"leakage.json: expected the certificate of split .*; run `radtransfer split`"):
        evaluate.run(settings, paths)
    task = settings.task.declared()
    certificate = certify(split, pd.read_parquet(paths.index), pd.read_parquet(paths.labels), task)
    files.write_json(paths.leakage, certificate.to_dict())
    with pytest.raises(MissingInputError, match="may hold patients that it learnt from; run `radtransfer train` again"):
        evaluate.run(settings, paths)
    assert not paths.metrics.exists()


def test_images_that_were_prepared_otherwise_than_in_training_are_refused(tmp_path: Path) -> None:
    settings, paths = evaluated_workspace.make(tmp_path)
    recipe = files.read_json(paths.prepared / "recipe.json", made_by="prepare")
    files.write_json(paths.prepared / "recipe.json", {**recipe, "size": 64})
    with pytest.raises(MissingInputError, match=r"expected images made by Recipe\(size=32.*got Recipe\(size=64"):
        evaluate.run(settings, paths)


def test_an_output_without_any_known_test_label_is_undefined_not_a_crash(tmp_path: Path) -> None:
    settings, paths = evaluated_workspace.make(tmp_path, "multilabel")
    labels = pd.read_parquet(paths.labels)
    labels["effusion"] = np.nan
    files.write_table(paths.labels, labels)
    evaluate.run(settings, paths)
    metrics = json.loads(paths.metrics.read_text())["outputs"]
    assert {name: metrics["effusion"][name]["value"] for name in METRICS} == dict.fromkeys(METRICS)
    assert metrics["opacity"]["auroc"]["value"] is not None


def test_without_a_model_the_stage_says_what_to_run(tmp_path: Path) -> None:
    settings = config.validate(Config, {"task": {"targets": ["opacity"]}}, "tests")
    with pytest.raises(MissingInputError, match=r"model\.json: expected what `radtransfer train` writes"):
        evaluate.run(settings, Paths(tmp_path))
