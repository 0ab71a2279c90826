"""Learning from radiographs without labels: two random views of one image must agree, and images must stay apart.

The losses and the projection heads are lightly's. What is learnt is the backbone; the projector is thrown away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.config import PretrainSection
from pipelines.errors import TrainingError
from pipelines.imaging.augment import augment
from pipelines.models.network import Network
from pipelines.processes import keep_memory
from pipelines.training.batches import Examples, shuffled
from pipelines.training.checkpoint import Checkpoint, Saved
from pipelines.training.numerics import autocast, derived_seed, deterministic
from pipelines.training.optimizer import Optimizer
from pipelines.training.schedule import factor

CHECKPOINT = "pretraining"
COLLAPSED = 0.05  # spread below which the features say next to nothing


@dataclass(frozen=True)
class Method:
    """One way to learn without labels.

    Attributes:
        loss: makes the loss of two projections (images, width) of two views.
        hidden: width of the projector's hidden layer.
        width: of the projection.
    """

    loss: Callable[[], nn.Module]
    hidden: int
    width: int
    describes: str
    source: str


def _simclr() -> nn.Module:
    from lightly.loss import NTXentLoss

    return cast(nn.Module, NTXentLoss(temperature=0.2))


def _vicreg() -> nn.Module:
    from lightly.loss import VICRegLoss

    return cast(nn.Module, VICRegLoss())


def _barlow_twins() -> nn.Module:
    from lightly.loss import BarlowTwinsLoss

    return cast(nn.Module, BarlowTwinsLoss())


METHODS: dict[str, Method] = {
    "simclr": Method(_simclr, 512, 128, "each image is told apart from the others of its batch", "Chen et al., ICML 2020"),
    "vicreg": Method(_vicreg, 1024, 512, "views agree, features vary and are not redundant", "Bardes et al., ICLR 2022"),
    "barlow_twins": Method(_barlow_twins, 1024, 512, "views agree, features are not redundant", "Zbontar et al., ICML 2021"),
}


@dataclass(frozen=True)
class Pretrained:
    """What a pretraining came to; the network holds the last epoch's weights.

    Attributes:
        losses: the mean of each epoch.
        spread: how far apart the features of images point, from 1 (everywhere) to 0 (all the same way).
        images_per_second: learnt from, on the wall clock; 0 if nothing was left to learn.
        resumed_from: the last epoch of an earlier, interrupted run, or None.
    """

    losses: tuple[float, ...]
    spread: float
    images_per_second: float
    resumed_from: int | None


class Watcher(Protocol):
    """Hears what happens; an exception raised here ends the pretraining as a kill would."""

    def noted(self, text: str) -> None:
        """Something a person should know, such as a resumed checkpoint."""

    def stepped(self, epoch: int, images: int, loss: float) -> None:
        """`images` more were learnt from in this epoch (from 1)."""

    def epoch_ended(self, epoch: int, loss: float, spread: float) -> None:
        """After the checkpoint is written."""


class _Agreement(nn.Module):
    """A backbone with a projector on its features, and the loss of two views."""

    def __init__(self, network: Network, method: Method) -> None:
        from lightly.models.modules.heads import BarlowTwinsProjectionHead

        super().__init__()
        self.network, self.loss = network, method.loss()
        self.projector = BarlowTwinsProjectionHead(network.width, method.hidden, method.width)

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Features (images, width) of views, and their projections."""
        features = self.network.features(views)
        return features, cast(Tensor, self.projector(features))


def pretrain(
    network: Network, examples: Examples, settings: PretrainSection, watcher: Watcher, checkpoint: Checkpoint | None = None
) -> Pretrained:
    """Train the backbone of `network`, which is on its device, on images alone; their labels are not looked at.

    Raises:
        TrainingError: there are fewer images than a batch, a loss is not finite, or all features became the same.
    """
    if len(examples) < settings.batch_size:
        raise TrainingError(
            f"pretrain: expected at least pretrain.batch_size = {settings.batch_size} images, got {len(examples)}; "
            "add images, or lower it"
        )
    device = next(network.parameters()).device
    if device.type == "cpu":
        keep_memory()
    with torch.random.fork_rng([]):
        torch.manual_seed(settings.seed)
        module = _Agreement(network, METHODS[settings.method]).to(device)
    learning = [parameter for name, parameter in module.named_parameters() if not name.startswith("network.head.")]
    adamw = torch.optim.AdamW(learning, weight_decay=settings.weight_decay)
    optimizer = Optimizer(adamw, (settings.learning_rate,), (settings.learning_rate,))
    losses, spread = _resumed(module, optimizer, watcher, checkpoint)
    resumed, started = len(losses) or None, time.perf_counter()
    with deterministic(device):
        while len(losses) < settings.epochs:
            loss, spread = _epoch(module, optimizer, examples, settings, len(losses) + 1, watcher)
            losses.append(loss)
            if checkpoint:
                checkpoint.write(CHECKPOINT, _saved(module, optimizer, losses, spread))
            watcher.epoch_ended(len(losses), loss, spread)
    seconds = time.perf_counter() - started
    learnt = (len(losses) - (resumed or 0)) * len(examples)
    if not spread >= COLLAPSED:  # NaN too
        raise TrainingError(
            f"pretrain: expected features that differ from image to image, their spread is {spread:.3f} of 1: all became the "
            "same; lower pretrain.learning_rate, raise pretrain.batch_size, or choose pretrain.method: vicreg"
        )
    return Pretrained(tuple(losses), spread, learnt / seconds if learnt else 0.0, resumed)


def _epoch(
    module: _Agreement,
    optimizer: Optimizer,
    examples: Examples,
    settings: PretrainSection,
    epoch: int,
    watcher: Watcher,
) -> tuple[float, float]:
    """Learn from every image once; the mean loss over the images, and the spread of the last batch's features."""
    device = next(module.parameters()).device
    seed = derived_seed(settings.seed, epoch)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    order = shuffled(len(examples), settings.batch_size, least_steps=1, seed=(settings.seed, epoch))
    warmup, total = round(settings.warmup_epochs * len(order)), settings.epochs * len(order)
    summed, spread = 0.0, 0.0
    module.train()
    for step, images in enumerate(examples.images(order, device)):
        optimizer.set_rates(factor((epoch - 1) * len(order) + step, warmup=warmup, total=total))
        views = torch.cat([augment(images, settings.views, generator) for _ in range(2)])
        with autocast(device, settings.precision):
            features, projections = module(views)
        first, second = projections.float().chunk(2)
        loss = module.loss(first, second)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"pretrain, epoch {epoch}: expected a finite loss, got {loss.item()}; lower pretrain.learning_rate"
            )
        optimizer.step(loss)
        summed, spread = summed + len(images) * loss.item(), _spread(features.detach().float())
        watcher.stepped(epoch, len(images), loss.item())
    return summed / len(examples), spread


def _spread(features: Tensor) -> float:
    """√(1 − ‖mean direction‖²) of features (images, width): 1 if they point everywhere, 0 if one way or nowhere."""
    directions = functional.normalize(features)
    return float((directions.square().sum(dim=1).mean() - directions.mean(dim=0).square().sum()).clamp(min=0).sqrt())


def _saved(module: _Agreement, optimizer: Optimizer, losses: list[float], spread: float) -> Saved:
    tensors = {f"module/{name}": tensor for name, tensor in module.state_dict().items()}
    return Saved(
        {**tensors, **{f"optimizer/{name}": tensor for name, tensor in optimizer.state().items()}},
        {"losses": losses, "spread": spread},
    )


def _resumed(
    module: _Agreement, optimizer: Optimizer, watcher: Watcher, checkpoint: Checkpoint | None
) -> tuple[list[float], float]:
    """Take up an interrupted pretraining; the losses of the epochs that are done, and the spread after the last."""
    saved = checkpoint.read(CHECKPOINT) if checkpoint else None
    if saved is None:
        return [], 0.0
    module.load_state_dict(_below("module/", saved.tensors))
    optimizer.restore(_below("optimizer/", saved.tensors))
    watcher.noted(f"resumed after epoch {len(saved.facts['losses'])}")
    return list(saved.facts["losses"]), float(saved.facts["spread"])


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
