"""Every method of adaptation on a generated shift that it is made for, where it must help, and on some where none can."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_networks import HALF, resnet, vit
from torch import nn

from pipelines.config import TrainSection
from pipelines.models.architecture import Backbone
from pipelines.models.network import Network
from pipelines.records import Task
from pipelines.training import adaptation_outcome
from pipelines.training.adaptation_outcome import HeldOut
from pipelines.training.adaptation_steps import Alone, adaptation
from pipelines.training.batches import Examples
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.learn import learn, place
from pipelines.training.listener import Silence, Step
from pipelines.transfer.adaptation import METHODS, settled
from pipelines.transfer.batch_norm import batch_norms
from pipelines.transfer.guard import Judgement, Looks
from pipelines.transfer.strategies import STRATEGIES, plan

CPU = torch.device("cpu")
TASK = Task("binary", ("opacity",))
STILL = dict.fromkeys(("rotate_degrees", "shift", "scale", "brightness", "contrast"), 0)

# what the second cue, which tells the finding at the source, says at the target: of the finding (±1) and a random generator
SHIFTS: dict[str, Callable[[Any, np.random.Generator], Any]] = {
    "none": lambda finding, random: finding + random.normal(0, 0.3, len(finding)),
    "spread": lambda finding, random: random.normal(0, 3, len(finding)),
    "moved": lambda finding, random: 3 - finding + random.normal(0, 0.3, len(finding)),
}


@dataclasses.dataclass(frozen=True)
class InMemory:
    images: Any

    def take(self, shards: Any, rows: Any) -> Any:
        return self.images[rows]


def hospital(images: int, seed: int, shift: str = "none", *, sign: int = 1, prevalence: float = 0.5) -> Examples:
    """Images of 4 × 4 pixels: a dim cue of the finding in the first row, a clear one in the second, the rest is noise."""
    random = np.random.default_rng(seed)
    labels = (random.random(images) < prevalence).astype(np.float32)
    finding = sign * (2 * labels - 1)
    pixels = random.normal(0, 1, (images, 4, 4))
    pixels[:, 0] = (0.8 * finding + random.normal(0, 0.6, images))[:, None]
    pixels[:, 1] = SHIFTS[shift](finding, random)[:, None]
    return examples((128 + 18 * pixels).clip(0, 255), labels)


def contrast(images: int, seed: int, *, low: bool) -> Examples:
    """Noise with a blob where there is the finding, and the same at a hospital of bright images with little contrast."""
    random = np.random.default_rng(seed)
    labels, pixels = np.arange(images) % 2, random.integers(0, 90, (images, 48, 48)).astype(float)
    for image in np.flatnonzero(labels):
        top, left = random.integers(4, 30, 2)
        pixels[image, top : top + 14, left : left + 14] += 150
    return examples(0.3 * pixels + 170 if low else pixels, labels)


def examples(pixels: Any, labels: Any) -> Examples:
    rows = np.arange(len(labels))
    return Examples(InMemory(pixels.astype(np.uint8)), np.zeros_like(rows), rows, labels.astype(np.float32)[:, None], rows)


def perceptron(seed: int) -> Network:
    torch.manual_seed(seed)
    groups = (("stem", ("1",)), ("stage1", ("3",)))
    return place(Network("perceptron", Backbone(_layers, 16, groups, "1", None), outputs=1, dropout=0.0, normalisation=HALF), CPU)


def _layers() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 16))


def section(method: str | None, seed: int = 3, **changes: Any) -> TrainSection:
    values = {
        "epochs": 15,
        "batch_size": 32,
        "device": "cpu",
        "seed": seed,
        "strategy": {"name": "full", "learning_rate": 3e-3},
        "augment": STILL,
        "adaptation": {"method": method},
    }
    return settled(TrainSection.model_validate({**values, **changes}))


def train(
    network: Network,
    settings: TrainSection,
    target: Examples | None,
    listener: Any = None,
    checkpoint: Checkpoint | None = None,
    parts: tuple[Examples, Examples] | None = None,
) -> Network:
    own = parts or (hospital(200, 1), hospital(150, 2))
    planned = plan(network, settings.strategy)
    learn(network, planned, TASK, *own, settings, listener or Silence(), checkpoint, target)
    return network


def held_out(*parts: Examples) -> tuple[HeldOut, ...]:
    return tuple(HeldOut(part, part.labels, part.grouped() + 1000 * number) for number, part in enumerate(parts))


@lru_cache
def control(shift: str, seed: int, sign: int = 1, prevalence: float = 0.5) -> Looks:
    network = train(perceptron(seed), section(None, seed), None)
    return adaptation_outcome.look(network, TASK, *held_out(hospital(150, 2), there(shift, sign, prevalence)), 32)


def there(shift: str, sign: int = 1, prevalence: float = 0.5) -> Examples:
    return hospital(200, 4, shift, sign=sign, prevalence=prevalence)


def judged(method: str, shift: str, seed: int = 3, *, sign: int = 1, prevalence: float = 0.5) -> Judgement:
    """Adapt to a hospital, and compare with the same training without."""
    target = hospital(200, 5, shift, sign=sign, prevalence=prevalence)
    settings = section(method, seed)
    network = train(perceptron(seed), settings, target)
    images = held_out(hospital(150, 2), there(shift, sign, prevalence))
    before = control(shift, seed, sign, prevalence)
    train_labels = hospital(200, 1).labels
    return adaptation_outcome.finish(network, TASK, settings, images, target, train_labels, before)  # type: ignore[arg-type]


@pytest.mark.parametrize(("method", "shift", "least"), [("coral", "spread", 0.1), ("mmd", "moved", 0.4), ("dann", "moved", 0.3)])
@pytest.mark.parametrize("seed", [3, 4])
def test_a_method_helps_where_the_shift_is_one_that_it_is_made_for(method: str, shift: str, least: float, seed: int) -> None:
    found = judged(method, shift, seed)
    gain = found.figures["target"]["gain"]
    assert found.verdict == "helped"
    assert gain["value"] > least
    assert gain["low"] > 0
    assert found.figures["source"]["auroc"] > 0.9
    apart = found.figures["apart"]
    measure = "coral" if method == "coral" else "mmd"
    assert apart["after"][measure] < apart["before"][measure]


@pytest.mark.parametrize("seed", [3, 4])
def test_adabn_helps_where_brightness_and_contrast_differ(seed: int) -> None:
    settings = section("adabn", seed, batch_size=16, epochs=4, strategy={"name": "full", "learning_rate": 1e-3})
    source, target = contrast(64, 1, low=False), contrast(64, 3, low=True)
    network = place(resnet(seed=seed), CPU)
    parts = (source, contrast(64, 2, low=False))
    train(network, settings, target, parts=parts)
    weights = {name: tensor.clone() for name, tensor in network.named_parameters()}
    images = held_out(parts[1], contrast(64, 4, low=True))
    found = adaptation_outcome.finish(network, TASK, settings, images, target, source.labels, None)  # type: ignore[arg-type]
    gain = found.figures["target"]["gain"]
    assert found.verdict == "helped"
    assert gain["value"] > 0.3
    assert found.figures["target"]["auroc"] > 0.9
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.named_parameters())
    assert all(norm.num_batches_tracked for norm in batch_norms(network))


@pytest.mark.parametrize("method", ["coral", "mmd", "dann"])
def test_where_the_finding_looks_the_other_way_round_the_guard_does_not_say_that_it_helped(method: str) -> None:
    """The images are alike and their meaning is not, which no method can see without labels."""
    found = judged(method, "none", sign=-1)
    assert found.verdict in ("did not help", "harmed")
    assert found.says.startswith(found.verdict)
    assert found.figures["target"]["auroc"] < 0.2


@pytest.mark.parametrize("method", ["mmd", "dann"])
def test_where_only_the_prevalence_differs_the_guard_does_not_say_that_it_helped_and_warns(method: str) -> None:
    found = judged(method, "none", prevalence=0.1)
    assert found.verdict in ("did not help", "harmed")
    assert any("Zhao et al." in warning and "rarer" in warning for warning in found.warnings)


def test_without_labels_the_guard_says_that_nobody_can_know() -> None:
    target = there("moved")
    blind = dataclasses.replace(held_out(target)[0], labels=np.full_like(target.labels, np.nan))
    settings = section("mmd")
    network = train(perceptron(3), settings, hospital(200, 5, "moved"))
    source = held_out(hospital(150, 2))[0]
    learnt, before = hospital(200, 1).labels, control("moved", 3)
    found = adaptation_outcome.finish(network, TASK, settings, (source, blind), target, learnt, before)
    assert found.verdict == "cannot be known"
    assert "none of the 200 held-out patients of the target has a label" in found.says
    assert "would show a difference of 0.05" in found.says


@pytest.mark.parametrize("method", ["coral", "mmd", "dann"])
def test_the_target_labels_are_not_looked_at(method: str) -> None:
    settings, target = section(method, epochs=2), hospital(70, 5, "moved")
    unlabelled = dataclasses.replace(target, labels=np.full_like(target.labels, np.nan))
    first, second = (train(perceptron(3), settings, images).state_dict() for images in (target, unlabelled))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", ["coral", "mmd", "dann"])
def test_an_interrupted_adaptation_goes_on_to_the_same_bits(method: str, tmp_path: Path) -> None:
    settings, target = section(method, epochs=3), hospital(70, 5, "moved")
    straight = train(perceptron(3), settings, target).state_dict()
    checkpoint = Checkpoint(tmp_path / "training", "same")
    with pytest.raises(KeyboardInterrupt):
        train(perceptron(3), settings, target, _Killed(), checkpoint)
    resumed = train(perceptron(3), settings, target, None, checkpoint).state_dict()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


class _Killed(Silence):
    def stepped(self, step: Step) -> None:
        if step.epoch == 3:
            raise KeyboardInterrupt


class _Seeing(nn.Module):
    """In the place of a network; remembers what is put in."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = images
        return images.flatten(1)[:, :16].clone().requires_grad_()

    head = staticmethod(torch.sum)


def test_the_target_is_augmented_in_full_precision_whatever_the_network_learns_in() -> None:
    settings = section("mmd", augment={**STILL, "rotate_degrees": 20, "shift": 0.1})
    seen = []
    for halved in (False, True):
        taking, network = adaptation(settings, hospital(40, 5), perceptron(3)), _Seeing()
        taking.enter(1, [np.arange(32)])
        with torch.autocast("cpu", torch.bfloat16, enabled=halved):
            taking.forward(network, torch.zeros(32, 1, 4, 4), 0.5)
        seen.append(network.seen)
    assert torch.equal(*seen)


def test_the_last_epoch_is_kept_since_the_best_on_the_source_has_adapted_least() -> None:
    network, settings = perceptron(3), section("mmd", epochs=4, patience=1)
    fitted = learn(
        network,
        plan(network, settings.strategy),
        TASK,
        *(hospital(200, 1), hospital(150, 2)),
        settings,
        Silence(),
        None,
        hospital(70, 5, "moved"),
    )
    assert (fitted.best_epoch, len(fitted.history)) == (4, 4)
    assert len(fitted.details["discrepancy_by_epoch"]) == 4


@pytest.mark.parametrize("method", [None, "adabn"])
def test_nothing_takes_part_in_the_steps_without_a_method_that_does(method: str | None) -> None:
    assert isinstance(adaptation(section(method), hospital(20, 5), perceptron(3)), Alone)


def test_a_target_of_a_single_image_and_of_more_than_an_epoch_both_serve() -> None:
    for images in (1, 500):
        network = train(perceptron(3), section("dann", epochs=1), hospital(images, 5, "moved"))
        assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())


@pytest.mark.parametrize("strategy", [name for name, entry in STRATEGIES.items() if entry.learns != "head"])
def test_it_goes_with_every_strategy_that_moves_the_backbone(strategy: str) -> None:
    settings = section("dann", epochs=2, strategy={"name": strategy}, batch_size=12, ema=0.9)
    network = place(vit() if strategy == "lora" else resnet(), CPU)
    parts = (contrast(24, 1, low=False), contrast(16, 2, low=False))
    alone = train(copy.deepcopy(network), settings, None, parts=parts).state_dict()
    beside = train(network, settings, contrast(24, 3, low=True), parts=parts).state_dict()
    assert list(alone) == list(beside)
    assert all(torch.isfinite(tensor).all() for tensor in beside.values())
    assert any(not torch.equal(alone[name], beside[name]) for name in alone if name.startswith("trunk"))


def test_weights_are_those_of_the_method_unless_told() -> None:
    target = hospital(70, 5, "moved")
    trained = {
        weight: train(
            perceptron(3), section("mmd", epochs=2, adaptation={"method": "mmd", "weight": weight}), target
        ).state_dict()
        for weight in (None, METHODS["mmd"].weight, 50.0)
    }
    assert all(torch.equal(tensor, trained[METHODS["mmd"].weight][name]) for name, tensor in trained[None].items())
    assert any(not torch.equal(tensor, trained[50.0][name]) for name, tensor in trained[None].items())
