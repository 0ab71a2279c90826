"""What is known of a network before it is built: the entry of the table of backbones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Groups = tuple[tuple[str, tuple[str, ...]], ...]
Layout = Literal["maps", "maps_last", "tokens"]


@dataclass(frozen=True)
class Backbone:
    """One architecture.

    Attributes:
        make: builds the network with random weights, at the state of torch's global generator; it takes three channels.
        width: the number of features that the head sees.
        groups: the name and the modules or parameters (by path) of each layer group, from stem to the last before the
            head. Those of the table have five each, where there are stages one for each halving of the resolution, so
            that a decay per group means the same for all.
        saliency: path of the module whose output Grad-CAM looks at: the last that still knows where things are.
        layout: of that output: `maps` (images, channels, rows, columns), `maps_last` (images, rows, columns, channels) or
            `tokens` (images, prefix + rows × columns, channels).
        prefix_tokens: tokens before those of the patches, such as the class token.
        first: path of the convolution that sees the image, or None where another module, or none, does.
        removed: paths of the published classifier's modules, which the head replaces.
        input_size: rows and columns that the published weights were trained at; others work, within limits:
        least_size: fewest rows and columns that the network can take.
        fixed_size: whether it takes `input_size` and no other.
    """

    make: Callable[[], nn.Module]
    width: int
    groups: Groups
    saliency: str
    first: str | None
    removed: tuple[str, ...] = ()
    input_size: int = 224
    least_size: int = 32
    fixed_size: bool = False
    layout: Layout = "maps"
    prefix_tokens: int = 0

    def as_maps(self, output: Tensor, shape: tuple[int, int]) -> Tensor:
        """The output of the saliency layer, or its gradient, as maps (images, channels, rows, columns).

        `shape` is the image's rows and columns; patches are square.
        """
        if self.layout == "maps":
            return output
        if self.layout == "maps_last":
            return output.movedim(-1, 1)
        patches = output[:, self.prefix_tokens :]
        rows = round((patches.shape[1] * shape[0] / shape[1]) ** 0.5)
        return patches.transpose(1, 2).reshape(len(patches), patches.shape[2], rows, -1)


def replace_module(network: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` in the place of the one at `path`."""
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)
