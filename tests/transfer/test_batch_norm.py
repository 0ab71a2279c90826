from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.models import backbones
from pipelines.models.backbones import BACKBONES
from pipelines.models.provenance import Normalisation
from pipelines.transfer.batch_norm import FrozenBatchNorm, batch_norms, freeze_batch_norm

NORMALISATION = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.mark.parametrize("name", ["resnet10", "densenet121", "efficientnet_b0", "mobilenet_v2"])
def test_frozen_batch_norm_neither_adapts_nor_learns_in_training_mode(name: str) -> None:
    assert name in BACKBONES
    network = backbones.build(name, outputs=1, dropout=0.0, normalisation=NORMALISATION)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    norms = len(list(batch_norms(network)))
    freeze_batch_norm(network)
    network.train()
    network(torch.rand(2, 1, 64, 64)).sum().backward()
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(before[key], after[key]) for key in before)
    frozen = [module for module in network.modules() if isinstance(module, FrozenBatchNorm)]
    assert len(frozen) == norms > 0
    assert not any(module.training or parameter.requires_grad for module in frozen for parameter in module.parameters())
    assert all(parameter.grad is None for module in frozen for parameter in module.parameters())


def test_frozen_batch_norm_computes_what_the_other_does_in_evaluation_mode() -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_mean, norm.running_var = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0])
    images = torch.rand(2, 3, 4, 4)
    expected = norm.eval()(images)
    container = nn.Sequential(norm)
    freeze_batch_norm(container)
    assert torch.equal(container.train()(images), expected)


def test_batch_norm_of_rows_is_frozen_too() -> None:
    """timm's LeViT has hardly any other."""
    norm = nn.BatchNorm1d(3)
    container = nn.Sequential(nn.Sequential(norm))
    assert list(batch_norms(container)) == [norm]
    freeze_batch_norm(container)
    frozen = container.train()[0][0]
    container(torch.rand(4, 3) + 1)
    assert isinstance(frozen, nn.BatchNorm1d)
    assert torch.equal(frozen.running_mean, torch.zeros(3))
    assert not any(parameter.requires_grad for parameter in container.parameters())


def test_batch_norm_that_is_not_frozen_does_adapt() -> None:
    network = backbones.build("resnet10", outputs=1, dropout=0.0, normalisation=NORMALISATION)
    norm = next(batch_norms(network))
    assert norm.running_mean is not None
    before = norm.running_mean.clone()
    network.train()(torch.rand(2, 1, 64, 64))
    assert not torch.equal(norm.running_mean, before)


def test_frozen_batch_norm_keeps_the_activation_that_timm_puts_into_it() -> None:
    network = backbones.build("timm:test_efficientnet", outputs=1, dropout=0.0, normalisation=NORMALISATION).eval()
    norm, images = next(batch_norms(network)), torch.rand(2, 1, 64, 64)
    assert type(norm).__name__ == "BatchNormAct2d"
    assert norm.running_mean is not None
    norm.running_mean.fill_(0.3)
    expected = network(images)
    freeze_batch_norm(network)
    assert all(isinstance(frozen, FrozenBatchNorm) for frozen in batch_norms(network))
    assert torch.equal(network.train().trunk(images), network.eval().trunk(images))
    assert torch.equal(network(images), expected)
