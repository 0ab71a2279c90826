"""The steps of the work, one module each with one `run`, and the table of those that DVC reproduces.

The table is the contents page of the pipeline: `dvc.yaml` is rendered from it, the flows take their task names from it,
and a test holds it against `dvc.yaml`, `params.yaml` and the schema.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage of the reproducible pipeline; every path is relative to the workspace.

    Attributes:
        name: the module under `pipelines.stages` and the section of params.yaml.
        deps: files and folders read.
        params: sections of params.yaml read, besides its own.
        code: sources under the package that decide the result.
        outs: files and folders written, cached by DVC.
        metrics: JSON files for `dvc metrics`, kept in git.
        keep: leave the earlier outputs in place, since the stage adds to them.
    """

    name: str
    deps: tuple[str, ...]
    code: tuple[str, ...]
    outs: tuple[str, ...]
    params: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    keep: bool = False

    @property
    def command(self) -> str:
        """What follows `radtransfer`: the name, as one writes it on the command line."""
        return self.name.replace("_", "-")


STAGES = (
    Stage(
        "prepare",
        deps=("data/dicom", "data/manifest.parquet"),
        code=("pipelines/stages/prepare.py", "pipelines/imaging"),
        outs=("artifacts/prepared",),
        keep=True,
    ),
    Stage(
        "check",
        deps=("artifacts/prepared/index.parquet", "data/labels.parquet"),
        params=("task",),
        code=("pipelines/stages/check.py", "pipelines/quality"),
        outs=("artifacts/quality",),
    ),
    Stage(
        "split",
        deps=("artifacts/prepared/index.parquet", "data/labels.parquet", "artifacts/quality/result.json"),
        params=("task",),
        code=(
            "pipelines/stages/split.py",
            "pipelines/quality/tables.py",
            "pipelines/quality/partition.py",
            "pipelines/quality/leakage.py",
        ),
        outs=("artifacts/split.parquet", "artifacts/leakage.json"),
    ),
    Stage(
        "audit_shortcuts",
        deps=("artifacts/prepared", "data/labels.parquet", "artifacts/split.parquet"),
        params=("task",),
        code=(
            "pipelines/stages/audit_shortcuts.py",
            "pipelines/quality/shortcuts.py",
            "pipelines/quality/shortcut_audit.py",
            "pipelines/quality/leakage.py",
            "pipelines/metrics/evaluation.py",
            "pipelines/metrics/intervals.py",
            "pipelines/metrics/discrimination.py",
            "pipelines/imaging/resample.py",
        ),
        outs=("artifacts/shortcuts/shortcuts.json", "artifacts/shortcuts/scores.parquet"),
    ),
    Stage(
        "train",
        deps=("artifacts/prepared", "data/labels.parquet", "artifacts/split.parquet"),
        params=("task",),
        code=(
            "pipelines/stages/train.py",
            "pipelines/models",
            "pipelines/transfer",
            "pipelines/training",
            "pipelines/imaging",
            "pipelines/metrics/discrimination.py",
            "pipelines/metrics/intervals.py",
            "pipelines/metrics/numbers.py",
            "pipelines/metrics/paired.py",
            "pipelines/metrics/power.py",
            "pipelines/metrics/thresholds.py",
            "pipelines/inference.py",
            "pipelines/quality/leakage.py",
            "pipelines/quality/partition.py",
        ),
        outs=(
            "artifacts/model/model.safetensors",
            "artifacts/model/model.json",
            "artifacts/model/validation.parquet",
            "artifacts/model/history.csv",
        ),
    ),
    Stage(
        "evaluate",
        deps=(
            "artifacts/model/model.safetensors",
            "artifacts/model/model.json",
            "artifacts/model/history.csv",
            "artifacts/prepared",
            "data/flow.json",
            "data/labels.parquet",
            "artifacts/split.parquet",
            "artifacts/leakage.json",
            "artifacts/quality/result.json",
            "artifacts/shortcuts/scores.parquet",
            "artifacts/shortcuts/shortcuts.json",
        ),
        params=("task",),
        code=(
            "pipelines/stages/evaluate.py",
            "pipelines/tested.py",
            "pipelines/metrics",
            "pipelines/inference.py",
            "pipelines/quality/leakage.py",
            "pipelines/quality/shortcuts.py",
            "pipelines/quality/shortcut_comparison.py",
            "pipelines/training/answers.py",
            "pipelines/packet.py",
            "pipelines/packet_cases.py",
            "pipelines/packet.html.j2",
        ),
        outs=(
            "artifacts/evaluation/predictions.parquet",
            "artifacts/evaluation/packet.html",
            "artifacts/evaluation/figures",
            "artifacts/evaluation/roc.csv",
            "artifacts/evaluation/precision_recall.csv",
            "artifacts/evaluation/reliability.csv",
            "artifacts/evaluation/confusion.csv",
        ),
        metrics=("artifacts/evaluation/metrics.json",),
    ),
)


@dataclass(frozen=True)
class Plot:
    """One picture of `dvc plots show`: a table that a stage writes, and what is drawn of it."""

    title: str
    table: str
    x: str
    y: tuple[str, ...]
    template: str = "linear"


PLOTS = (
    Plot("loss", "artifacts/model/history.csv", "epoch", ("train_loss", "validation_loss")),
    Plot("validation_auroc", "artifacts/model/history.csv", "epoch", ("validation_auroc",)),
    Plot("roc", "artifacts/evaluation/roc.csv", "fpr", ("tpr",), "simple"),
    Plot("precision_recall", "artifacts/evaluation/precision_recall.csv", "recall", ("precision",), "simple"),
    Plot("reliability", "artifacts/evaluation/reliability.csv", "predicted", ("observed",), "simple"),
    Plot("confusion", "artifacts/evaluation/confusion.csv", "actual", ("predicted",), "confusion"),
)
