"""One trained model, loaded from its folder, that answers for arrays or for DICOM files.

A model is `model.safetensors` and `model.json`; neither is code, and nothing else is looked up to load it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from numpy.typing import NDArray

from pipelines import files
from pipelines.errors import WeightsError
from pipelines.imaging.radiograph import Recipe
from pipelines.imaging.workers import Outcome, prepare_if_readable
from pipelines.models import backbones, heads
from pipelines.models.backbones import Network
from pipelines.models.device import choose_device
from pipelines.models.passports import LoadReport, Passport
from pipelines.models.provenance import Normalisation
from pipelines.records import Task
from pipelines.training.answers import columns, tell
from pipelines.training.batches import as_tensor, scaled
from pipelines.training.learn import place

FORMAT = 1
BATCH = 32
WEIGHTS = "model.safetensors"
CARD = "model.json"


@dataclass(frozen=True)
class ModelCard:
    """What model.json says: all that is needed to use the model, and where it comes from.

    Attributes:
        backbone: entry of `models.backbones.BACKBONES`.
        task: kind, targets and classes; `task.outputs` names the outputs in order.
        normalisation: of an image in 0…1, per channel.
        recipe: how a radiograph becomes an array.
        strategy: the settings in effect, and each layer group with its parameters, batch norm and peak learning rate.
        passport: of the pretrained weights; None for a model trained from scratch.
        weights: what loading them did, with the file's full SHA-256; None without a passport.
        thresholds: probability from which an output counts as positive, chosen on the validation part.
        seed: of the training.
        training: counts of images, epochs, the best epoch and its validation AUROC, and the SHA-256 of the split.
        sha256: of model.safetensors.
        head: its kind and size (`models.heads.describe`); linear in the cards that do not say.
        scales: mean and standard deviation of each regression's training values, by the name of the task.
    """

    backbone: str
    task: Task
    dropout: float
    normalisation: Normalisation
    recipe: Recipe
    strategy: Mapping[str, Any]
    passport: Passport | None
    weights: LoadReport | None
    seed: int
    thresholds: Mapping[str, float]
    training: Mapping[str, Any]
    sha256: str = ""
    head: Mapping[str, Any] = field(default_factory=lambda: heads.LINEAR)
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "architecture": {
                "backbone": self.backbone,
                "dropout": self.dropout,
                "head": dict(self.head),
                "normalisation": {"mean": list(self.normalisation.mean), "std": list(self.normalisation.std)},
            },
            "task": self.task.to_dict(),
            **({"scales": {name: {"mean": mean, "sd": sd} for name, (mean, sd) in self.scales.items()}} if self.scales else {}),
            "recipe": self.recipe.to_dict(),
            "strategy": dict(self.strategy),
            "passport": self.passport and self.passport.to_dict(),
            "weights": self.weights and asdict(self.weights),
            "seed": self.seed,
            "thresholds": dict(self.thresholds),
            "training": dict(self.training),
            "sha256": self.sha256,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelCard:
        """The inverse of `to_dict`.

        Raises:
            WeightsError: another format, or a field is missing.
        """
        if values.get("format") != FORMAT:
            raise WeightsError(f"{CARD}: expected format {FORMAT}, got {values.get('format')!r}; run `radtransfer train` again")
        try:
            return cls._from(values)
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{CARD}: {type(error).__name__} {error}; run `radtransfer train` again") from error

    @classmethod
    def _from(cls, values: Mapping[str, Any]) -> ModelCard:
        architecture, task, weights = values["architecture"], values["task"], values["weights"]
        normalisation = architecture["normalisation"]
        return cls(
            backbone=architecture["backbone"],
            task=Task.from_dict(task),
            dropout=architecture["dropout"],
            normalisation=Normalisation(tuple(normalisation["mean"]), tuple(normalisation["std"])),
            recipe=Recipe.from_dict(values["recipe"]),
            strategy=values["strategy"],
            passport=Passport.from_dict(values["passport"], f"{CARD} passport") if values["passport"] else None,
            weights=_report(weights) if weights else None,
            seed=values["seed"],
            thresholds=values["thresholds"],
            training=values["training"],
            sha256=values["sha256"],
            head=architecture.get("head", heads.LINEAR),
            scales={name: (scale["mean"], scale["sd"]) for name, scale in values.get("scales", {}).items()},
        )


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode on its device, with its card."""

    card: ModelCard
    network: Network
    device: torch.device

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> Model:
        """Load what `write` wrote.

        Raises:
            MissingInputError: there is no model in the folder.
            WeightsError: the card is of another format, or the weights are missing, altered, or do not fit the card.
        """
        card = ModelCard.from_dict(files.read_json(folder / CARD, made_by="train"))
        weights = folder / WEIGHTS
        if not weights.is_file() or (found := files.sha256(weights)) != card.sha256:
            actual = found[:12] if weights.is_file() else "no file"
            raise WeightsError(f"{WEIGHTS}: expected SHA-256 {card.sha256[:12]}…, got {actual}; run `radtransfer train` again")
        network = backbones.build(card.backbone, outputs=card.task.width, dropout=card.dropout, normalisation=card.normalisation)
        try:
            network.head = heads.build(card.head, network.width, card.task.width, card.dropout)
            network.load_state_dict(safetensors.torch.load_file(weights))
        except (RuntimeError, KeyError) as error:
            expected = f"a {card.backbone} with {card.task.width} outputs, {card.head.get('kind')} head"
            raise WeightsError(f"{WEIGHTS}: does not fit {expected}") from error
        chosen = choose_device(device)
        return cls(card, place(network, chosen).eval(), chosen)

    def write(self, folder: Path) -> Model:
        """Write the weights, then the card that holds their hash, each atomically; returns the model with that card."""
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        files.write_bytes(folder / WEIGHTS, safetensors.torch.save(state))
        card = replace(self.card, sha256=files.sha256(folder / WEIGHTS))
        files.write_json(folder / CARD, card.to_dict())
        return replace(self, card=card)

    def probabilities(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities (images, outputs) of the main task, in fp32, of prepared images (images, size, size), uint8 or uint16.

        A sigmoid of each output, or a softmax over the classes of a multiclass target.
        """
        return self.everything(images)[:, : len(self.card.task.outputs)]

    def everything(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """The answers of every task, one task after the other (images, answers): probabilities, or the value of a regression."""
        task = self.card.task
        answers = [np.empty((0, sum(head.answers for head in task.heads)), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(images), BATCH):
                batch = scaled(as_tensor(images[start : start + BATCH]).to(self.device))
                answers.append(tell(task, self.network(batch), self.card.scales).cpu().numpy())
        return np.concatenate(answers)

    def predict(self, sources: Iterable[Path | bytes]) -> pd.DataFrame:
        """Answer for DICOM files, given as paths or as their bytes; they are decoded in this process.

        Returns:
            One row for each source, in order: `source`, its position from 0; `left_out`, a `Reason` value for a file that
            cannot be used, else None; for each output NAME `p_NAME`, its probability (NaN if left out), and `positive_NAME`,
            whether that reaches the threshold; for a multiclass target also `class`, the most probable one. Of a further task
            called NAME, `p_` and `positive_` likewise, and `class_NAME` (multiclass: the most probable one; ordinal: the
            median), or `value_NAME` (regression, in its unit).
        """
        return self.answers(prepare_if_readable(source, self.card.recipe) for source in sources)

    def answers(self, outcomes: Iterable[Outcome]) -> pd.DataFrame:
        """Answer for files that were prepared by the card's recipe; as `predict`."""
        reasons: list[str | None] = []
        answers: list[NDArray[np.float32]] = []
        waiting: list[NDArray[Any]] = []
        for outcome in outcomes:
            reasons.append(outcome.left_out.value if outcome.left_out else None)
            waiting += [outcome.prepared.array] if outcome.prepared else []
            if len(waiting) == BATCH:
                answers.append(self.everything(np.stack(waiting)))
                waiting = []
        if waiting:
            answers.append(self.everything(np.stack(waiting)))
        everything = np.full((len(reasons), sum(head.answers for head in self.card.task.heads)), np.nan, np.float32)
        usable = np.array([reason is None for reason in reasons], dtype=bool)
        if answers:
            everything[usable] = np.concatenate(answers)
        return self._table(reasons, everything, usable)

    def _table(self, reasons: list[str | None], answers: NDArray[np.float32], usable: NDArray[np.bool_]) -> pd.DataFrame:
        found: dict[str, Any] = {"source": range(len(reasons)), "left_out": pd.Series(reasons, dtype=object)}
        for head, own in zip(self.card.task.heads, self.card.task.apart(answers), strict=True):
            found |= columns(head, own, self.card.thresholds, usable)
        return pd.DataFrame(found)


def _report(values: Mapping[str, Any]) -> LoadReport:
    return LoadReport(values["matched"], tuple(values["missing"]), tuple(values["left_over"]), values["sha256"])
