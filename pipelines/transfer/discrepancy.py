"""How far the features of two hospitals lie apart: what domain adaptation minimises, and how one sees whether it did.

Every measure takes features (images, width) of the source and of the target, which need not be as many, and is 0 or more.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

# of the kernels, times the mean squared distance: as in the code of Long et al. (ICML 2015), whose paper takes the median
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


def standardised(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both, from the source's mean and in units of its mean deviation, as one number, so that no network wins by shrinking.

    Args:
        source: features (images, width).
        target: likewise.
    """
    centre = source.mean(dim=0)
    scale = (source - centre).square().mean().sqrt().clamp(min=1e-6)
    return (source - centre) / scale, (target - centre) / scale


def coral(source: Tensor, target: Tensor) -> Tensor:
    """Squared distance of the two covariances, ‖C_source − C_target‖² / 4 width² (Sun and Saenko, ECCV workshops 2016)."""
    width = source.shape[1]
    return (_covariance(source) - _covariance(target)).square().sum() / (4 * width**2)


def mmd(source: Tensor, target: Tensor) -> Tensor:
    """Squared maximum mean discrepancy under a mean of five Gaussian kernels (Gretton et al., JMLR 2012, biased estimate).

    Bandwidths are multiples of the mean squared distance between any two images of the batch, and are not learnt from.
    """
    together = torch.cat([source, target])
    lengths = together.square().sum(dim=1)
    squared = (lengths[:, None] + lengths[None] - 2 * together @ together.T).clamp(min=0)
    images = len(together)
    scale = (squared.detach().sum() / max(1, images * (images - 1))).clamp(min=1e-12)
    kernel = torch.stack([torch.exp(-squared / (scale * bandwidth)) for bandwidth in BANDWIDTHS]).mean(dim=0)
    first = len(source)
    return kernel[:first, :first].mean() + kernel[first:, first:].mean() - 2 * kernel[:first, first:].mean()


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(features: Tensor, strength: float) -> Tensor:
    """The features as they are; backwards, their gradient times −`strength` (Ganin et al., JMLR 2016, equation 16)."""
    return cast(Tensor, _Reversal.apply(features, strength))


def reversal_strength(progress: float) -> float:
    """From 0 at the start of a training to nearly 1 at its end, 2 / (1 + e^(−10 progress)) − 1 (Ganin et al., section 5.2.2)."""
    return float(2 / (1 + torch.exp(torch.tensor(-10.0 * progress))) - 1)


class DomainCritic(nn.Module):
    """Tells source from target by features (images, width), as one logit each; the adversary of DANN."""

    def __init__(self, width: int, hidden: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.layers(features))

    def loss(self, source: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy of source (0) against target (1), each half of it whatever their numbers.

        Half the sum of both means of Ganin et al., equation 9, so that a critic which knows nothing loses log 2.
        """
        one = nn.functional.softplus(self(source)).mean()
        other = nn.functional.softplus(-self(target)).mean()
        return 0.5 * (one + other)


def _covariance(features: Tensor) -> Tensor:
    centred = features - features.mean(dim=0)
    return centred.T @ centred / max(1, len(features) - 1)
