"""Grad-CAM on a network whose evidence is localised by construction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipelines.metrics.saliency import grad_cam, overlay


class Bright(nn.Module):
    """Output 0 rises with bright pixels, output 1 falls with them; batch norm stays as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.layer.weight.zero_()
            self.layer.weight[0, 0, 1, 1] = 1.0
            self.head.weight.copy_(torch.tensor([[2.0, 0.0], [-1.0, 0.0]]))

    def forward(self, images: Tensor) -> Tensor:
        features = nn.functional.relu(self.norm(self.layer(images)), inplace=True)
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


@pytest.fixture
def network() -> Bright:
    return Bright()


@pytest.fixture
def images() -> Tensor:
    images = torch.zeros(2, 1, 16, 16)
    images[0, 0, 3, 12] = 1.0
    images[1, 0, 10:13, 4:7] = 0.5
    return images


def test_the_map_peaks_where_the_evidence_lies(network: Bright, images: Tensor) -> None:
    maps = grad_cam(network, network.layer, images, 0)
    assert maps.shape == (2, 16, 16)
    assert maps.dtype == np.float32
    assert np.unravel_index(maps[0].argmax(), (16, 16)) == (3, 12)
    assert maps[0].max() == maps[1].max() == 1.0
    assert maps[1, 10:13, 4:7].min() == 1.0
    assert maps[1].sum() == 9.0


def test_what_speaks_against_an_output_is_left_out(network: Bright, images: Tensor) -> None:
    assert not grad_cam(network, network.layer, images, 1).any()


def test_coarse_maps_grow_to_the_size_of_the_image() -> None:
    layer = nn.AvgPool2d(4)
    network = nn.Sequential(layer, nn.Flatten(), nn.Linear(16, 1, bias=False))
    nn.init.ones_(network[2].weight)
    image = torch.zeros(1, 1, 16, 16)
    image[0, 0, 4:8, 8:12] = 1.0
    found = grad_cam(network, layer, image, 0)[0]
    assert found.shape == (16, 16)
    assert found[4:8, 8:12].min() > 0.5
    assert found[12:, :4].max() == 0.0


def test_the_network_is_left_as_it_was(network: Bright, images: Tensor) -> None:
    network.train()
    network.norm.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        grad_cam(network, network.layer, images, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert [network.training, network.layer.training, network.norm.training] == [True, True, False]
    assert not network.layer._forward_hooks


def test_hooks_go_even_when_the_network_fails(network: Bright) -> None:
    with pytest.raises(RuntimeError, match="expected input"):
        grad_cam(network, network.layer, torch.zeros(1, 3, 8, 8), 0)
    assert not network.layer._forward_hooks


def test_an_overlay_shows_the_radiograph_where_nothing_speaks() -> None:
    image = np.full((4, 4), 120, dtype=np.uint8)
    evidence = np.zeros((4, 4), dtype=np.float32)
    evidence[1, 2] = 1.0
    shown = overlay(image, evidence)
    assert shown.shape == (4, 4, 3)
    assert (shown[0, 0] == 120).all()
    red, green, blue = shown[1, 2].tolist()
    assert red > green > blue
