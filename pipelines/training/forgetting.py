"""What a network forgets of its source, as far as that can be seen without the source's images.

The classifier that the weights came with is put on the backbone before and after training, and both answers to the same
radiographs are compared. High agreement means that the features still carry what the source needs on images like these;
how well the source's own images are still told apart is another question, which only they could answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.models.network import Network
from pipelines.models.passports import Found
from pipelines.models.source_head import source_head
from pipelines.models.starting import Start
from pipelines.paths import weights_folder
from pipelines.training.batches import Examples, in_order
from pipelines.transfer.strategies import Plan

NO_SOURCE = "it starts from no source"
NO_CLASSIFIER = "the weights came without a classifier"
SEVERAL = "the source's classifier says several things of an image at once"


@dataclass(frozen=True)
class Forgetting:
    """How the source's classifier answers after training, compared with before.

    Attributes:
        agreement: share of the images for which its first choice is the same; None where that cannot be measured.
        divergence: mean Kullback–Leibler divergence of its probabilities after from those before, in nats; None likewise.
        unmeasured: why it cannot be measured; None where it is.
    """

    agreement: float | None
    divergence: float | None
    unmeasured: str | None = None


@dataclass(frozen=True)
class Memory:
    """The source's classifier, (classes, width) and (classes,), and the log probabilities (images, classes) it gave before."""

    weight: Tensor
    bias: Tensor
    before: Tensor


def remember(start: Start, plan: Plan, examples: Examples, batch_size: int) -> Memory | Forgetting:
    """What is needed to judge afterwards; or the judgement, where it is known before training or cannot be had."""
    if start.passport is None:
        return Forgetting(None, None, NO_SOURCE)
    if not moves(plan):
        return Forgetting(1.0, 0.0)
    if start.passport.multi_label:
        return Forgetting(None, None, SEVERAL)
    head = source_head(Found(start.passport, weights_folder() / start.passport.file), start.network.width)
    if head is None:
        return Forgetting(None, None, NO_CLASSIFIER)
    weight, bias = (torch.from_numpy(array).float() for array in head)
    return Memory(weight, bias, _answers(start.network, weight, bias, examples, batch_size))


def forgotten(memory: Memory | Forgetting, network: Network, examples: Examples, batch_size: int) -> Forgetting:
    """Compare with the network as it is now, on the same images."""
    if isinstance(memory, Forgetting):
        return memory
    after = _answers(network, memory.weight, memory.bias, examples, batch_size)
    agreement = (after.argmax(dim=1) == memory.before.argmax(dim=1)).float().mean()
    divergence = (memory.before.exp() * (memory.before - after)).sum(dim=1).mean()
    return Forgetting(float(agreement), max(float(divergence), 0.0))


def moves(plan: Plan) -> bool:
    """Whether anything of the backbone changes: weights that learn, or batch-norm statistics."""
    return plan.batch_norm == "adaptive" or any(group.learning_rate > 0 for group in plan.groups[:-1])


def _answers(network: Network, weight: Tensor, bias: Tensor, examples: Examples, batch_size: int) -> Tensor:
    network.eval()
    device = next(network.parameters()).device
    batches = []
    with torch.inference_mode():
        for images in examples.images(in_order(len(examples), batch_size), device):
            features = network.features(images).float().cpu()
            batches.append((features @ weight.T + bias).log_softmax(dim=1))
    return torch.cat(batches)
