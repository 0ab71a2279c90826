"""The first convolution on a radiograph's one channel, folded from the channels that its weights were trained with.

Published weights expect three normalised channels; a radiograph has one. Convolving three equal channels c, each
(g - mean_c) / std_c, is convolving the one channel g with the sum over c of w_c / std_c, and adding a constant. The fold is
made anew in each pass, from weights that stay as they were published: checkpoints, passports and penalties on the
distance to them see the same tensors, and training moves them exactly as it would with three channels.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.models.provenance import Normalisation


class FoldedConv2d(nn.Conv2d):
    """A convolution that takes an image in 0…1 of one channel, and normalises by the way.

    Zero padding pads the normalised channels. Where these have different means, no grey value stands for zero in all of
    them, so that outputs at the edges, which see the padding, lack a part of the constant; it is taken from them again.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, layer: nn.Conv2d, normalisation: Normalisation) -> Self:
        """A layer that holds the same weights; `folds` must hold for `layer`."""
        folded = cls(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            bias=layer.bias is not None,
            device="meta",
        )
        folded.weight, folded.bias = layer.weight, layer.bias
        mean, std = torch.tensor(normalisation.mean), torch.tensor(normalisation.std)
        folded.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)
        folded.register_buffer("std", std.view(1, -1, 1, 1), persistent=False)
        folded.grey, folded.spread = sum(normalisation.mean) / len(mean), sum(normalisation.std) / len(std)
        folded.edges = folded._edges() if len(set(normalisation.mean)) > 1 else (0, 0)
        return folded

    grey: float
    spread: float
    edges: tuple[int, int]

    def forward(self, images: Tensor) -> Tensor:
        """Convolve images (images, 1, rows, columns), or with as many channels as the weights have, in 0…1."""
        if images.shape[1] == self.in_channels > 1:
            return super().forward((images - self.mean) / self.std)
        weight = (self.weight * (self.spread / self.std)).sum(1, keepdim=True)
        constant = (self.weight * ((self.grey - self.mean) / self.std)).sum(1, keepdim=True)
        bias = constant.sum((1, 2, 3))
        bias = bias if self.bias is None else bias + self.bias
        centred = (images - self.grey) / self.spread
        if self.weight.is_contiguous(memory_format=torch.channels_last):
            centred = centred.squeeze(1).unsqueeze(-1).permute(0, 3, 1, 2)  # strides that say so, for what follows
        maps = functional.conv2d(centred, weight, bias, self.stride, self.padding, self.dilation)
        if self.edges == (0, 0):
            return maps
        ones = images.new_ones(1, 1, *images.shape[2:])
        seen = functional.conv2d(ones, constant, None, self.stride, self.padding, self.dilation)
        lacking = seen - constant.sum((1, 2, 3)).view(1, -1, 1, 1)
        result: Tensor = _AtEdges.apply(maps, lacking.to(maps.dtype), *self.edges)
        return result

    def _edges(self) -> tuple[int, int]:
        """How many of the first, and of the last, output rows and columns can see the padding."""
        pads = cast(tuple[int, int], self.padding)
        return -(-pads[0] // self.stride[0]), -(-pads[1] // self.stride[1])


def folds(layer: nn.Module) -> bool:
    """Whether a first layer can be folded: a plain convolution, with zeros in numbers, or nothing, as padding."""
    return type(layer) is nn.Conv2d and layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


@torch.no_grad()
def one_channel(layer: nn.Conv2d) -> nn.Conv2d:
    """A convolution of one channel, whose weights are the sums of those of `layer` over its channels."""
    single = nn.Conv2d(
        1,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        bias=layer.bias is not None,
        padding_mode=layer.padding_mode,
        device="meta",
    )
    single.weight, single.bias = nn.Parameter(layer.weight.sum(1, keepdim=True)), layer.bias
    return single


class _AtEdges(torch.autograd.Function):
    """Add in place, at the edges only, so that neither direction touches the whole map again."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, lacking: Tensor, rows: int, columns: int) -> Tensor:
        ctx.strips = _strips(maps.shape[2], maps.shape[3], rows, columns)
        ctx.shape = lacking.shape
        for strip in ctx.strips:
            maps[strip] += lacking[strip]
        ctx.mark_dirty(maps)
        return maps

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        lacking = gradient.new_zeros(ctx.shape)
        for strip in ctx.strips:
            lacking[strip] = gradient[strip].sum(0, keepdim=True)
        return gradient, lacking, None, None


def _strips(height: int, width: int, rows: int, columns: int) -> list[tuple[slice, ...]]:
    """The four edges of a map, disjoint: above and below in full width, left and right between them."""
    last_rows, last_columns = max(rows, height - rows), max(columns, width - columns)
    everything, between = slice(None), slice(rows, last_rows)
    across = product((slice(0, rows), slice(last_rows, height)), (everything,))
    along = product((between,), (slice(0, columns), slice(last_columns, width)))
    return [(everything, everything, *strip) for strip in (*across, *along)]
