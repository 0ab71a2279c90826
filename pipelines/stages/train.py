"""train: transfer a pretrained network to the task, choose thresholds on validation, and write the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.markup import escape

from pipelines import __version__, files
from pipelines.config import Config, TrainSection
from pipelines.inference import Model, ModelCard
from pipelines.metrics.thresholds import choose, spelled
from pipelines.models import heads
from pipelines.models.starting import Start
from pipelines.paths import Paths
from pipelines.quality.leakage import split_sha256
from pipelines.records import CALLED, Task, label_column, probability_column
from pipelines.training import adaptation_outcome
from pipelines.training.adaptation_outcome import HeldOut
from pipelines.training.answers import columns
from pipelines.training.assembly import Assembly, Part, assemble
from pipelines.training.batches import Examples, in_order
from pipelines.training.checkpoint import Checkpoint, fingerprint
from pipelines.training.joint import apart, scales
from pipelines.training.learn import learn
from pipelines.training.listener import Listener
from pipelines.training.loop import Fitted
from pipelines.training_display import displayed
from pipelines.transfer.adaptation import METHODS
from pipelines.transfer.guard import HELPED, Judgement, Looks
from pipelines.transfer.strategies import STRATEGIES, Plan

# settings of `train` that the model card repeats
IN_CARD = {
    *("epochs", "batch_size", "weight_decay", "class_weighting", "patience", "augment", "operating_point"),
    *("stochastic_depth", "label_smoothing", "mixup", "ema"),
}
IMAGES_AT_ONCE = 1024  # held in memory for the validation predictions


@dataclass(frozen=True)
class TrainSummary:
    """What the training came to.

    Attributes:
        weights: name of the weight passport, or None from scratch.
        epochs: how many were trained, of which `best_epoch` was kept; 0 is the probe that a training began at.
        validation_auroc: mean over the outputs, of the best epoch; of several tasks the mean score (`training.judging`).
        trainable: parameters that learned, of `parameters`.
        images_per_second: on the wall clock; of the backbone's pass for cached features.
        resumed_from_epoch: the last epoch of an interrupted run, or None.
        thresholds: of each output.
        adaptation: whether it helped the target, then the signs that it does not; empty without one.
        score: what `validation_auroc` is, in words.
    """

    backbone: str
    strategy: str
    weights: str | None
    best_epoch: int
    epochs: int
    validation_auroc: float
    trainable: int
    parameters: int
    images_per_second: float
    resumed_from_epoch: int | None
    thresholds: dict[str, float]
    adaptation: tuple[str, ...] = ()
    score: str = "AUROC"

    def describe(self) -> str:
        start = f"weights {self.weights}" if self.weights else "random weights"
        resumed = f", resumed after epoch {self.resumed_from_epoch}" if self.resumed_from_epoch else ""
        kept = f"at epoch {self.best_epoch} of {self.epochs}"
        if not self.best_epoch:
            kept = f"of the probe at its start, which none of {self.epochs} epochs bettered"
        thresholds = ", ".join(f"{escape(name)} {spelled(value)}" for name, value in self.thresholds.items())
        return (
            f"[bold]{self.backbone}[/bold] from {start}, {STRATEGIES[self.strategy].describes} ({self.strategy})\n"
            f"{self.trainable:,} of {self.parameters:,} parameters learned, {self.images_per_second:,.0f} images/s\n"
            f"validation {self.score} [bold]{self.validation_auroc:.3f}[/bold] "
            f"{kept}{resumed}\n"
            f"thresholds: {thresholds}{self._adapted()}"
        )

    def _adapted(self) -> str:
        if not self.adaptation:
            return ""
        verdict, *signs = (escape(line) for line in self.adaptation)
        colour = "green" if verdict.startswith(HELPED) else "yellow"
        return "\n".join([f"\nadaptation [{colour}]{verdict}[/{colour}]", *(f"  {sign}" for sign in signs)])


def run(config: Config, paths: Paths, listener: Listener | None = None) -> TrainSummary:
    """Train as `config.train` says and write artifacts/model; go on where an interrupted training of the same kind stopped.

    Raises:
        ConfigurationError: there is no such backbone or device, or batch norm cannot be trained under the strategy.
        MissingInputError: prepare, split or ingest has not run.
        WeightsError: the pretrained weights are missing, altered, or do not fit.
        TrainingError: the parts cannot be learnt from, or the loss is not finite.
    """
    with displayed(listener, config.task.declared().score) as watching:
        before = _control(config, paths, watching) if adaptation_outcome.wants_control(config.train) else None
        assembled = assemble(config, paths)
        network, train, validation = assembled.started.network, assembled.train, assembled.validation
        checkpoint = Checkpoint(paths.checkpoint, _fingerprint(config, paths, assembled.started))
        if assembled.recommended:
            watching.noted(assembled.recommended)
        if assembled.target:
            watching.noted(assembled.target.describe(assembled.settings.adaptation.method))
        fitted = _learn(assembled, watching, checkpoint, assembled.target.learnt.examples if assembled.target else None)
        training = {**_counts(train, validation), **_outcome(fitted, assembled.task), "split_sha256": _split_sha256(paths)}
        learned = Model(_card(assembled, training), network.eval(), assembled.device)
        said = _answers(learned, validation)
        adaptation = _adapted(assembled, before)
    training |= _told(adaptation, assembled)
    model = replace(learned, card=replace(learned.card, training=training))
    answers = _answers(model, validation) if adaptation_outcome.acts_afterwards(assembled.settings) else said
    model = _write(model, fitted, validation, (said, answers), assembled.settings, paths)
    _control_checkpoint(paths).remove()
    checkpoint.remove()
    planned = assembled.plan.until(fitted.best_epoch)
    return _summary(assembled.settings, planned, fitted, model, adaptation)


def _learn(assembled: Assembly, watching: Listener, checkpoint: Checkpoint, target: Examples | None) -> Fitted:
    network, parts = assembled.started.network, (assembled.train.examples, assembled.validation.examples)
    watching.planned(assembled.plan)
    return learn(network, assembled.plan, assembled.task, *parts, assembled.settings, watching, checkpoint, target)


def _control(config: Config, paths: Paths, watching: Listener) -> Looks:
    """What the same training without adaptation makes of the held-out images; its network is given up for the adapted one."""
    assembled = assemble(config, paths)
    watching.noted("control: the same training without adaptation")
    checkpoint = _control_checkpoint(paths, _fingerprint(config, paths, assembled.started))
    _learn(assembled, watching, checkpoint, None)
    held_out = _held_out(assembled)
    return adaptation_outcome.look(assembled.started.network, assembled.task, *held_out, assembled.settings.batch_size)


def _control_checkpoint(paths: Paths, identity: str = "") -> Checkpoint:
    return Checkpoint(paths.checkpoint / "control", identity)


def _adapted(assembled: Assembly, before: Looks | None) -> Judgement | None:
    """Finish the adaptation, if there is one, and judge it."""
    if assembled.target is None:
        return None
    network, task, target = assembled.started.network, assembled.task, assembled.target.learnt.examples
    labels = task.matrix(assembled.train.rows)
    return adaptation_outcome.finish(network, task, assembled.settings, _held_out(assembled), target, labels, before)


def _held_out(assembled: Assembly) -> tuple[HeldOut, HeldOut]:
    """Validation images of the source, and those of the target that are held out."""
    task, target = assembled.task, assembled.target
    parts = (assembled.validation, target.held_out if target else assembled.validation)
    source, other = (HeldOut(part.examples, task.matrix(part.rows), part.rows["patient"].to_numpy()) for part in parts)
    return source, other


def _told(adaptation: Judgement | None, assembled: Assembly) -> dict[str, Any]:
    """What the model card says of an adaptation, if there was one: what was looked at, and whether it helped."""
    section, target = assembled.settings.adaptation, assembled.target
    if adaptation is None or target is None or section.method is None:
        return {}
    method = METHODS[section.method]
    facts = {
        "method": section.method,
        "describes": method.describes,
        "source": method.source,
        **({"weight": section.weight or method.weight} if method.in_steps else {}),
        "sites": list(section.sites),
        "learnt_images": len(target.learnt.rows),
        "learnt_patients": int(target.learnt.rows["patient"].nunique()),
        "images_of_test_patients_left_alone": target.tested,
    }
    return {"adaptation": {**facts, **adaptation.to_dict()}}


def _fingerprint(config: Config, paths: Paths, started: Start) -> str:
    """What decides the trained weights, so that a checkpoint of anything else is not gone on from."""
    facts = {
        "versions": {"radtransfer": __version__, "torch": torch.__version__},
        "task": config.task.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json"),
        "recipe": files.read_json(paths.prepared / "recipe.json", made_by="prepare"),
        "weights": started.report.sha256 if started.report else None,
        **{path.name: files.sha256(path) for path in (paths.index, paths.labels, paths.split)},
    }
    return fingerprint(facts)


def _card(assembled: Assembly, training: dict[str, Any]) -> ModelCard:
    """The card but for the thresholds."""
    settings, started = assembled.settings, assembled.started
    planned = assembled.plan.until(training["best_epoch"])
    strategy = {**planned.to_dict(), "settings": settings.model_dump(mode="json", include=IN_CARD)}
    if assembled.recommended:
        strategy["recommended"] = assembled.recommended
    return ModelCard(
        backbone=settings.backbone,
        task=assembled.task,
        dropout=settings.dropout,
        normalisation=started.network.normalisation,
        recipe=assembled.recipe,
        strategy=strategy,
        passport=started.passport,
        weights=started.report,
        seed=settings.seed,
        thresholds={},
        training=training,
        head=heads.describe(started.network.head),
        scales=scales(assembled.task, assembled.train.examples.labels),
    )


def _split_sha256(paths: Paths) -> str:
    """By which `evaluate` and `register` know that their test part is one that this model never saw."""
    return split_sha256(files.read_table(paths.split, made_by="split"))


def _counts(train: Part, validation: Part) -> dict[str, Any]:
    parts = {"train_images": train, "validation_images": validation}
    return {name: len(part.examples.labelled()) for name, part in parts.items()}


def _outcome(fitted: Fitted, task: Task) -> dict[str, Any]:
    return {
        "epochs": fitted.history[-1].epoch,
        "best_epoch": fitted.best_epoch,
        task.score_name: fitted.validation_auroc,
        **fitted.details,
    }


def _answers(model: Model, part: Part) -> NDArray[np.float32]:
    """What the model says of a part as it is now, (images, all answers)."""
    examples = part.examples
    return np.concatenate(
        [
            model.everything(examples.store.take(examples.shards[some], examples.rows[some]))
            for some in in_order(len(examples), IMAGES_AT_ONCE)
        ]
    )


def _write(
    model: Model,
    fitted: Fitted,
    validation: Part,
    told: tuple[NDArray[np.float32], NDArray[np.float32]],
    settings: TrainSection,
    paths: Paths,
) -> Model:
    """Choose the thresholds, and write the history, the validation predictions, the weights and the card.

    Args:
        told: what the network said of the validation part when it had learned, by which thresholds are chosen, and what it says
            now; with AdaBN the first is by the statistics of the source, whose images these are.
    """
    task, examples, point, (said, answers) = model.card.task, validation.examples, settings.operating_point, told
    thresholds = {
        name: choose(examples.labels[:, number], said[:, number], point.rule, point.value)
        for number, name in enumerate(task.outputs)
    }
    for (head, own), labels in zip(task.further(said), apart(task, examples.labels)[1:], strict=True):
        if head.kind in CALLED:
            for name, known, scores in zip(head.outputs, labels.T, own.T, strict=True):
                thresholds[name] = choose(known, scores, point.rule, point.value)
    history = pd.DataFrame([asdict(epoch) for epoch in fitted.history])
    files.write_text(paths.model / "history.csv", history.to_csv(index=False))
    files.write_table(paths.model / "validation.parquet", _predictions(validation, answers, task))
    return replace(model, card=replace(model.card, thresholds=thresholds)).write(paths.model)


def _predictions(part: Part, answers: NDArray[np.float32], task: Task) -> pd.DataFrame:
    found: dict[str, Any] = {name: part.rows[name].to_numpy() for name in ("image", "patient", "part")}
    for number, name in enumerate(task.outputs):
        found[probability_column(name)] = answers[:, number]
        found[label_column(name)] = part.examples.labels[:, number]
    for head, own in task.further(answers):
        found |= columns(head, own, {}, np.ones(len(own), bool))
        found |= {label_column(target): part.rows[target].to_numpy() for target in head.targets}
    return pd.DataFrame(found)


def _summary(settings: TrainSection, planned: Plan, fitted: Fitted, model: Model, adaptation: Judgement | None) -> TrainSummary:
    return TrainSummary(
        backbone=settings.backbone,
        strategy=settings.strategy.name,
        weights=model.card.passport.name if model.card.passport else None,
        best_epoch=fitted.best_epoch,
        epochs=fitted.history[-1].epoch,
        validation_auroc=fitted.validation_auroc,
        trainable=planned.trained,
        parameters=planned.parameters,
        images_per_second=fitted.images_per_second,
        resumed_from_epoch=fitted.resumed_from,
        thresholds=dict(model.card.thresholds),
        score=model.card.task.score,
        adaptation=(adaptation.says, *adaptation.warnings) if adaptation else (),
    )
