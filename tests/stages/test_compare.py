"""The compare stage on a tiny workspace: the same patients for all, each training once, and words that the figures bear out."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import trained_workspace
from mlflow import MlflowClient
from rich.text import Text
from tiny_workspace import PER_SHARD, save_blind, save_tiny, write_workspace

from pipelines import files, tracking_store
from pipelines.config import Config, render
from pipelines.errors import ConfigurationError, ServiceError, TrainingError
from pipelines.imaging.store import ArrayStore
from pipelines.metrics import comparison_plots
from pipelines.paths import Paths
from pipelines.stages import compare
from pipelines.stages.compare import CompareSummary
from pipelines.training import trial as trials
from pipelines.training.trial import Trial

STRATEGIES = ["feature_extraction", "full", "scratch"]
SEEDS = [1, 2]
PICTURES = ("differences.png", "pareto.png", "learning_curve.png")


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    save_tiny(tmp_path / "weights", seed=4)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A workspace; pictures take most of the time of these tests, and are drawn in `compared` only."""
    monkeypatch.setattr(
        comparison_plots, "draw", lambda curves, *_: dict.fromkeys(PICTURES[: 3 - (min(map(len, curves.values())) < 2)], b"")
    )
    return write_workspace(tmp_path / "workspace")


@dataclass(frozen=True)
class Compared:
    paths: Paths
    summary: CompareSummary


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """One comparison, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADTRANSFER_WEIGHTS", str(folder / "weights"))
        save_tiny(folder / "weights", seed=4)
        paths = write_workspace(folder / "workspace")
        return Compared(paths, compare.run(config(), paths))


def config(train: dict[str, Any] | None = None, **changes: Any) -> Config:
    own = {"strategies": STRATEGIES, "seeds": SEEDS, "bootstrap": 100, "mlflow": False, **changes}
    settings = {"backbone": "resnet10", "weights": "tiny", "epochs": 1, "batch_size": 12, "device": "cpu", **(train or {})}
    return Config.model_validate({"task": {"kind": "binary", "targets": ["left"]}, "train": settings, "compare": own})


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """The trials that are really trained from now on."""
    done: list[Trial] = []
    tried = trials._tried

    def counting(trial: Trial, *rest: Any) -> Any:
        done.append(trial)
        return tried(trial, *rest)

    monkeypatch.setattr(trials, "_tried", counting)
    return done


def test_every_way_is_trained_with_every_seed_and_compared(compared: Compared) -> None:
    summary = compared.summary
    assert summary.trained == len(STRATEGIES) * len(SEEDS)
    assert {way.strategy for way in summary.ways} == set(STRATEGIES)
    assert [way.auroc.value for way in summary.ways] == sorted((way.auroc.value for way in summary.ways), reverse=True)
    ways = {way.strategy: way for way in summary.ways}
    assert ways["scratch"].over_scratch is ways["scratch"].over_probe is None
    assert ways["feature_extraction"].over_probe is None
    gain = ways["full"].auroc.value - ways["scratch"].auroc.value
    assert ways["full"].over_scratch.value == pytest.approx(gain)
    assert ways["full"].over_probe.value == pytest.approx(ways["full"].auroc.value - ways["feature_extraction"].auroc.value)
    assert summary.ways[0].behind.value == 0
    assert {way.unfinished for way in summary.ways if way.strategy != "feature_extraction"} == {len(SEEDS)}  # of one epoch
    described = summary.describe()
    assert f"best: {summary.ways[0].title}" in described
    assert "radtransfer evaluate` says on the test part how good it is" in described


def test_cost_is_counted_in_images_through_the_network(paths: Paths) -> None:
    ways = {way.strategy: way for way in compare.run(config({"epochs": 2}), paths).ways}
    assert ways["feature_extraction"].passes == ways["full"].images  # once
    assert ways["full"].passes == 2 * ways["full"].images
    assert all(way.seconds > 0 for way in ways.values())


@pytest.mark.parametrize(
    ("strategy", "passes"),
    [
        ({"name": "auto_rgn"}, 4),  # an epoch's images once for its rates, and once to learn
        ({"name": "full", "batch_norm": "adaptive"}, 3),
    ],
)
def test_passes_that_only_estimate_something_cost_as_well(paths: Paths, strategy: dict[str, Any], passes: int) -> None:
    (way,) = compare.run(config({"epochs": 2, "strategy": strategy}, strategies=[strategy["name"]], seeds=[1]), paths).ways
    assert way.passes == passes * way.images


def test_what_is_written_is_what_is_said(compared: Compared) -> None:
    paths, summary = compared.paths, compared.summary
    written = json.loads((paths.comparison / "comparison.json").read_text())
    assert written["verdicts"] == list(summary.verdicts)
    assert [way["strategy"] for way in written["ways"]] == [way.strategy for way in summary.ways]
    runs = pd.read_csv(paths.comparison / "runs.csv")
    means = runs.groupby("strategy")["auroc"].mean()
    assert {way.strategy: way.auroc.value for way in summary.ways} == pytest.approx(means.to_dict())
    assert (paths.workspace / summary.figures[0]).read_bytes().startswith(b"\x89PNG")


def test_a_second_call_trains_nothing_and_says_the_same(compared: Compared, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, first = compared.paths, compared.summary
    before = {path.name: path.read_bytes() for path in paths.comparison.rglob("*") if path.is_file()}
    done = counted(monkeypatch)
    again = compare.run(config(), paths)
    assert done == []
    assert again == replace(first, trained=0)
    assert {path.name: path.read_bytes() for path in paths.comparison.rglob("*") if path.is_file()} == before


def test_a_call_that_was_killed_goes_on_with_what_is_missing(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    done, tried = counted(monkeypatch), trials._tried

    def killed(trial: Trial, *rest: Any) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        return tried(trial, *rest)

    monkeypatch.setattr(trials, "_tried", killed)
    with pytest.raises(KeyboardInterrupt):
        compare.run(config(), paths)
    monkeypatch.setattr(trials, "_tried", tried)
    assert compare.run(config(), paths).trained == 3
    assert len(done) == len(set(done)) == 6


@pytest.mark.parametrize(
    ("train", "changes", "missing"),
    [
        ({"epochs": 2}, {}, 6),
        ({}, {"seeds": [1, 2, 3]}, 3),
        ({}, {"strategies": [*STRATEGIES, "head_only"]}, 2),
        ({}, {"stopping": 0.4}, 6),
        ({"operating_point": {"rule": "sensitivity"}}, {"bootstrap": 200}, 0),
        ({"strategy": {"name": "full"}}, {}, 0),
        ({"strategy": {"name": "full", "learning_rate": 0.001}}, {}, 2),
    ],
    ids=["epochs", "a seed", "a strategy", "the share to stop by", "nothing that decides", "the name alone", "a rate"],
)
def test_only_what_was_decided_otherwise_is_trained_anew(
    train: dict[str, Any], changes: dict[str, Any], missing: int, compared: Compared
) -> None:
    assert len(compare.outstanding(config(train, **changes), compared.paths)) == missing


def test_other_labels_are_another_comparison(compared: Compared, tmp_path: Path) -> None:
    shutil.copytree(compared.paths.workspace, tmp_path / "copy")
    paths = Paths(tmp_path / "copy")
    assert compare.outstanding(config(), paths) == []
    labels = pd.read_parquet(paths.labels)
    files.write_table(paths.labels, labels.assign(left=labels["right"].fillna(0)))
    assert len(compare.outstanding(config(), paths)) == 6


def test_what_was_learnt_from_other_draws_is_trained_anew(compared: Compared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "DRAWS", trials.DRAWS + 1)
    assert len(compare.outstanding(config(), compared.paths)) == 6


def test_parameters_that_were_never_reached_do_not_count_as_trained(paths: Paths) -> None:
    gradual = {"name": "gradual", "unfreeze_every": 3}
    settings = config({"epochs": 2, "strategy": gradual}, strategies=["gradual", "head_only"], seeds=[1])
    ways = {way.strategy: way.trained for way in compare.run(settings, paths).ways}
    assert ways["gradual"] == ways["head_only"]


def test_a_strategy_that_the_network_cannot_have_is_left_out_with_the_reason(paths: Paths) -> None:
    summary = compare.run(config(strategies=["feature_extraction", "lora"]), paths)
    assert [way.strategy for way in summary.ways] == ["feature_extraction"]
    assert "resnet10 has none; choose a transformer" in summary.failed["resnet10@tiny lora all"]
    assert "resnet10@tiny lora all" in summary.describe()
    assert compare.outstanding(config(strategies=["feature_extraction", "lora"]), paths) == []
    with pytest.raises(TrainingError, match=r"expected a way to transfer that can be trained here, got none: .*lora"):
        compare.run(config(strategies=["lora"]), paths)


def test_weights_that_were_missing_are_looked_for_again(paths: Paths, tmp_path: Path) -> None:
    shutil.move(tmp_path / "weights", tmp_path / "elsewhere")
    settings = config(strategies=["feature_extraction", "scratch"])
    with pytest.raises(TrainingError, match=r"got only training from scratch: resnet10@tiny feature_extraction all: .*tiny"):
        compare.run(settings, paths)
    shutil.move(tmp_path / "elsewhere", tmp_path / "weights")
    again = compare.run(settings, paths)
    assert (again.trained, again.failed) == (2, {})  # those from scratch were kept


def test_a_source_without_weights_is_left_out_with_the_reason_where_another_has_them(paths: Paths) -> None:
    settings = config(sources=["resnet10@tiny", "resnet10@absent"], strategies=["feature_extraction", "scratch"], seeds=[1])
    summary = compare.run(settings, paths)
    assert {way.strategy for way in summary.ways} == {"feature_extraction", "scratch"}
    assert "absent" in summary.failed["resnet10@absent feature_extraction all"]
    assert "left out resnet10@absent feature_extraction all" in Text.from_markup(summary.describe()).plain


def test_only_training_from_scratch_can_be_asked_for(paths: Paths) -> None:
    assert [way.strategy for way in compare.run(config(strategies=["scratch"], seeds=[1]), paths).ways] == ["scratch"]


def test_what_nobody_foresaw_ends_the_call(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(trials, "learn", broken)
    with pytest.raises(ZeroDivisionError):
        compare.run(config(), paths)


def test_neither_test_nor_validation_images_are_learnt_from(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    split = pd.read_parquet(paths.split)
    third = split["patient"].isin(sorted(split["patient"].unique())[::5])
    files.write_table(paths.split, split.assign(part=split["part"].mask(third, "test")))
    seen: list[tuple[str, set[str]]] = []
    learn, take = trials.learn, ArrayStore.take
    stage = ["judging"]

    def learning(*arguments: Any) -> Any:
        stage[0] = "learning"
        try:
            return learn(*arguments)
        finally:
            stage[0] = "judging"

    def looked(store: ArrayStore, shards: Any, rows: Any) -> Any:
        seen.append((stage[0], {f"2.25.{number}" for number in shards * PER_SHARD + rows}))
        return take(store, shards, rows)

    monkeypatch.setattr(trials, "learn", learning)
    monkeypatch.setattr(ArrayStore, "take", looked)
    compare.run(config(), paths)
    part = pd.read_parquet(paths.split).set_index("image")["part"]
    found = {
        when: {part[image] for which, images in seen if which == when for image in images} for when in ("learning", "judging")
    }
    assert found == {"learning": {"train"}, "judging": {"validation"}}


def test_sizes_make_a_learning_curve_and_the_verdict_is_on_the_largest(paths: Paths) -> None:
    summary = compare.run(config(sizes=[8, 20]), paths)
    assert [way.size for way in summary.ways] == [8, 8, 8, 20, 20, 20]
    assert [way.images for way in summary.ways] == [8, 8, 8, 20, 20, 20]
    assert summary.verdicts[0].startswith(f"best: {summary.ways[3].title}")
    assert "artifacts/compare/figures/learning_curve.png" in summary.figures
    compare.run(config(sizes=[20]), paths)
    assert {path.name for path in (paths.comparison / "figures").iterdir()} == {"differences.png", "pareto.png"}
    with pytest.raises(ConfigurationError, match=r"compare.sizes: expected at most 30, .* less 6 for early stopping .* got 31"):
        compare.run(config(sizes=[8, 31]), paths)


def test_recommended_is_one_curve_whatever_it_comes_to(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(comparison_plots, "draw", lambda *given: drawn.append(given) or {})
    summary = compare.run(config(sizes=[6, 20], strategies=["recommended"], seeds=[1]), paths)
    assert [way.label for way in summary.ways] == ["recommended: last_groups", "recommended: differential"]
    ((curves, final, _),) = drawn
    assert {name: [point.images for point in points] for name, points in curves.items()} == {"recommended": [6, 20]}
    assert [point.name for point in final] == ["recommended"]


def test_with_one_seed_its_luck_is_said_not_to_be_in_the_interval(paths: Paths) -> None:
    assert "one seed: the luck of the seed is not in these intervals" in compare.run(config(seeds=[1]), paths).describe()


def test_several_sources_are_named_and_scratch_is_trained_once_for_a_network(paths: Paths, tmp_path: Path) -> None:
    found = save_tiny(tmp_path / "weights", seed=4)
    shutil.copyfile(found.path, tmp_path / "weights" / "other.safetensors")
    passport = json.loads(found.path.with_suffix(".json").read_text())
    (tmp_path / "weights" / "other.json").write_text(json.dumps({**passport, "name": "other", "file": "other.safetensors"}))
    sources = ["resnet10@tiny", "resnet10@other", "resnet10@scratch"]
    summary = compare.run(config(sources=sources, strategies=["feature_extraction", "scratch"], seeds=[1]), paths)
    labels = {way.label for way in summary.ways}
    assert labels == {"feature_extraction, resnet10@tiny", "feature_extraction, resnet10@other", "scratch, resnet10@scratch"}


def test_several_networks_are_named_in_the_table_the_figures_and_the_verdicts(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(comparison_plots, "draw", lambda *given: drawn.append(given) or {})
    sources = ["resnet10@tiny", "resnet18@scratch"]
    summary = compare.run(config(sources=sources, strategies=["feature_extraction", "scratch"], seeds=[1]), paths)
    labels = {"feature_extraction, resnet10@tiny", "scratch, resnet10@scratch", "scratch, resnet18@scratch"}
    assert {way.label for way in summary.ways} == labels
    ((curves, final, _),) = drawn
    assert {name: [point.name for point in points] for name, points in curves.items()} == {name: [name] for name in labels}
    assert {point.name for point in final} == labels
    (of_transfer,) = [line for line in summary.verdicts if "training resnet10 from scratch" in line]
    assert "(feature_extraction, resnet10@tiny)" in of_transfer


@pytest.mark.parametrize("source", ["resnet10", "@tiny", "resnet10@"])
def test_a_source_is_a_network_and_its_weights(paths: Paths, source: str) -> None:
    with pytest.raises(ConfigurationError, match=r"compare.sources: expected BACKBONE@WEIGHTS, got"):
        compare.run(config(sources=[source]), paths)


def test_a_source_that_sees_nothing_is_found_to_hurt(paths: Paths, tmp_path: Path) -> None:
    save_blind(tmp_path / "weights")
    settings = {"sources": ["resnet10@blind"], "strategies": ["feature_extraction", "scratch"], "seeds": [1, 2, 3, 4, 5]}
    summary = compare.run(config({"epochs": 15, "patience": 15}, **settings), paths)
    assert [way.strategy for way in summary.ways] == ["scratch", "feature_extraction"]
    assert summary.ways[1].auroc.value == pytest.approx(0.5, abs=0.1)
    assert any(line.startswith("transfer hurts: a linear probe") for line in summary.verdicts)
    assert "nothing here is shown to be better than training from scratch" in summary.verdicts


def test_a_source_that_does_not_exist_is_said_to_be_one_of_these(paths: Paths) -> None:
    with pytest.raises(ConfigurationError, match=r"^params\.yaml compare\.sources: expected one of resnet10, .*, got 'foo'"):
        compare.run(config(sources=["foo@imagenet"]), paths)
    with pytest.raises(ConfigurationError, match=r"^params\.yaml train\.backbone: expected one of"):
        compare.run(config({"backbone": "foo"}), paths)
    sources = ["resnet10@tiny", "resnet10@nothing"]
    summary = compare.run(config(sources=sources, strategies=["feature_extraction"], seeds=[1]), paths)
    (reason,) = summary.failed.values()
    assert reason.startswith("params.yaml compare.sources: expected a passport for resnet10")


def test_an_adaptation_is_refused_since_its_target_does_not_judge(paths: Paths) -> None:
    with pytest.raises(ConfigurationError, match=r"train.adaptation.method: expected null"):
        compare.run(config({"adaptation": {"method": "coral"}}), paths)


def test_the_command_that_it_names_trains_the_best_in_the_same_way(paths: Paths) -> None:
    settings = {"strategy": {"name": "differential", "learning_rate": 0.5, "decay": 0.5}}
    summary = compare.run(config(settings, strategies=["full"], seeds=[1]), paths)
    assert "--set train.strategy.name=full" in summary.command
    assert "--set train.strategy.learning_rate=null" in summary.command
    assert "seed" not in summary.command
    kept = compare.run(config({"strategy": {"name": "full"}}, strategies=["full"], seeds=[1]), paths)
    assert (kept.trained, kept.command) == (0, "radtransfer train")
    paths.params.write_text(render(Config()))
    whole = compare.run(config({"strategy": {"name": "full"}}, strategies=["full"], seeds=[1]), paths)
    assert "--set train.backbone=resnet10" in whole.command
    assert "--set train.weights=tiny" in whole.command


@pytest.fixture
def logged(paths: Paths) -> Paths:
    """A workspace with an empty MLflow database, which takes MLflow seconds to make."""
    paths.mlflow.mkdir(parents=True)
    (paths.mlflow / "mlflow.db").write_bytes(trained_workspace._empty_store())
    return paths


def test_every_training_is_a_run_below_one_parent_and_is_there_once(logged: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {"train": {"backbone": "resnet18"}, "sources": ["resnet10@tiny"]}  # what train would take is not in it
    settings = config(**sources, strategies=["feature_extraction", "scratch", "lora"], mlflow=True)
    summary = compare.run(settings, logged)
    compare.run(settings, logged)
    client = MlflowClient(tracking_uri=tracking_store.local_uri(logged))
    (experiment,) = [each for each in client.search_experiments() if each.name == "radtransfer"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.run_name == "compare resnet10"
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert len(children) == 6
    assert sorted(run.info.status for run in children) == ["FAILED"] * 2 + ["FINISHED"] * 4
    best = next(run for run in children if run.data.params["strategy"] == "scratch")
    assert best.data.metrics["auroc"] in {auroc for way in summary.ways for auroc in way.aurocs}
    assert client.get_metric_history(best.info.run_id, "stopping/train_loss")
    assert parent.data.metrics["best_auroc"] == pytest.approx(summary.ways[0].auroc.value)
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} == {"comparison.json", "figures", "runs.csv"}
    assert {run.data.tags["mlflow.user"] for run in runs} == {"radtransfer"}


def test_logging_that_was_cut_short_is_finished_and_says_nothing_twice(logged: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.tracking import comparison

    settings = config(strategies=["feature_extraction", "scratch"], mlflow=True)
    record, calls = comparison.record, []

    def failing(*arguments: Any) -> None:
        calls.append(arguments)
        record(*arguments)
        if len(calls) == 3:
            raise OSError("the server went away")

    monkeypatch.setattr(comparison, "record", failing)
    with pytest.raises(ServiceError, match=r"the comparison itself is done and kept: call `radtransfer compare` again"):
        compare.run(settings, logged)
    monkeypatch.setattr(comparison, "record", record)
    compare.run(settings, logged)
    client = MlflowClient(tracking_uri=tracking_store.local_uri(logged))
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert len(runs) == 5
    assert {run.info.status for run in runs} == {"FINISHED"}
    points = [client.get_metric_history(run.info.run_id, name) for run in runs for name in run.data.metrics]
    assert {len(of_one) for of_one in points} == {1}  # one epoch


def test_where_there_are_further_tasks_the_main_one_judges(paths: Paths) -> None:
    """The further one is learnt from, and decides neither who judges nor what is judged."""
    settings, labels = config(seeds=[1]), pd.read_parquet(paths.labels)
    also = {"other": {"kind": "binary", "targets": ["right"]}}
    task = type(settings.task).model_validate({"kind": "binary", "targets": ["left"], "also": also})
    files.write_table(paths.labels, labels.assign(left=labels["left"].mask(labels.index % 10 == 6)))
    summary = compare.run(settings.model_copy(update={"task": task}), paths)
    alone = compare.run(settings, paths)
    assert summary.judged == alone.judged
    assert summary.judged[0] < pd.read_parquet(paths.split)["part"].eq("validation").sum()
    assert {way.strategy for way in summary.ways} == {*STRATEGIES} == {way.strategy for way in alone.ways}
    both, one = ({way.strategy: way.aurocs for way in found.ways} for found in (summary, alone))
    assert both["full"] != one["full"]
