"""What a network, or only its head, learns from: images, or features that the frozen backbone computed once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.config import AugmentSection
from pipelines.imaging.augment import augment
from pipelines.models.backbones import Network
from pipelines.training.batches import Examples, in_order, shuffled
from pipelines.training.checkpoint import Checkpoint, Saved
from pipelines.training.listener import Listener

Order = list[NDArray[np.int64]]
Batch = tuple[Tensor, Tensor]


class Material(Protocol):
    """Inputs and labels (images, outputs) of one part of the split, in batches on the device."""

    def shuffled(self, batch_size: int, least_steps: int, seed: Sequence[int]) -> Order:
        """The positions of an epoch in random batches; see `batches.shuffled`."""

    def learning(self, order: Order, generator: torch.Generator) -> Iterator[Batch]:
        """The batches of an epoch, changed at random where that applies."""

    def judging(self, batch_size: int) -> Iterator[Batch]:
        """Everything once, in order and unchanged."""


@dataclass(frozen=True)
class Images:
    """Prepared images from the store."""

    examples: Examples
    augmentation: AugmentSection
    device: torch.device

    def shuffled(self, batch_size: int, least_steps: int, seed: Sequence[int]) -> Order:
        return shuffled(len(self.examples), batch_size, least_steps=least_steps, seed=seed)

    def learning(self, order: Order, generator: torch.Generator) -> Iterator[Batch]:
        labels = torch.from_numpy(self.examples.labels).to(self.device)
        for positions, images in zip(order, self.examples.images(order, self.device), strict=True):
            yield augment(images, self.augmentation, generator), labels[torch.from_numpy(positions).to(self.device)]

    def judging(self, batch_size: int) -> Iterator[Batch]:
        order = in_order(len(self.examples), batch_size)
        labels = torch.from_numpy(self.examples.labels).to(self.device)
        for positions, images in zip(order, self.examples.images(order, self.device), strict=True):
            yield images, labels[torch.from_numpy(positions).to(self.device)]


@dataclass(frozen=True)
class Features:
    """Cached features (images, width), float, with labels (images, outputs), both on the device."""

    features: Tensor
    labels: Tensor

    def shuffled(self, batch_size: int, least_steps: int, seed: Sequence[int]) -> Order:
        return shuffled(len(self.features), batch_size, least_steps=least_steps, seed=seed)

    def learning(self, order: Order, generator: torch.Generator) -> Iterator[Batch]:
        for positions in order:
            chosen = torch.from_numpy(positions).to(self.features.device)
            yield self.features[chosen], self.labels[chosen]

    def judging(self, batch_size: int) -> Iterator[Batch]:
        yield self.features, self.labels


def extract(
    network: Network,
    parts: Sequence[Examples],
    batch_size: int,
    listener: Listener,
    checkpoint: Checkpoint | None = None,
) -> tuple[list[Features], float]:
    """Run the frozen backbone once over the images of each part, without augmentation, in fp32.

    The features are kept in the checkpoint, so that a training that goes on does not compute them again.

    Returns:
        The features of each part, and how many images per second went through; 0 if they were in the checkpoint.
    """
    device = next(network.parameters()).device
    labels = [torch.from_numpy(part.labels).to(device) for part in parts]
    saved, speed = checkpoint.read("features") if checkpoint else None, 0.0
    if saved is None:
        started = time.perf_counter()
        saved = Saved(_computed(network, parts, batch_size, listener, device), {})
        speed = sum(len(part) for part in parts) / (time.perf_counter() - started)
        if checkpoint:
            checkpoint.write("features", saved)
    return [Features(saved.tensors[str(number)].to(device), known) for number, known in enumerate(labels)], speed


def _computed(
    network: Network, parts: Sequence[Examples], batch_size: int, listener: Listener, device: torch.device
) -> dict[str, Tensor]:
    network.eval()
    done, total = 0, sum(len(part) for part in parts)
    computed: dict[str, Tensor] = {}
    with torch.no_grad():
        for number, part in enumerate(parts):
            batches = []
            for images in part.images(in_order(len(part), batch_size), device):
                batches.append(network.features(images).float())
                done += len(images)
                listener.extracting(done, total)
            computed[str(number)] = torch.cat(batches).cpu()  # waits for the device, so that the time is that of the work
    return computed
