"""A training for a hospital without labels: its control, what happens after the last epoch, and whether it helped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.config import AugmentSection, TrainSection
from pipelines.models.backbones import Network
from pipelines.records import Task
from pipelines.training.adaptation_steps import adapt_batch_norm
from pipelines.training.answers import tell
from pipelines.training.batches import Examples
from pipelines.training.material import Images
from pipelines.transfer import guard
from pipelines.transfer.adaptation import METHODS
from pipelines.transfer.guard import Judgement, Looks, Seen

RESAMPLES = 1000  # of patients, for the intervals


@dataclass(frozen=True)
class HeldOut:
    """Images that nothing is learnt from, with what is only judged by.

    Attributes:
        labels: of the main task (images, outputs), 0, 1 or NaN.
        patients: (images,), pseudonyms or numbers that mean the same in both hospitals.
    """

    examples: Examples
    labels: NDArray[np.float32]
    patients: NDArray[Any]


def wants_control(settings: TrainSection) -> bool:
    """Whether a second network has to be trained; the network before AdaBN is its own control."""
    section = settings.adaptation
    return section.method is not None and METHODS[section.method].in_steps and section.control


def acts_afterwards(settings: TrainSection) -> bool:
    """Whether `finish` changes the network."""
    section = settings.adaptation
    return section.method is not None and not METHODS[section.method].in_steps


def look(network: Network, task: Task, source: HeldOut, target: HeldOut, batch_size: int) -> Looks:
    """What the network, once trained, makes of both; it is in evaluation mode afterwards."""
    network.eval()
    return Looks(*(_seen(network, task, held_out, batch_size) for held_out in (source, target)))


def finish(
    network: Network,
    task: Task,
    settings: TrainSection,
    held_out: tuple[HeldOut, HeldOut],
    target: Examples,
    train: NDArray[np.float32],
    before: Looks | None,
) -> Judgement:
    """Do what the method does once the training is over, and judge.

    Args:
        held_out: images of the source, and of the target.
        target: images to adapt to, whose labels are not looked at.
        train: the main task's labels that were learnt from (images, outputs).
        before: what the control made of the held-out images, if one was trained.
    """
    trained = look(network, task, *held_out, settings.batch_size)
    prevalence, after = np.nanmean(train, axis=0), trained
    if acts_afterwards(settings):
        adapt_batch_norm(network, target, settings.batch_size)
        there = look(network, task, *held_out, settings.batch_size)
        # each hospital by its own statistics: so its features are meant to look alike
        after = Looks(replace(there.source, features=trained.source.features), there.target)
        before = trained
    return guard.judge(before, after, prevalence, outputs=task.outputs, resamples=RESAMPLES, seed=settings.seed)


def _seen(network: Network, task: Task, held_out: HeldOut, batch_size: int) -> Seen:
    device, columns, main = next(network.parameters()).device, len(task.columns), task.main
    features: list[NDArray[Any]] = [np.empty((0, network.width), np.float32)]
    scores: list[NDArray[Any]] = [np.empty((0, len(task.outputs)), np.float32)]
    with torch.inference_mode():
        for images, _ in Images(held_out.examples, AugmentSection(), device).judging(batch_size):
            found = network.features(images)
            features.append(found.float().cpu().numpy())
            scores.append(tell(main, network.head(found)[:, :columns], {}).cpu().numpy())
    return Seen(np.concatenate(features), np.concatenate(scores), held_out.labels, held_out.patients)
