"""A tiny cohort: noise, with a bright blob where the label is 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipelines.config import TrainSection
from pipelines.models import backbones
from pipelines.models.backbones import Network
from pipelines.models.provenance import Normalisation
from pipelines.training.batches import Examples
from pipelines.training.learn import place
from pipelines.training.listener import Epoch, Step
from pipelines.transfer.strategies import Plan

SIZE = 48


@dataclass(frozen=True)
class InMemory:
    images: NDArray[Any]

    def take(self, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[Any]:
        return self.images[rows]


@dataclass
class Recorder:
    """Keeps what it hears; raises `stop` at a step of an epoch, as a kill would end the process there."""

    stop_in_epoch: int | None = None
    plans: list[Plan] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    extracted: list[tuple[int, int]] = field(default_factory=list)
    beside: int = 0
    started: list[tuple[int, int, int]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)

    def planned(self, plan: Plan) -> None:
        self.plans.append(plan)

    def noted(self, text: str) -> None:
        self.notes.append(text)

    def extracting(self, done: int, total: int) -> None:
        self.extracted.append((done, total))

    def passed(self, images: int) -> None:
        self.beside += images

    def epoch_started(self, epoch: int, epochs: int, images: int) -> None:
        self.started.append((epoch, epochs, images))

    def stepped(self, step: Step) -> None:
        if step.epoch == self.stop_in_epoch:
            raise KeyboardInterrupt
        self.steps.append(step)

    def epoch_ended(self, epoch: Epoch, *, best: bool) -> None:
        self.epochs.append(epoch)


def make_examples(labels: NDArray[np.float32], seed: int = 0) -> Examples:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 90, (len(labels), SIZE, SIZE)).astype(np.uint8)
    for image, known in zip(images, labels, strict=True):
        for output, label in enumerate(known):
            if label == 1:
                top, left = generator.integers(4, 20, 2) + np.array([0, 20 * (output % 2)])
                image[top : top + 14, left : left + 14] += 150
    return Examples(InMemory(images), np.zeros(len(labels), np.int64), np.arange(len(labels)), labels)


@pytest.fixture
def examples() -> Callable[..., Examples]:
    return make_examples


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture
def parts() -> tuple[Examples, Examples]:
    """24 images to learn from, and 16 to validate on, half of them with the finding."""
    return tuple(make_examples(np.arange(count, dtype=np.float32)[:, None] % 2, count) for count in (24, 16))


@pytest.fixture
def settings() -> Callable[..., TrainSection]:
    def make(strategy: str = "differential", **changes: Any) -> TrainSection:
        own = changes.pop("strategy_settings", {})
        values = {"backbone": "resnet10", "epochs": 3, "batch_size": 8, "strategy": {"name": strategy, **own}, **changes}
        return TrainSection.model_validate(values)

    return make


@pytest.fixture
def network() -> Callable[..., Network]:
    def make(outputs: int = 1, dropout: float = 0.2, seed: int = 3) -> Network:
        torch.manual_seed(seed)
        normalisation = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        net = backbones.build("resnet10", outputs=outputs, dropout=dropout, normalisation=normalisation)
        return place(net, torch.device("cpu"))

    return make
