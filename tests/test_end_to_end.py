"""The main job as a user types it, on the demo's hospital: one flow run, then what DVC, git and a second run make of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest

from pipelines import config, demo, files, versioning, workspace
from pipelines.paths import Paths
from pipelines.phantom import cohort as phantom
from pipelines.phantom.cohort import Cohort
from pipelines.stages import audit_shortcuts

pytestmark = pytest.mark.timeout(1200)  # the first test waits for the whole job

SETTINGS = (
    "prepare.size=64",
    "prepare.shard_images=32",
    "train.strategy.name=scratch",
    "train.epochs=2",
    "evaluate.bootstrap=100",
    "evaluate.worst=2",
)
IDENTIFYING = ("PatientName", "PatientID", "PatientAddress", "AccessionNumber", "InstitutionName", "ReferringPhysicianName")


@dataclass(frozen=True)
class Work:
    """A workspace after `radtransfer run`, and what the command said."""

    paths: Paths
    cohort: Cohort
    environment: dict[str, str]
    exit_code: int
    summary: dict[str, Any]
    log: str

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.paths.workspace, env=self.environment, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    home = tmp_path_factory.mktemp("hospital")
    cohort = phantom.write(home / "source")
    paths = Paths(home / "ws")
    workspace.create(paths, demo.settings())
    workspace.set_params(paths, SETTINGS)
    environment = {
        **versioning.environment(),
        "HOME": str(home),
        "RADTRANSFER_PSEUDONYM_KEY": demo.DEMO_KEY,
        "RADTRANSFER_QUARANTINE": str(home / "quarantine"),
    }
    command = ["radtransfer", "run", "--source", str(cohort.folder), "--labels", str(cohort.labels), "--json"]
    done = subprocess.run(command, cwd=paths.workspace, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return Work(paths, cohort, environment, done.returncode, json.loads(done.stdout), done.stderr)


def test_the_flow_registers_a_model_and_its_exit_code_is_the_gates(work: Work) -> None:
    assert "register" in work.summary, work.log[-3000:]
    assert work.summary["trained"]
    assert work.summary["register"]["version"] == "1"
    assert work.exit_code == (0 if work.summary["passed"] else 1)
    assert work.paths.packet.is_file()
    assert work.paths.data_docs.is_file()


def test_every_planted_file_was_set_aside_with_its_reason(work: Work) -> None:
    flow = json.loads(work.paths.flow.read_text())
    left_out = pd.read_parquet(work.paths.index)["left_out"].dropna()
    expected = Counter((planted.stage, planted.reason.value) for planted in work.cohort.planted if planted.reason)
    assert {reason: count for (stage, reason), count in expected.items() if stage == "ingest"} == flow["set_aside"]
    assert {
        reason: count for (stage, reason), count in expected.items() if stage == "prepare"
    } == left_out.value_counts().to_dict()
    assert flow["found"] == flow["images"] + sum(flow["set_aside"].values())


def test_the_cohort_comes_out_with_exactly_the_bytes_that_the_repositorys_data_dvc_records(work: Work, repository: Path) -> None:
    assert versioning.data_hash(work.paths) == versioning.data_hash(Paths(repository))


def test_git_records_the_data_and_the_run(work: Work) -> None:
    subjects = work.call("git", "log", "--format=%s").stdout.splitlines()
    assert subjects[0].startswith("Retrain: ")
    assert subjects[1].startswith("Ingest ")
    assert "new studies" in subjects[1]
    assert work.call("git", "status", "--porcelain").stdout == ""


def test_a_second_repro_does_nothing(work: Work) -> None:
    done = work.call("dvc", "repro")
    assert done.returncode == 0, done.stderr
    assert "Data and pipelines are up to date" in done.stdout
    assert "Running stage" not in done.stdout


def test_a_second_run_skips_training_and_registers_nothing_new(work: Work) -> None:
    done = work.call("radtransfer", "run", "--source", str(work.cohort.folder), "--labels", str(work.cohort.labels), "--json")
    summary = json.loads(done.stdout)
    assert not summary["trained"]
    assert summary["register"]["version"] == "1"
    assert summary["register"]["already"]
    assert "training is skipped" in done.stderr


def test_metrics_and_plots_are_declared(work: Work) -> None:
    shown = json.loads(work.call("dvc", "metrics", "show", "--json").stdout)
    assert "artifacts/evaluation/metrics.json" in shown[""]["data"]
    done = work.call("dvc", "plots", "show", "--out", "plots")
    assert done.returncode == 0, done.stderr
    page = (work.paths.workspace / "plots" / "index.html").read_text()
    assert all(title in page for title in ("loss", "roc", "precision_recall", "reliability", "confusion"))
    work.call("rm", "-r", "plots")


def bright_marker(index: pd.DataFrame, images: np.ndarray, positive: np.ndarray) -> None:
    images[index.loc[positive, "row"], 1:5, 5:10] = 255


def own_site(index: pd.DataFrame, images: np.ndarray, positive: np.ndarray) -> None:
    index.loc[positive, "site"] = "the-hospital-that-is-sent-the-ill"


@pytest.mark.parametrize(("plant", "sees"), [(bright_marker, "border"), (own_site, "equipment")])
def test_the_phantoms_carry_no_shortcut_until_one_is_planted(
    work: Work, plant: Callable[[pd.DataFrame, np.ndarray, np.ndarray], None], sees: str, tmp_path: Path
) -> None:
    found = json.loads(work.paths.shortcuts.read_text())
    assert not found["alarm"], found
    assert found["shortcuts"]["thumbnail"]["macro"]["everyone"]["low"] > 0.55, "disease itself shows in a blurred image"
    planted = Paths(tmp_path)
    shutil.copytree(work.paths.prepared, planted.prepared)
    shutil.copyfile(work.paths.split, planted.split)
    labels = pd.read_parquet(work.paths.labels)
    index = pd.read_parquet(work.paths.index)
    ill = index["image"].isin(labels.loc[labels[phantom.TARGET] == 1, "image"]) & (index["shard"] >= 0)
    for number, shard in enumerate(sorted(planted.prepared.glob("shard-*.npy"))):
        images = np.load(shard)
        plant(index, images, (ill & (index["shard"] == number)).to_numpy())
        np.save(shard, images)
    files.write_table(planted.index, index)
    files.write_table(planted.labels, labels)
    summary = audit_shortcuts.run(config.load(work.paths.params, ["audit_shortcuts.bootstrap=300"]), planted)
    assert set(summary.alarms) == {sees, "surroundings"}


def test_another_strategy_reruns_train_and_evaluate_only(work: Work) -> None:
    done = work.call("dvc", "exp", "run", "-S", "train.strategy.warmup_epochs=0.5")
    assert done.returncode == 0, done.stderr
    ran = [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]
    assert ran == ["train", "evaluate"]
    assert config.load(work.paths.params).train.strategy.warmup_epochs == 0.5
    assert "metrics.json" in work.call("dvc", "metrics", "diff").stdout


def identifiers(cohort: Cohort) -> Iterator[str]:
    """Strings of the source headers that say who the patients are."""
    for file in sorted(cohort.folder.rglob("*")):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except Exception:
            continue
        yield from (str(header[name].value) for name in IDENTIFYING if header.get(name))
        yield str(header.get("SOPInstanceUID", "")).rsplit(".", 1)[0]


def holding(wanted: set[bytes], folder: Path, scratch: Path) -> list[str]:
    """The files in a folder that hold any of the strings, in any byte."""
    assert not any(b"\n" in text or not text for text in wanted)
    strings = scratch / "wanted"
    strings.write_bytes(b"\n".join(sorted(wanted)))
    command = ("grep", "-R", "-a", "-l", "-F", "-f", strings, folder)
    done = subprocess.run(command, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_no_identifier_is_in_any_byte_of_the_workspace(work: Work, tmp_path: Path) -> None:
    wanted = {text.encode() for text in identifiers(work.cohort) if len(text) > 4}
    wanted |= {part for text in list(wanted) for part in text.split(b"^") if len(part) > 5}
    assert len(wanted) > 50
    assert len(holding(wanted, work.cohort.folder, tmp_path)) > work.cohort.images
    everything = [path for path in work.paths.workspace.rglob("*") if path.is_file()]
    assert any(".prefect" in path.parts for path in everything)
    assert any(".mlflow" in path.parts for path in everything)
    found = holding(wanted, work.paths.workspace, tmp_path)
    assert not found, f"identifiers in {found}"
    for path in everything:
        if path.suffix == ".parquet":
            content = pd.read_parquet(path).to_csv().encode()
            assert not [text for text in wanted if text in content], path
    assert not [text for text in wanted if text in work.log.encode()]


def test_a_model_answers_for_a_single_file_and_says_which(work: Work) -> None:
    file = next(path for path in work.cohort.folder.rglob("*.dcm") if path.stat().st_size > 100_000)
    done = work.call("radtransfer", "predict", str(file), "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["answered_by"]
    assert len(answer["predictions"]) == 1
