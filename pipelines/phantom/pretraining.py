"""Pretrain a small network without a network connection: on generated shapes and textures, which are no chests.

It stands in for ImageNet weights where none are at hand, and its passport says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn.functional import cross_entropy

from pipelines.models.backbones import Network, build
from pipelines.models.passports import Found, save_backbone
from pipelines.models.provenance import Normalisation
from pipelines.phantom.canvas import Canvas, Curves, Map, enlarge
from pipelines.phantom.tissue import vessel_tree

NAME = "phantom-shapes-resnet10"
SOURCE = "phantom-shapes"
TRAINED_ON = "phantom shapes (generated), not ImageNet"
BACKBONE = "resnet10"
NORMALISATION = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
HELD_OUT = 400
BATCH = 64

log = logging.getLogger(__name__)


def images(count: int, size: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Radiograph-like pictures of shapes, and which shape each shows.

    Returns:
        Arrays (count, size, size) and (count,); the classes are `SHAPES`, equally frequent.
    """
    sheet = Canvas(size, size, 200.0 / size, -100.0, -100.0)
    labels = np.arange(count) % len(SHAPES)
    pictures = [_picture(sheet, int(label), np.random.default_rng([seed, 9, number])) for number, label in enumerate(labels)]
    return np.stack(pictures), labels.astype(np.int64)


def pretrain(folder: Path, *, seed: int = 11, count: int = 3000, size: int = 80, epochs: int = 7) -> Found:
    """Train the backbone on the shapes and save it with its passport into `folder`.

    It runs on one thread, which such small layers are fastest on when other programs run too, so the same seed gives the
    same weights whatever the number of cores. The accuracy on `HELD_OUT` further pictures stands in the passport's notes.
    """
    arrays, labels = images(count + HELD_OUT, size, seed)
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(seed)
        network = build(BACKBONE, outputs=len(SHAPES), dropout=0.1, normalisation=NORMALISATION)
        network.to(memory_format=torch.channels_last)
        _train(network, torch.from_numpy(arrays[:count]), torch.from_numpy(labels[:count]), epochs)
        accuracy = _accuracy(network, torch.from_numpy(arrays[count:]), torch.from_numpy(labels[count:]))
    log.info("pretrained on %d generated pictures of %d shapes: accuracy %.3f", count, len(SHAPES), accuracy)
    return save_backbone(
        network,
        folder / f"{NAME}.safetensors",
        name=NAME,
        source=SOURCE,
        licence="Apache-2.0",
        trained_on=TRAINED_ON,
        input_size=size,
        notes=(
            f"{count} generated pictures of {len(SHAPES)} kinds of shapes and textures, {epochs} epochs; "
            f"accuracy on {HELD_OUT} others {accuracy:.3f} (chance {1 / len(SHAPES):.2f}). No photograph and no patient was used."
        ),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(network: Network, arrays: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.02)
    steps = epochs * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    network.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels))[: len(labels) // BATCH * BATCH].view(-1, BATCH):
            loss = cross_entropy(network(_varied(_floats(arrays[chosen]))), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    network.eval()


@torch.no_grad()
def _accuracy(network: Network, arrays: torch.Tensor, labels: torch.Tensor) -> float:
    right = sum(
        int((network(_floats(some)).argmax(dim=1) == wanted).sum())
        for some, wanted in zip(torch.split(arrays, 200), torch.split(labels, 200), strict=True)
    )
    return right / len(labels)


def _floats(arrays: torch.Tensor) -> torch.Tensor:
    return arrays[:, None].float() / 255


def _varied(batch: torch.Tensor) -> torch.Tensor:
    """Mirror the batch, turn it by a multiple of 90°, and change brightness and contrast of each image."""
    turns, mirrored = (int(torch.randint(limit, ())) for limit in (4, 2))
    batch = torch.rot90(batch, turns, (2, 3))
    batch = batch.flip(3) if mirrored else batch
    gain = 0.8 + 0.4 * torch.rand(len(batch), 1, 1, 1)
    return (0.5 + (batch - 0.5) * gain + 0.2 * (torch.rand(len(batch), 1, 1, 1) - 0.5)).clamp(0, 1)


def _picture(sheet: Canvas, label: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One shape behind a lattice of another kind, on soft layers, with noise: it has to be seen through what is in front."""
    shape = SHAPES[label][1](sheet, rng)
    shape = shape / max(float(shape.max()), 1e-6)
    lattice = _LATTICES[int(rng.integers(len(_LATTICES)))](sheet, rng)
    lattice = lattice / max(float(lattice.max()), 1e-6)
    picture = _layers(sheet, rng) + rng.uniform(0.0, 0.2) * lattice + rng.uniform(0.25, 0.5) * shape
    picture = ndimage.gaussian_filter(picture, rng.uniform(0.3, 0.8)) + rng.uniform(0.005, 0.02) * rng.standard_normal(
        sheet.shape
    )
    return np.rint(np.clip(picture, 0, 1) * _window(sheet, rng) * 255).astype(np.uint8)


def _layers(sheet: Canvas, rng: np.random.Generator) -> Map:
    """Large soft bodies on top of one another, dark to bright, as the parts of a body are."""
    total = rng.uniform(0.05, 0.35) + 0.06 * _smooth(sheet, rng, 70.0)
    for _ in range(int(rng.integers(1, 5))):
        radii = (float(rng.uniform(35, 130)), float(rng.uniform(35, 130)))
        distance = 1 - sheet.ellipse(_place(rng, 110.0), radii, float(rng.uniform(0, np.pi)))
        total = total + rng.uniform(-0.2, 0.3) * sheet.step(distance, float(rng.uniform(0.03, 0.5)))
    return np.asarray(total)


def _window(sheet: Canvas, rng: np.random.Generator) -> Map:
    """1 inside an upright rectangle, 0 in the black margin that some pictures have, as padded radiographs do."""
    if rng.random() < 0.5:
        return np.ones(sheet.shape)
    margins = rng.uniform(-6, 22, 2)
    return sheet.step(100 - margins[0] - np.abs(sheet.x)) * sheet.step(100 - margins[1] - np.abs(sheet.z))


def _smooth(sheet: Canvas, rng: np.random.Generator, grain_mm: float) -> Map:
    nodes = int(400 / grain_mm) + 3
    return enlarge(ndimage.gaussian_filter(rng.standard_normal((nodes, nodes)), 1.0) / 0.28, sheet.shape)


def _place(rng: np.random.Generator, reach: float = 65.0) -> tuple[float, float]:
    return float(rng.uniform(-reach, reach)), float(rng.uniform(-reach, reach))


def _spheres(sheet: Canvas, rng: np.random.Generator) -> Map:
    total = np.zeros(sheet.shape)
    for _ in range(int(rng.integers(1, 5))):
        radius = float(rng.uniform(9, 26))
        total += sheet.ellipsoid(_place(rng), (radius, radius), radius)
    return total


def _rings(sheet: Canvas, rng: np.random.Generator) -> Map:
    total = np.zeros(sheet.shape)
    for _ in range(int(rng.integers(1, 5))):
        radius, centre = float(rng.uniform(12, 30)), _place(rng)
        outer = sheet.ellipsoid(centre, (radius, radius), radius)
        total += outer - sheet.ellipsoid(centre, (0.86 * radius, 0.86 * radius), 0.86 * radius)
    return total


def _rods(sheet: Canvas, rng: np.random.Generator) -> Map:
    total = np.zeros(sheet.shape)
    for _ in range(int(rng.integers(2, 6))):
        (x0, z0), (x1, z1) = _place(rng, 85.0), _place(rng, 85.0)
        total += sheet.tubes(Curves.along(np.array([x0, x1]), np.array([z0, z1]), float(rng.uniform(3, 7))))
    return total


def _grid(sheet: Canvas, rng: np.random.Generator) -> Map:
    angle, pitch = float(rng.uniform(0, np.pi)), float(rng.uniform(14, 30))
    u, v = sheet.x * np.cos(angle) + sheet.z * np.sin(angle), sheet.z * np.cos(angle) - sheet.x * np.sin(angle)
    waves = np.maximum(np.cos(2 * np.pi * u / pitch), np.cos(2 * np.pi * v / pitch))
    return np.asarray(waves.clip(0.6, 1.0) - 0.6)


def _clouds(sheet: Canvas, rng: np.random.Generator) -> Map:
    centre, radius = _place(rng, 45.0), float(rng.uniform(28, 55))
    field = 1 - np.sqrt(sheet.ellipse(centre, (radius, radius * float(rng.uniform(0.6, 1.4))))) + 0.4 * _smooth(sheet, rng, 18.0)
    return sheet.step(field, 0.5)


def _grains(sheet: Canvas, rng: np.random.Generator) -> Map:
    return np.clip(_smooth(sheet, rng, float(rng.uniform(9, 14))) - 1.0, 0, 2)


def _tree(sheet: Canvas, rng: np.random.Generator) -> Map:
    heading = float(rng.uniform(-np.pi, np.pi))
    root = np.array([[-70 * np.cos(heading), -70 * np.sin(heading)]])
    return sheet.tubes(vessel_tree(rng, root, np.array([heading]), np.array([6.5]), np.array([50.0]), 5))


def _crack(sheet: Canvas, rng: np.random.Generator) -> Map:
    angle, width = float(rng.uniform(0, np.pi)), float(rng.uniform(24, 40))
    (x0, z0), along = _place(rng, 25.0), np.array([np.cos(angle), np.sin(angle)])
    across = (sheet.z - z0) * along[0] - (sheet.x - x0) * along[1]
    down = (sheet.x - x0) * along[0] + (sheet.z - z0) * along[1]
    jagged = np.interp(across, np.linspace(-40, 40, 12), np.cumsum(rng.normal(0, 4.0, 12)))
    return sheet.step(width - np.abs(across), 2.0) * (1 - 0.8 * sheet.step(2.2 - np.abs(down - jagged), 1.5))


def _arches(sheet: Canvas, rng: np.random.Generator) -> Map:
    angle, pitch = float(rng.uniform(-np.pi, np.pi)), float(rng.uniform(18, 34))
    distance = np.sqrt(sheet.ellipse((170 * np.cos(angle), 170 * np.sin(angle)), (1.0, 1.0)))
    return np.cos(2 * np.pi * distance / pitch).clip(0.2, 1.0) - 0.2


def _bricks(sheet: Canvas, rng: np.random.Generator) -> Map:
    total = np.zeros(sheet.shape)
    angle, size = float(rng.uniform(0, np.pi)), float(rng.uniform(11, 18))
    for place in np.arange(-90, 91, 2.5 * size):
        total += sheet.rounded_box((place * float(np.cos(angle)), place * float(np.sin(angle))), (size, 1.5 * size), angle)
    return total


def _nothing(sheet: Canvas, _rng: np.random.Generator) -> Map:
    return np.zeros(sheet.shape)


SHAPES: tuple[tuple[str, Callable[[Canvas, np.random.Generator], Map]], ...] = (
    ("nothing", _nothing),
    ("spheres", _spheres),
    ("rings", _rings),
    ("rods", _rods),
    ("clouds", _clouds),
    ("grains", _grains),
    ("tree", _tree),
    ("crack", _crack),
)
_LATTICES = (_nothing, _grid, _arches, _bricks, _arches)
