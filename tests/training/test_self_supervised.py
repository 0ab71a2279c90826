"""Learning without labels, on small pictures of stripes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.config import AugmentSection, PretrainSection
from pipelines.errors import TrainingError
from pipelines.imaging.augment import augment
from pipelines.models import backbones
from pipelines.models.backbones import Network
from pipelines.models.provenance import Normalisation
from pipelines.training.batches import Examples
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.self_supervised import METHODS, Pretrained, pretrain

SIZE = 32
SETTINGS = PretrainSection(
    backbone="resnet10",
    epochs=3,
    batch_size=16,
    learning_rate=2e-3,
    device="cpu",
    views=AugmentSection(rotate_degrees=10, shift=0.1, scale=0.2, brightness=0.1, contrast=0.2),
)


class Pictures:
    """Stripes of random direction, pitch, phase and brightness, under noise."""

    def __init__(self, images: int) -> None:
        random = np.random.default_rng(3)
        across, down = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
        angle, pitch, phase, grey = (random.uniform(*limits, (images, 1, 1)) for limits in ((0, 3.1), (4, 12), (0, 6), (80, 170)))
        stripes = np.sin(2 * np.pi * (across * np.cos(angle) + down * np.sin(angle)) / pitch + phase)
        noise = random.normal(0, 8, (images, SIZE, SIZE))
        self.images = (grey + 60 * stripes + noise).clip(0, 255).astype(np.uint8)

    def take(self, _shards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return self.images[rows]


def examples(images: int = 64) -> Examples:
    rows = np.arange(images)
    return Examples(Pictures(images), np.zeros_like(rows), rows, np.full((images, 1), np.nan, np.float32))


def network() -> Network:
    torch.manual_seed(1)
    return backbones.build("resnet10", outputs=1, dropout=0.0, normalisation=Normalisation((0.5,) * 3, (0.25,) * 3))


class Watcher:
    """Keeps what it hears, and kills the pretraining after an epoch if told to."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.notes: list[str] = []
        self.losses: list[float] = []
        self._dies_after = dies_after

    def noted(self, text: str) -> None:
        self.notes.append(text)

    def stepped(self, epoch: int, images: int, loss: float) -> None: ...

    def epoch_ended(self, epoch: int, loss: float, spread: float) -> None:
        self.losses.append(loss)
        assert 0 <= spread <= 1
        if epoch == self._dies_after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module", params=METHODS)
def learnt(request: pytest.FixtureRequest) -> tuple[str, Network, Network, Pretrained]:
    before, after = network(), network()
    settings = SETTINGS.model_copy(update={"method": request.param, "epochs": 10})
    return request.param, before, after, pretrain(after, examples(), settings, Watcher())


def test_the_loss_falls_and_the_features_stay_apart(learnt: tuple[str, Network, Network, Pretrained]) -> None:
    _, _, _, outcome = learnt
    assert len(outcome.losses) == 10
    assert outcome.losses[-1] < outcome.losses[0]
    assert outcome.spread > 0.05


def test_the_backbone_learns_and_the_head_does_not(learnt: tuple[str, Network, Network, Pretrained]) -> None:
    _, before, after, _ = learnt
    changed = [not torch.equal(a, b) for a, b in zip(before.trunk.parameters(), after.trunk.parameters(), strict=True)]
    assert all(changed)
    assert all(torch.equal(a, b) for a, b in zip(before.head.parameters(), after.head.parameters(), strict=True))


def test_views_of_one_image_come_closer_to_each_other_than_to_other_images(
    learnt: tuple[str, Network, Network, Pretrained],
) -> None:
    _, before, after, _ = learnt
    images = next(iter(examples(32).images([np.arange(32)], torch.device("cpu"))))

    def told_apart(candidate: Network) -> float:
        """How much more alike two views of one image are than those of two, in deviations."""
        generator = torch.Generator().manual_seed(9)
        with torch.inference_mode():
            features = [candidate.eval().features(augment(images, SETTINGS.views, generator)) for _ in range(2)]
        first, second = (torch.nn.functional.normalize(each - each.mean(dim=0)) for each in features)
        alike, others = (first @ second.T).diagonal(), (first @ second.T)[~torch.eye(32, dtype=torch.bool)]
        return float((alike.mean() - others.mean()) / others.std())

    assert told_apart(after) > told_apart(before) + 0.2


def test_an_interrupted_pretraining_goes_on_to_the_same_bits(tmp_path) -> None:
    straight, broken = network(), network()
    pretrain(straight, examples(32), SETTINGS, Watcher(), Checkpoint(tmp_path / "straight", "same"))
    checkpoint = Checkpoint(tmp_path / "broken", "same")
    with pytest.raises(KeyboardInterrupt):
        pretrain(network(), examples(32), SETTINGS, Watcher(dies_after=2), checkpoint)
    watcher = Watcher()
    outcome = pretrain(broken, examples(32), SETTINGS, watcher, checkpoint)
    assert watcher.notes == ["resumed after epoch 2"]
    assert (outcome.resumed_from, len(outcome.losses)) == (2, 3)
    assert all(torch.equal(a, b) for a, b in zip(straight.state_dict().values(), broken.state_dict().values(), strict=True))


def test_fewer_images_than_a_batch_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"expected at least pretrain.batch_size = 16 images, got 8"):
        pretrain(network(), examples(8), SETTINGS, Watcher())


def test_features_that_all_become_the_same_are_refused() -> None:
    blind = network()
    settings = SETTINGS.model_copy(update={"epochs": 1, "learning_rate": 1e-12})
    for parameter in blind.trunk.parameters():
        torch.nn.init.zeros_(parameter)
    with pytest.raises(TrainingError, match=r"features that differ from image to image, their spread is 0\.000"):
        pretrain(blind, examples(16), settings, Watcher())
