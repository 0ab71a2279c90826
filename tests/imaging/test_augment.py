from __future__ import annotations

import math

import pytest
import torch

from pipelines.config import AugmentSection
from pipelines.imaging.augment import augment

NOTHING = {"rotate_degrees": 0, "shift": 0, "scale": 0, "brightness": 0, "contrast": 0, "flip": False}


def section(**changes: object) -> AugmentSection:
    return AugmentSection.model_validate({**NOTHING, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dot(row: int, column: int, size: int = 65, radius: int = 2) -> torch.Tensor:
    image = torch.zeros(1, 1, size, size)
    image[0, 0, row - radius : row + radius + 1, column - radius : column + radius + 1] = 1
    return image


def centre(images: torch.Tensor) -> torch.Tensor:
    """Row and column of the centre of mass of each image."""
    size = images.shape[-1]
    where = torch.arange(size, dtype=torch.float32)
    mass = images[:, 0].sum(dim=(1, 2))
    rows = (images[:, 0].sum(dim=2) * where).sum(dim=1) / mass
    return torch.stack([rows, (images[:, 0].sum(dim=1) * where).sum(dim=1) / mass], dim=1)


def test_nothing_asked_for_changes_nothing() -> None:
    images = torch.rand(3, 1, 16, 16)
    assert torch.equal(augment(images, section(), seeded()), images)


def test_the_same_seed_gives_the_same_changes_and_another_seed_others() -> None:
    images = torch.rand(4, 1, 16, 16)
    everything = AugmentSection(flip=True)
    assert torch.equal(augment(images, everything, seeded(1)), augment(images, everything, seeded(1)))
    assert not torch.equal(augment(images, everything, seeded(1)), augment(images, everything, seeded(2)))


def test_each_image_of_a_batch_is_changed_by_its_own_amount() -> None:
    images = dot(32, 32).expand(8, -1, -1, -1)
    moved = centre(augment(images, section(shift=0.1), seeded()))
    assert len(moved.round(decimals=3).unique(dim=0)) == 8


def test_a_shift_stays_within_its_fraction_and_uses_it() -> None:
    moved = centre(augment(dot(32, 32).expand(200, -1, -1, -1), section(shift=0.1), seeded())) - 32
    assert moved.abs().max() <= 0.1 * 65 + 1e-2
    assert (moved.abs().max(dim=0).values > 0.09 * 65).all()


def test_a_rotation_keeps_the_distance_to_the_middle_and_stays_within_its_angle() -> None:
    offset = centre(augment(dot(12, 32).expand(200, -1, -1, -1), section(rotate_degrees=30), seeded())) - 32
    assert torch.allclose(offset.norm(dim=1), torch.full((200,), 20.0), atol=0.1)
    angles = torch.atan2(offset[:, 1], -offset[:, 0]).abs()
    assert math.radians(27) < angles.max() <= math.radians(30.5)


def test_a_scale_moves_things_outwards_or_inwards_by_its_fraction() -> None:
    distance = (centre(augment(dot(12, 32).expand(200, -1, -1, -1), section(scale=0.2), seeded())) - 32).norm(dim=1)
    assert 15.9 < distance.min() < 16.5
    assert 23.5 < distance.max() < 24.1


def test_a_flip_mirrors_left_and_right_half_of_the_time_and_never_up_and_down() -> None:
    places = centre(augment(dot(12, 10).expand(200, -1, -1, -1), section(flip=True), seeded()))
    mirrored = (places[:, 1] - 54).abs() < 0.01
    assert ((places[:, 1] - 10).abs() < 0.01).logical_xor(mirrored).all()
    assert 70 < mirrored.sum() < 130
    assert torch.allclose(places[:, 0], torch.tensor(12.0), atol=0.01)


def test_what_comes_in_from_outside_is_black() -> None:
    white = augment(torch.ones(50, 1, 32, 32), section(shift=0.2), seeded())
    assert white.amin(dim=(1, 2, 3)).median() == 0


def test_brightness_adds_and_contrast_stretches_about_the_mean() -> None:
    images = torch.tensor([0.4, 0.6]).view(1, 1, 1, 2).expand(100, -1, -1, -1)
    brighter = augment(images, section(brightness=0.1), seeded())
    assert torch.allclose(brighter[..., 1] - brighter[..., 0], torch.tensor(0.2), atol=1e-6)
    assert 0.09 < (brighter - images).abs().max() <= 0.1 + 1e-6
    stretched = augment(images, section(contrast=0.5), seeded())
    assert torch.allclose(stretched.mean(dim=(1, 2, 3)), torch.tensor(0.5), atol=1e-6)
    assert 0.28 < (stretched[..., 1] - stretched[..., 0]).max() <= 0.3 + 1e-6


@pytest.mark.parametrize("flip", [False, True])
def test_the_range_stays_between_black_and_white_and_the_input_as_it_was(flip: bool) -> None:
    images = torch.rand(20, 1, 24, 24)
    kept = images.clone()
    changed = augment(images, AugmentSection(brightness=1, contrast=1, flip=flip), seeded())
    assert torch.equal(images, kept)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert changed.shape == images.shape
