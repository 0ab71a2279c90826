"""Random changes to a batch of training images, on the device where they lie."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from pipelines.config import AugmentSection


def augment(images: Tensor, settings: AugmentSection, generator: torch.Generator) -> Tensor:
    """Rotate, shift, scale, mirror, brighten and stretch each image of a batch by its own random amounts.

    Args:
        images: (images, 1, size, size), float 0…1; not changed.
        settings: the largest amounts; what is 0 or false is left out.
        generator: on the CPU, so that the same seed gives the same changes on every device.

    Returns:
        A new batch of the same shape, 0…1. What comes in from outside an image is black, as its padding is.
    """
    changed = images
    if settings.rotate_degrees or settings.shift or settings.scale or settings.flip:
        inverse = _inverse_affine(len(images), settings, generator).to(images.device)
        grid = functional.affine_grid(inverse, list(images.shape), align_corners=False)
        changed = functional.grid_sample(changed, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if settings.contrast:
        middle = changed.mean(dim=(1, 2, 3), keepdim=True)
        changed = middle + (changed - middle) * (1 + _within(settings.contrast, len(images), generator)).to(changed)
    if settings.brightness:
        changed = changed + _within(settings.brightness, len(images), generator).to(changed)
    return changed.clamp(0, 1)


def _inverse_affine(images: int, settings: AugmentSection, generator: torch.Generator) -> Tensor:
    """Where each pixel comes from: (images, 2, 3) for `affine_grid`, in units of half the image's size."""
    angle = _within(math.radians(settings.rotate_degrees), images, generator).flatten()
    scale = 1 + _within(settings.scale, images, generator).flatten()
    across = 2 * _within(settings.shift, images, generator).flatten()
    down = 2 * _within(settings.shift, images, generator).flatten()
    mirror = torch.ones(images)
    if settings.flip:
        mirror = torch.where(torch.rand(images, generator=generator) < 0.5, -1.0, 1.0)
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    first = torch.stack([mirror * cosine, mirror * sine, across], dim=1)
    second = torch.stack([-sine, cosine, down], dim=1)
    return torch.stack([first, second], dim=1)


def _within(largest: float, images: int, generator: torch.Generator) -> Tensor:
    """One random number in −largest…largest for each image, (images, 1, 1, 1)."""
    return (torch.rand((images, 1, 1, 1), generator=generator) * 2 - 1) * largest
