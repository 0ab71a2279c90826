"""What `register` makes of a trained model."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import trained_workspace
from mlflow import MlflowClient

from pipelines import __version__, config, model_card, tracking, tracking_store, versioning
from pipelines.config import Config, Policy
from pipelines.errors import ConfigurationError, MissingInputError
from pipelines.paths import Paths
from pipelines.records import HARMED
from pipelines.stages import register
from pipelines.stages.register import RegisterSummary

Workspace = tuple[Config, Paths, RegisterSummary]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    settings, paths = trained_workspace.make(tmp_path_factory.mktemp("registered"))
    return settings, paths, register.run(settings, paths)


def client(paths: Paths) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking_store.local_uri(paths))


def tags(paths: Paths, summary: RegisterSummary) -> dict[str, str]:
    return dict(client(paths).get_model_version(summary.model, summary.version).tags)


def test_a_model_that_passes_becomes_the_challenger_and_waits_for_review(registered: Workspace) -> None:
    _, paths, summary = registered
    assert (summary.passed, summary.reasons, summary.aliases, summary.already) == (True, (), ("challenger",), False)
    version = client(paths).get_model_version_by_alias("chest-opacity", "challenger")
    assert str(version.version) == summary.version == "1"
    assert version.tags["review.status"] == summary.status == "pending"
    assert not any(key.startswith("review.reason") for key in version.tags)
    assert "champion" not in client(paths).get_registered_model("chest-opacity").aliases


def test_a_version_says_where_it_comes_from(registered: Workspace) -> None:
    _, paths, summary = registered
    expected = {
        "model.sha256": trained_workspace.sha256(paths.model / "model.safetensors"),
        "weights.sha256": "d" * 64,
        "weights.name": "phantom-shapes",
        "pretraining": "phantom-shapes, trained on synthetic shapes (no real image was seen)",
        "data.hash": "1234567890abcdef.dir",
        "git.commit": versioning.head(paths),
        "git.uncommitted_changes": "false",
        "radtransfer.version": __version__,
        "quality.passed": "true",
        "leakage.clean": "true",
        "data.test.images": "2",
        "data.train.patients": "2",
    }
    found = tags(paths, summary)
    assert {key: found.get(key) for key in expected} == expected
    assert found["gate.auroc"].startswith("passed: lower end")
    assert found["gate.shortcuts"].endswith("of the best shortcut (thumbnail): expected at least 0.01, got 0.1")
    told = "the label can be told without seeing a finding, by border (opacity) (not required by the policy)"
    assert found["gate.shortcut_alarm"] == f"passed: shortcut alarm: {told}"
    assert len(found["split.sha256"]) == 64
    assert found["strategy"] == "differential"


def test_the_run_has_parameters_curves_and_metrics_with_their_intervals(registered: Workspace) -> None:
    _, paths, summary = registered
    run = client(paths).get_run(summary.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.backbone"] == "resnet10"
    assert run.data.params["train.strategy.name"] == "recommended"
    assert run.data.params["task.targets"] == '["opacity"]'
    metrics = run.data.metrics
    assert [metrics[name] for name in ("auroc", "auroc_low", "auroc_high", "test_images")] == [0.9, 0.8, 0.95, 42]
    assert [metrics[f"opacity/{name}"] for name in ("auroc", "ece_high", "threshold", "positives")] == [0.9, 0.95, 0.4, 6]
    assert [metrics[f"shortcut_{name}"] for name in ("auroc", "gain", "gain_low", "gain_high")] == [0.7, 0.2, 0.1, 0.95]
    assert "specificity" not in metrics
    points = {name: client(paths).get_metric_history(summary.run_id, name) for name in ("validation_auroc", "validation_loss")}
    assert [(point.step, point.value) for point in points["validation_auroc"]] == [(1, 0.75), (2, 0.85)]
    assert [(point.step, point.value) for point in points["validation_loss"]] == [(1, 0.6)]


def test_the_run_holds_what_a_reviewer_reads(registered: Workspace) -> None:
    _, paths, _ = registered
    held = {name.partition("/artifacts/")[2]: path for name, path in trained_workspace.tracked(paths).items()}
    expected = {
        "packet.html", "data_docs/index.html", "params.yaml", "dvc.lock", "data.dvc", "policy.yaml", "metrics.json",
        "leakage.json", "shortcuts.json", "figures/roc.svg",
    }  # fmt: skip
    assert expected <= set(held)
    assert held["packet.html"].read_bytes() == paths.packet.read_bytes()
    assert held["dvc.lock"].read_bytes() == paths.lock.read_bytes()
    assert config.load(held["params.yaml"]).train.backbone == "resnet10"


def test_the_place_of_the_source_is_told_to_nobody(registered: Workspace) -> None:
    _, paths, _ = registered
    assert trained_workspace.SOURCE in paths.params.read_text()
    for path in paths.mlflow.rglob("*"):
        assert not path.is_file() or b"Secret^Patient" not in path.read_bytes(), path.name


def test_the_description_is_the_model_card(registered: Workspace) -> None:
    _, paths, summary = registered
    version = client(paths).get_model_version(summary.model, summary.version)
    for words in (
        "# chest-opacity",
        "not a medical device",
        "| opacity | 0.900 (0.800–0.950) |",
        "undefined",
        "| test | 2 | 2 |",
        "passed: data quality: every expectation of severity error passed",
        "pretraining: phantom-shapes, trained on synthetic shapes (no real image was seen); licence: Apache-2.0",
        "resnet10, 32 × 32 pixels; strategy: differential",
    ):
        assert words in version.description
    assert "$" not in version.description


def test_why_a_strategy_was_recommended_is_in_the_card() -> None:
    card = {"strategy": {"name": "differential", "recommended": "recommended: differential for 40 images: best"}}
    assert model_card._strategy(card) == "differential (recommended: differential for 40 images: best)"


def test_the_same_model_is_registered_once(registered: Workspace) -> None:
    settings, paths, first = registered
    before = set(trained_workspace.tracked(paths))
    again = register.run(settings, paths)
    assert again.already
    assert asdict(again) == {**asdict(first), "already": True}
    assert "registered before: nothing new was made" in again.describe()
    assert set(trained_workspace.tracked(paths)) == before


def test_the_gain_of_each_output_is_what_the_gate_judges(tmp_path: Path) -> None:
    settings, paths = trained_workspace.make(tmp_path)
    metrics = json.loads(paths.metrics.read_text())
    gain = {"value": 0.0, "low": -0.05, "high": 0.05}
    metrics["shortcuts"]["outputs"]["effusion"] = {**metrics["shortcuts"]["outputs"]["opacity"], "gain": gain}
    paths.metrics.write_text(json.dumps(metrics))
    (reason,) = register.run(settings, paths).reasons
    assert "got 0.1 on average, and -0.05 for effusion; what the model knows" in reason


def test_a_rejected_model_is_registered_with_its_reasons_and_no_alias(tmp_path: Path) -> None:
    policy = Policy(max_ece=0.01, min_gain_over_shortcuts=0.15, refuse_shortcut_alarm=True)
    settings, paths = trained_workspace.make(tmp_path, auroc_low=0.55, policy=policy)
    summary = register.run(settings, paths)
    assert (summary.passed, summary.status, summary.aliases) == (False, "rejected", ())
    assert len(summary.reasons) == 4
    found = tags(paths, summary)
    assert found["review.status"] == "rejected"
    assert found["review.reason.1"].endswith("test AUROC: expected at least 0.7, got 0.55")
    assert found["review.reason.2"].endswith("expected at most 0.01, got 0.05")
    assert "best shortcut (thumbnail): expected at least 0.15, got 0.1; what the model knows" in found["review.reason.3"]
    assert found["review.reason.4"].endswith("can be told without seeing a finding, by border (opacity)")
    assert found["gate.auroc"].startswith("failed: ")
    assert client(paths).get_registered_model("chest-opacity").aliases == {}
    assert "expected at least 0.7, got 0.55" in summary.describe()


def test_a_model_that_its_adaptation_harmed_is_rejected_and_says_so(tmp_path: Path) -> None:
    settings, paths = trained_workspace.make(tmp_path)
    card = json.loads((paths.model / "model.json").read_text())
    card["training"]["adaptation"] = {"method": "coral", "verdict": HARMED, "says": "harmed: AUROC on the target -0.120"}
    (paths.model / "model.json").write_text(json.dumps(card))
    summary = register.run(settings, paths)
    assert summary.reasons == ("adaptation to another hospital: harmed: AUROC on the target -0.120",)
    assert tags(paths, summary)["gate.adaptation"] == f"failed: {summary.reasons[0]}"


def test_newer_models_take_the_alias_and_judgement_is_part_of_the_identity(tmp_path: Path) -> None:
    settings, paths = trained_workspace.make(tmp_path, auroc_low=0.55)
    assert not register.run(settings, paths).passed
    trained_workspace.write(paths.policy, config.render(Policy(min_auroc_lower_bound=0.5)))
    second = register.run(settings, paths)
    assert (second.version, second.passed, second.aliases) == ("2", True, ("challenger",))

    kept = {path: path.read_bytes() for path in (paths.model / "model.safetensors", paths.model / "model.json", paths.metrics)}
    trained_workspace.write_model(paths.model, seed=2)
    with pytest.raises(MissingInputError, match=r"metrics.json: expected the metrics of this model.*run `radtransfer evaluate`"):
        register.run(settings, paths)
    trained_workspace.write_metrics(paths, auroc_low=0.55)
    third = register.run(settings, paths)
    assert (third.version, third.aliases) == ("3", ("challenger",))

    for path, content in kept.items():
        path.write_bytes(content)
    back = register.run(settings, paths)
    assert (back.version, back.already, back.aliases) == ("2", True, ())
    assert str(client(paths).get_model_version_by_alias("chest-opacity", "challenger").version) == "3"


def test_a_registration_cut_off_before_the_alias_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, paths = trained_workspace.make(tmp_path)

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tracking, "set_alias", cut_off)
        with pytest.raises(KeyboardInterrupt):
            register.run(settings, paths)
    assert client(paths).get_registered_model("chest-opacity").aliases == {}
    summary = register.run(settings, paths)
    assert (summary.version, summary.already, summary.aliases) == ("1", True, ("challenger",))
    client(paths).set_registered_model_alias("chest-opacity", "champion", "1")
    client(paths).delete_registered_model_alias("chest-opacity", "challenger")
    assert register.run(settings, paths).aliases == ("champion",)


def test_a_run_that_cannot_be_finished_is_marked_as_failed(tmp_path: Path) -> None:
    settings, paths = trained_workspace.make(tmp_path)
    trained_workspace.write(paths.model / "history.csv", "epoch,train_loss\n1,abc\n")
    with pytest.raises(ValueError, match="could not convert"):
        register.run(settings, paths)
    (run,) = client(paths).search_runs(["1"])
    assert run.info.status == "FAILED"


@pytest.mark.parametrize(
    ("missing", "stage"),
    [
        ("model/model.json", "train"),
        ("model/model.safetensors", "train"),
        ("evaluation/metrics.json", "evaluate"),
        ("leakage.json", "split"),
        ("split.parquet", "split"),
        ("quality/result.json", "check"),
    ],
)
def test_a_stage_that_has_not_run_is_named(missing: str, stage: str, tmp_path: Path) -> None:
    settings, paths = trained_workspace.make(tmp_path, store=False)
    (paths.artifacts / missing).unlink()
    with pytest.raises(MissingInputError, match=f"expected what `radtransfer {stage}` writes"):
        register.run(settings, paths)
    assert not paths.mlflow.exists()


def test_metrics_that_were_not_compared_with_shortcuts_are_refused(tmp_path: Path) -> None:
    settings, paths = trained_workspace.make(tmp_path, store=False)
    metrics = json.loads(paths.metrics.read_text())
    del metrics["shortcuts"]
    trained_workspace.write(paths.metrics, json.dumps(metrics))
    with pytest.raises(MissingInputError, match=r"comparison with shortcuts, found none; run `radtransfer audit-shortcuts`"):
        register.run(settings, paths)


def test_a_split_made_after_the_training_is_refused(tmp_path: Path) -> None:
    settings, paths = trained_workspace.make(tmp_path, store=False)
    split = pd.read_parquet(paths.split)
    split.assign(part=split["part"].to_numpy()[::-1]).to_parquet(paths.split)
    with pytest.raises(MissingInputError, match=r"split.parquet: expected the split that the model was trained on"):
        register.run(settings, paths)


def test_a_policy_with_an_unknown_gate_is_refused(tmp_path: Path) -> None:
    settings, paths = trained_workspace.make(tmp_path)
    trained_workspace.write(paths.policy, "min_f1: 0.5\n")
    with pytest.raises(ConfigurationError, match=r"policy.yaml min_f1: unknown key"):
        register.run(settings, paths)


def test_the_repositorys_registry_assets_are_those_of_the_code(repository: Path) -> None:
    assert (repository / "mlflow" / "policy.yaml").read_text() == config.render(Policy())
    assert (repository / "mlflow" / "model_card.md").read_text() == model_card.MODEL_CARD


def test_a_hospital_may_have_its_own_model_card_and_a_long_one_is_cut(tmp_path: Path) -> None:
    (tmp_path / "model_card.md").write_text("Ours: $model")
    assert model_card.template(tmp_path) == "Ours: $model"
    assert model_card.template(tmp_path / "none") == model_card.MODEL_CARD
