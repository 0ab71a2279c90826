"""Where the evidence lies: Grad-CAM (Selvaraju et al., ICCV 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

AsMaps = Callable[[Tensor, tuple[int, int]], Tensor]


def _are_maps(output: Tensor, _shape: tuple[int, int]) -> Tensor:
    return output


def grad_cam(
    network: nn.Module, layer: nn.Module, images: Tensor, output: int, as_maps: AsMaps = _are_maps
) -> NDArray[np.float32]:
    """Maps of what speaks for one output: the feature channels weighted by their mean gradient, what is below 0 left out.

    The gradient stops at the feature map, so no parameter gathers one; modes and hooks are as before afterwards.

    Args:
        network: gives logits (images, outputs).
        layer: the module of the network that puts out its last feature map (images, channels, rows, columns), or something
            of which `as_maps` makes one, such as a transformer's tokens.
        images: (images, 1, rows, columns), float, 0…1, on the network's device.
        output: the position of the output.
        as_maps: brings what the layer puts out for images of so many rows and columns, and its gradient, into that shape.

    Returns:
        Array (images, rows, columns), 0…1, each map scaled to its own maximum; all 0 where nothing speaks for the output.
    """
    maps: list[Tensor] = []

    def tap(module: nn.Module, given: object, result: Tensor) -> Tensor:
        maps.append(result.detach().requires_grad_())
        return maps[0].clone()  # later layers may work in place, which a leaf of the graph forbids

    with _evaluating(network), torch.enable_grad():
        handle = layer.register_forward_hook(tap)
        try:
            logits = network(images)
        finally:
            handle.remove()
        (gradient,) = torch.autograd.grad(logits[:, output].sum(), maps[0])
    rows, columns = images.shape[-2:]
    seen, pull = (as_maps(tensor, (rows, columns)) for tensor in (maps[0].detach(), gradient))
    evidence = (seen * pull.mean(dim=(2, 3), keepdim=True)).sum(dim=1, keepdim=True).relu().float()
    full = nn.functional.interpolate(evidence, size=images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    scaled = full / full.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    result: NDArray[np.float32] = scaled.cpu().numpy()
    return result


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; each module's own mode comes back, since frozen batch norm differs from the rest."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def overlay(image: NDArray[np.uint8], evidence: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The radiograph with its evidence map in warm colours, more opaque where there is more.

    Args:
        image: (rows, columns).
        evidence: (rows, columns), 0…1.

    Returns:
        Array (rows, columns, 3), red, green, blue.
    """
    warm = np.stack([255 * np.clip(0.55 + 0.9 * evidence, 0, 1), 255 * evidence**1.3 * 0.85, 40 * (1 - evidence)], axis=-1)
    opacity = 0.6 * evidence[..., None]
    blended = image[..., None] * (1 - opacity) + warm * opacity
    result: NDArray[np.uint8] = np.rint(blended).astype(np.uint8)
    return result
