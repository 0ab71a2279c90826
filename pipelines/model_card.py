"""The model card: what a person who is asked to promote a version reads first, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from pipelines.gates import Verdict
from pipelines.metrics.thresholds import spelled
from pipelines.records import PARTS

MODEL_CARD = """\
# $model

Says of a radiograph: **$outputs**. For research; **not a medical device**.

Review the packet (`packet.html`, an artifact of the run) before promoting. A person promotes a version by giving it the alias
`champion`; `radtransfer predict` then uses it.

## On the test part (95% intervals over patients)

| | AUROC | sensitivity | specificity | ECE | threshold |
|---|---|---|---|---|---|
$metrics

## Gates

$gates

## Data

| part | images | patients |
|---|---|---|
$data

## How it was made

- network: $backbone, $size × $size pixels; strategy: $strategy
- pretraining: $pretraining; licence: $licence
- pretrained weights, SHA-256: $weights
- data: $data_hash; split: $split
- git commit: $commit; radtransfer $version

## How to use it

`mlflow.pyfunc.load_model("models:/$model@champion").predict([path_or_bytes, …])` takes DICOM files, as paths or as bytes, and
gives a table of probabilities.
"""

# MLflow's database holds no longer description
LONGEST = 5000
_SHOWN = ("auroc", "sensitivity", "specificity", "ece")


def template(folder: Path) -> str:
    """The text of `model_card.md` in a folder of registry assets, or `MODEL_CARD` where there is none."""
    own = folder / "model_card.md"
    return own.read_text() if own.is_file() else MODEL_CARD


def fill(
    text: str,
    model: str,
    card: Mapping[str, Any],
    metrics: Mapping[str, Any],
    certificate: Mapping[str, Any],
    verdicts: Sequence[Verdict],
    tags: Mapping[str, str],
) -> str:
    """Fill in the `$names` of a model card; one that is not known stays as it is, and a card that is too long is cut.

    Args:
        text: the template.
        model: name of the registered model.
        card: content of model.json.
        metrics: content of metrics.json.
        certificate: content of leakage.json.
        verdicts: what the gates said.
        tags: of the version.
    """
    filled = Template(text).safe_substitute(
        model=model,
        outputs=", ".join([*card["task"]["outputs"], *(head["name"] for head in card["task"].get("also", ()))]),
        backbone=card["architecture"]["backbone"],
        size=card["recipe"]["size"],
        strategy=_strategy(card),
        pretraining=tags["pretraining"],
        licence=tags["weights.licence"],
        metrics="\n".join(_metric_rows(metrics)),
        gates="\n".join(f"- {'passed' if verdict.passed else '**failed**'}: {verdict.words}" for verdict in verdicts),
        data="\n".join(f"| {part} | {_counts(certificate['parts'][part])} |" for part in PARTS),
        data_hash=tags["data.hash"],
        split=tags["split.sha256"],
        weights=tags["weights.sha256"],
        commit=tags["git.commit"],
        version=tags["radtransfer.version"],
    )
    return filled if len(filled) <= LONGEST else filled[: LONGEST - 1] + "…"


def _strategy(card: Mapping[str, Any]) -> str:
    """Its name, and why if it was recommended; how the model was adapted to a hospital without labels, and whether it helped."""
    strategy, adaptation = card["strategy"], card.get("training", {}).get("adaptation")
    name = f"{strategy['name']} ({strategy['recommended']})" if "recommended" in strategy else str(strategy["name"])
    return f"{name}, adapted by {adaptation['method']}: {adaptation['says']}" if adaptation else name


def _metric_rows(metrics: Mapping[str, Any]) -> Iterator[str]:
    yield from _main_rows(metrics)
    if tasks := metrics.get("tasks"):
        yield "\nTasks beside the main one, which the gates do not judge:\n"
        for name, judged in tasks.items():
            unit = f" ({judged['unit']})" if "unit" in judged else ""
            told = ", ".join(f"{metric} {_interval(value)}" for metric, value in judged["metrics"].items())
            yield f"- {name}{unit}, {judged['kind']}, {judged['images']} images: {told}"


def _main_rows(metrics: Mapping[str, Any]) -> Iterator[str]:
    several = {"mean": metrics["macro"]} if len(metrics["outputs"]) > 1 else {}
    for name, group in {**metrics["outputs"], **several}.items():
        threshold = spelled(group["threshold"]) if "threshold" in group else ""
        yield f"| {name} | {' | '.join(_interval(group[metric]) for metric in _SHOWN)} | {threshold} |"


def _interval(interval: Mapping[str, float | None]) -> str:
    value, low, high = (interval[key] for key in ("value", "low", "high"))
    if value is None:
        return "undefined"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f}–{high:.3f})"


def _counts(part: Mapping[str, Any]) -> str:
    return f"{part['images']} | {part['patients']}"
