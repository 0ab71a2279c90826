"""The clinical review packet: everything that a clinician needs to judge a model, in one HTML file that asks for nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipelines.metrics.cohort import Flow, composition, flow
from pipelines.metrics.evaluation import METRICS, Evaluation, OutputEvaluation
from pipelines.metrics.further import TaskEvaluation
from pipelines.metrics.intervals import FEWEST, LEVEL, Interval
from pipelines.metrics.subgroups import Subgroup, attributes
from pipelines.metrics.thresholds import spelled
from pipelines.quality.shortcut_comparison import Comparison
from pipelines.records import PARTS, SELF_SUPERVISED, Head, Task

if TYPE_CHECKING:
    from pipelines.inference import ModelCard

NOTHING = "–"
ENOUGH_EVENTS = 100  # Collins, Ogundimu and Altman, Statistics in Medicine 35 (2016): 100 events and 100 non-events at least
FRACTIONS = ("sensitivity", "specificity", "ppv", "npv")
LIBRARIES = ("radtransfer", "torch", "monai")

RULES = {
    "youden": "the largest sensitivity + specificity − 1 (Youden's index)",
    "sensitivity": "the most specific threshold with a sensitivity of at least {value:.0%}",
    "specificity": "the most sensitive threshold with a specificity of at least {value:.0%}",
}

REASONS = {
    "not_dicom": "not a DICOM file",
    "truncated": "truncated file",
    "unreadable_header": "unreadable header",
    "unknown_vr": "unknown value representation",
    "not_an_image": "a document or report, no image",
    "no_pixel_data": "no pixel data",
    "modality_not_allowed": "other modality",
    "multi_frame": "several frames",
    "not_grayscale": "not grayscale",
    "absurd_size": "absurd image size",
    "transfer_syntax_unsupported": "transfer syntax not supported",
    "missing_sop_instance_uid": "no SOP instance UID",
    "same_sop_instance_uid_different_image": "SOP instance UID used twice",
    "burned_in_annotation": "burned-in annotation",
    "undecodable_pixels": "pixels cannot be decoded",
    "inconsistent_bit_depth": "inconsistent bit depth",
    "constant_image": "constant image",
}

CHECKS = {
    "patients_across_parts": "patients in more than one part",
    "studies_across_parts": "studies in more than one part",
    "identical_images_across_parts": "identical images in more than one part",
    "classes_missing": "classes missing from a part",
    "near_duplicate_pairs_across_parts": "pairs of near-duplicate images across parts",
}


@dataclass(frozen=True)
class Case:
    """One mistake as a reader sees it: the prepared radiograph and its evidence map, both PNG."""

    image: str
    who: str
    output: str
    probability: float
    threshold: float
    picture: bytes
    evidence: bytes


@dataclass(frozen=True)
class Packet:
    """What the packet is made from.

    Attributes:
        card: what model.json says.
        evaluation: of the test part.
        subgroups: for each output, the rows of its table.
        figures: SVG by name (`roc`, `precision_recall`, `reliability`, `confusion`, `shortcuts`).
        false_positives: the worst, worst first.
        false_negatives: the worst, worst first.
        cohort: the index of prepared images, with `part` (None for an image in no part) and `y_NAME` for each output.
        ingest: what data/flow.json says, or None.
        quality: what artifacts/quality/result.json says.
        leakage: the leakage certificate.
        shortcuts: the shortcut audit, and what the model knows beyond each shortcut.
        history: one row per epoch of the training.
        resamples: bootstrap resamples behind the intervals.
        commit: of the code or workspace, if known.
        data_hash: DVC's hash of data/, if known.
        further: the tasks beside the main one, on the test part.
    """

    card: ModelCard
    evaluation: Evaluation
    subgroups: Mapping[str, Sequence[Subgroup]]
    figures: Mapping[str, bytes]
    false_positives: Sequence[Case]
    false_negatives: Sequence[Case]
    cohort: pd.DataFrame
    ingest: Mapping[str, Any] | None
    quality: Mapping[str, Any]
    leakage: Mapping[str, Any]
    shortcuts: Comparison
    history: pd.DataFrame
    resamples: int
    commit: str | None = None
    data_hash: str | None = None
    further: Sequence[TaskEvaluation] = ()


@dataclass(frozen=True)
class ShortcutRow:
    """One line of the table of shortcuts: means over the outputs, and by output the AUROC over all patients and the alarm."""

    title: str
    sees: str
    blind: bool
    alarm: bool
    everyone: Interval
    test: Interval
    gain: Interval
    outputs: Mapping[str, tuple[Interval, bool]]


@dataclass(frozen=True)
class Spark:
    """A curve over the epochs: the points of an SVG polyline in a box of 100 × 28, and what a label says of it."""

    title: str
    points: str
    best_x: float
    best_y: float
    best: float
    low: float
    high: float


def render(packet: Packet) -> str:
    """The packet as HTML; the same facts give the same text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pipelines", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(count=_count, metric=_metric, ends=_ends, percent=_percent, reason=_reason)
    environment.filters.update(measured=_measured, measured_ends=_measured_ends)
    environment.filters.update(spelled=spelled, data_uri=data_uri, signed=_signed, signed_ends=_signed_ends)
    outputs = packet.card.task.outputs
    rows = _shortcuts(packet.shortcuts)
    counted = flow(packet.cohort, outputs, packet.ingest)
    return environment.get_template("packet.html.j2").render(
        packet=packet,
        card=packet.card,
        title=_title(packet.card.task),
        checks=CHECKS,
        outputs=outputs,
        evaluation=packet.evaluation,
        metrics=METRICS,
        level=f"{LEVEL:.0%}",
        fewest=FEWEST,
        flow=counted,
        composition=composition(packet.cohort),
        parts=PARTS,
        people=_people(packet.cohort),
        cautions=_cautions(packet, counted),
        rule=_rule(packet.card),
        shortcuts=rows,
        alarmed=_alarmed(packet.shortcuts),
        best=rows.get(packet.shortcuts.best()),
        gain=packet.shortcuts.gain(),
        gains={output: packet.shortcuts.gain(output) for output in outputs},
        failed=[item for item in packet.quality["expectations"] if not item["passed"]],
        phantom=is_phantom(packet.card),
        says=_says,
        sparks=_sparks(packet.history, int(packet.card.training["best_epoch"]), packet.card.task.score),
        versions={name: metadata.version(name) for name in LIBRARIES},
    )


def is_phantom(card: ModelCard) -> bool:
    """Whether the pretrained weights learned from simulated images, so that they stand in for real ones."""
    passport = card.passport
    return passport is not None and "phantom" in f"{passport.name} {passport.source} {passport.trained_on}".lower()


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _cautions(packet: Packet, counted: Flow) -> list[str]:
    """What a reader must know before reading a number."""
    said = []
    if is_phantom(packet.card):
        said.append(
            "The network was pretrained on simulated images (a phantom task), not on photographs or radiographs, "
            "because no published weights were at hand. Treat this model as a demonstration."
        )
    passport = packet.card.passport
    if passport and passport.source == SELF_SUPERVISED and f"split {packet.leakage['split_sha256'][:16]}" not in passport.notes:
        said.append(
            "The weights it began with learned from radiographs without labels under another split of the patients: images of "
            "test patients may have been among them, and the test may flatter."
        )
    outputs = packet.evaluation.outputs
    if few := [output for output in outputs if min(output.positives, output.negatives) < ENOUGH_EVENTS]:
        counts = ", ".join(_cases(output, packet.card.task) for output in few)
        said.append(
            f"Few test images: {counts}. Below {ENOUGH_EVENTS} of each, estimates are imprecise; "
            "read the intervals, not the values."
        )
    if bare := [output.name for output in outputs if output.metrics["auroc"].low is None]:
        said.append(
            f"There are fewer than {FEWEST} test patients with, or without, {', '.join(bare)}: the AUROC has no interval, and "
            "one patient more could move it far."
        )
    adapted = packet.card.training.get("adaptation")
    if adapted:
        said.append(f"The model was adapted to {_target(adapted)}: {adapted['says']}. {_of_target(packet, adapted)}")
    if not (adapted and adapted["sites"]) and _seen(packet, adapted)["site"].nunique() < 2:
        said.append("All images come from one site. Performance elsewhere is unknown.")
    if alarmed := _alarmed(packet.shortcuts):
        said.append(
            f"Shortcut alarm: in these data the label can be told without seeing a finding, by {alarmed}. The model may have "
            "learned that instead, and would then fail where images are acquired or chosen otherwise. See Shortcuts."
        )
    if unproven := [output.name for output in outputs if not (packet.shortcuts.gain(output.name).low or 0) > 0]:
        of = "" if len(outputs) == 1 else f" of {', '.join(unproven)}"
        said.append(f"It is not shown that the model knows more{of} than the best shortcut does. See Shortcuts.")
    if lacking := [judged.head.name for judged in packet.further if not judged.images]:
        said.append(f"No test image has a label of {', '.join(lacking)}: how well the model answers that is not known.")
    near = packet.leakage["checks"].get("near_duplicate_pairs_across_parts", 0)
    if near:
        said.append(f"{near} pairs of near-duplicate images lie in different parts of the split; the test may flatter.")
    if counted.left_out:
        lost = sum(counted.left_out.values())
        said.append(f"{lost} of {counted.ingested.images} radiographs could not be prepared; the model was not tested on those.")
    return said


def _seen(packet: Packet, adapted: Mapping[str, Any] | None) -> pd.DataFrame:
    """The images that the model was developed on: those of the parts, and with an adaptation those without labels."""
    return packet.cohort if adapted else packet.cohort[packet.cohort["part"].notna()]


def _target(adapted: Mapping[str, Any]) -> str:
    """What a model was adapted to: a hospital that was named, or images of anywhere."""
    return "another hospital without labels" if adapted["sites"] else "the images without labels"


def _of_target(packet: Packet, adapted: Mapping[str, Any]) -> str:
    """How far the figures are those of what a model was adapted to."""
    if not adapted["sites"]:
        return "No test image is among them."
    test = packet.cohort[packet.cohort["part"] == "test"]
    there = test["site"].isin(adapted["sites"]).to_numpy()
    if not there.any():
        return "No test image is of that hospital: the figures here are of others, and how good the model is there is not known."
    if there.all():
        return "All test images are of that hospital."
    names = sorted(set(np.array(attributes(test)["Site"])[there]))
    return (
        f"{int(there.sum())} of the {len(test)} test images are of it ({', '.join(names)} under Subgroups); the figures over all "
        "pool them with those of other hospitals."
    )


def _cases(output: OutputEvaluation, task: Task) -> str:
    if task.kind == "multiclass":
        return f"{output.positives} of class {output.name}"
    return f"{output.positives} with and {output.negatives} without {output.name}"


def _title(task: Task) -> str:
    names = task.targets if len(task.targets) <= 3 else (f"{len(task.targets)} findings",)
    text = ", ".join(names)
    return text[:1].upper() + text[1:]


def _says(head: Head) -> str:
    """What a further task answers, in words."""
    if head.kind == "regression":
        return f"a value in {head.unit}" if head.unit else "a value"
    if head.classes:
        return f"one of {', '.join(head.classes)}{', in this order' if head.kind == 'ordinal' else ''}"
    return f"the probability of {', '.join(head.targets)}"


def _measured(value: float | None, judged: TaskEvaluation, name: str) -> str:
    """A metric of a further task with its unit."""
    if value is None:
        return NOTHING
    return f"{_plain(value)} {judged.unit(name)}".rstrip()


def _measured_ends(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return NOTHING
    return f"{_plain(interval.low)} to {_plain(interval.high)}"


def _plain(value: float) -> str:
    """Three decimals, or as many as show three digits of a large value."""
    text = f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return text.replace("-", "−")


def _people(cohort: pd.DataFrame) -> dict[str, Any]:
    """Whom the model was developed on, in a few numbers."""
    used = cohort[cohort["part"].notna()]
    ages = used["age_years"].dropna()
    return {
        "ages": f"{ages.min():.0f} to {ages.max():.0f}" if len(ages) else None,
        "views": sorted(used["view"].dropna().unique()),
        "body_parts": sorted(used["body_part"].dropna().str.lower().unique()),
        "sites": int(used["site"].nunique()),
    }


def _rule(card: ModelCard) -> str:
    point = card.strategy["settings"]["operating_point"]
    return RULES[point["rule"]].format(value=point["value"])


def _sparks(history: pd.DataFrame, best_epoch: int, score: str) -> list[Spark]:
    titles = {"train_loss": "training loss", "validation_loss": "validation loss", "validation_auroc": f"validation {score}"}
    return [_spark(title, history["epoch"].tolist(), history[name].tolist(), best_epoch) for name, title in titles.items()]


def _shortcuts(beyond: Comparison) -> dict[str | None, ShortcutRow]:
    return {
        name: ShortcutRow(
            title=found["title"],
            sees=found["sees"],
            blind=found["blind"],
            alarm=found["macro"]["alarm"],
            everyone=Interval(**found["macro"]["everyone"]),
            test=Interval(**found["macro"]["test"]),
            gain=beyond.gains[name].macro,
            outputs={
                output: (Interval(*(known["everyone"][end] for end in ("value", "low", "high"))), known["alarm"])
                for output, known in found["outputs"].items()
            },
        )
        for name, found in beyond.audit["shortcuts"].items()
    }


def _alarmed(beyond: Comparison) -> str:
    """The shortcuts that raised the alarm, in words; with their outputs where the model has several."""
    one = all(len(found["outputs"]) == 1 for found in beyond.audit["shortcuts"].values())
    titles = {name: beyond.audit["shortcuts"][name]["title"].lower() for name in beyond.alarms}
    return ", ".join(titles[name] if one else f"{titles[name]} ({', '.join(outputs)})" for name, outputs in beyond.alarms.items())


def _spark(title: str, epochs: list[int], values: list[float], best_epoch: int) -> Spark:
    low, high = min(values), max(values)
    steps, span = max(len(epochs) - 1, 1), (high - low) or 1.0
    xs = [round(2 + 96 * number / steps, 2) for number in range(len(epochs))]
    ys = [round(26 - 24 * (value - low) / span, 2) for value in values]
    best = epochs.index(best_epoch)
    return Spark(title, " ".join(f"{x},{y}" for x, y in zip(xs, ys, strict=True)), xs[best], ys[best], values[best], low, high)


def _metric(value: float | None, name: str) -> str:
    if value is None:
        return NOTHING
    return f"{value:.1%}" if name in FRACTIONS else f"{value:.3f}"


def _ends(interval: Interval, name: str) -> str:
    if interval.low is None or interval.high is None:
        return NOTHING
    if name in FRACTIONS:
        return f"{100 * interval.low:.1f}–{interval.high:.1%}"
    return f"{interval.low:.3f}–{interval.high:.3f}"


def _signed(interval: Interval) -> str:
    """A difference with its sign."""
    return NOTHING if interval.value is None else _with_sign(interval.value)


def _signed_ends(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return "" if interval.value is None else NOTHING
    return f"{_with_sign(interval.low)} to {_with_sign(interval.high)}"


def _with_sign(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _percent(fraction: float) -> str:
    return f"{fraction:.0%}"


def _count(number: int) -> str:
    return f"{number:,}"


def _reason(code: str) -> str:
    return REASONS.get(code, code.replace("_", " "))
