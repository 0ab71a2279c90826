"""Checkpoints as publishers lay them out, built from torchvision's and timm's networks with random weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn

State = dict[str, Tensor]


def randomised(network: nn.Module, seed: int = 11, channels: int = 3, side: int = 64) -> nn.Module:
    """Give every norm weights, biases and statistics of its own, nothing at 0 or 1, so that signals reach the end."""
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    layers = [module for module in network.modules() if isinstance(module, nn.LayerNorm)]
    for norm in (*norms, *layers):
        norm.weight.data.uniform_(0.6, 1.2, generator=generator)
        norm.bias.data.normal_(0, 0.1, generator=generator)
    if not norms and not layers:
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.data *= 6**0.5  # from torch's own variance to He's, for networks without norms
    _learn_statistics(network.eval(), norms, (torch.rand(4, 1, side, side, generator=generator) - 0.45) / 0.225, channels)
    for norm in norms:
        norm.running_var *= torch.rand(norm.running_var.shape, generator=generator) * 0.4 + 0.8
    return network


def _learn_statistics(network: nn.Module, norms: list[nn.BatchNorm2d], images: Tensor, channels: int) -> None:
    for norm in norms:
        norm.train().momentum = 1.0
    if norms:
        with torch.no_grad():
            network(images.expand(-1, channels, -1, -1))
    for norm in norms:
        norm.eval().momentum = 0.1


@dataclass(frozen=True)
class Publisher:
    """A publisher's network and file.

    Attributes:
        backbone: ours that it fits.
        key_map: by which it does.
        make: the network, with its classifier.
        classifier: path of what is replaced by nothing to see the features.
        state: how the file holds its tensors.
        left_over: what is dropped on purpose begins with one of these.
        channels: of the first convolution.
        size: rows and columns of a test image; torchvision's transformer knows only its own.
    """

    backbone: str
    key_map: str
    make: Callable[[], nn.Module]
    classifier: str
    state: Callable[[nn.Module], State] = lambda network: network.state_dict()
    left_over: tuple[str, ...] = ()
    channels: int = 3
    size: int = 64

    def network(self) -> nn.Module:
        torch.manual_seed(2)
        return randomised(self.make(), channels=self.channels, side=self.size if self.size < 224 else 64)

    def features(self, network: nn.Module) -> nn.Module:
        parent, _, name = self.classifier.rpartition(".")
        setattr(network.get_submodule(parent), name, nn.Identity())
        return network

    def write(self, network: nn.Module, path: Path) -> State:
        state = {key: value.clone() for key, value in self.state(network).items()}
        torch.save(state, path)
        return state


def oldest(network: nn.Module) -> State:
    """torchvision's DenseNet files hold the names of before torch 0.4, and no counters."""
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))([12])\.")
    state = {old.sub(r"\1.\2.", key): value for key, value in network.state_dict().items() if "num_batches" not in key}
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    return state


def radimagenet(network: nn.Module) -> State:
    """RadImageNet's published wrapper: the children but for the classifier in a Sequential, called backbone."""
    wrapper = nn.Module()
    wrapper.backbone = nn.Sequential(*list(network.children())[:-1])
    state = wrapper.state_dict()
    assert all(key.startswith("backbone.") for key in state)
    return state


def grey(network: nn.Module, first: str) -> nn.Module:
    """One channel, as torchxrayvision builds it."""
    parent, _, name = first.rpartition(".")
    setattr(network.get_submodule(parent), name, nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False))
    return network


def xray(network: nn.Module) -> State:
    return {**network.state_dict(), "op_threshs": torch.zeros(18)}


def of_torchvision(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None, **options)


RESNETS = ("resnet18", "resnet50")
INCEPTION = {"transform_input": False, "init_weights": False}
PUBLISHERS: dict[str, Publisher] = {
    **{
        name: Publisher(name, "torchvision-resnet", of_torchvision(name), "fc", left_over=("fc.",))
        for name in ("resnet18", "resnet34", "resnet50", "resnet101")
    },
    **{
        name: Publisher(name, "torchvision-densenet", of_torchvision(name), "classifier", oldest, left_over=("classifier.",))
        for name in ("densenet121", "densenet169", "densenet201")
    },
    **{
        name: Publisher(name, f"torchvision-{name}", of_torchvision(name), "classifier", left_over=("classifier.",))
        for name in (*(f"efficientnet_b{size}" for size in range(5)), "mobilenet_v2")
    },
    "vgg16": Publisher(
        "vgg16", "torchvision-vgg16", of_torchvision("vgg16", init_weights=False), "classifier.6", left_over=("classifier.6",)
    ),
    "inception_v3": Publisher(
        *("inception_v3", "torchvision-inception_v3", of_torchvision("inception_v3", **INCEPTION), "fc"),
        left_over=("fc.", "AuxLogits."),
        size=128,
    ),
    "vit_b16": Publisher("vit_b16", "torchvision-vit", of_torchvision("vit_b_16"), "heads", left_over=("heads.",), size=224),
    "timm vit_b16": Publisher(
        "vit_b16", "timm-vit", lambda: timm.create_model("vit_base_patch16_224"), "head", left_over=("head.",), size=224
    ),
    "timm seresnet50": Publisher(
        *("seresnet50", "timm-seresnet50", lambda: timm.create_model("legacy_seresnet50"), "last_linear"),
        left_over=("last_linear.",),
    ),
    "radimagenet resnet50": Publisher("resnet50", "radimagenet-resnet50", of_torchvision("resnet50"), "fc", radimagenet),
    "radimagenet densenet121": Publisher(
        "densenet121", "radimagenet-densenet121", of_torchvision("densenet121"), "classifier", radimagenet
    ),
    "radimagenet inception_v3": Publisher(
        *(
            "inception_v3",
            "radimagenet-inception_v3",
            of_torchvision("inception_v3", aux_logits=False, **INCEPTION),
            "fc",
            radimagenet,
        ),
        size=128,
    ),
    "radimagenet inception_v3 with its auxiliary classifier": Publisher(
        *("inception_v3", "radimagenet-inception_v3-aux", of_torchvision("inception_v3", **INCEPTION), "fc", radimagenet),
        left_over=("backbone.15.",),
        size=128,
    ),
    "torchxrayvision densenet121": Publisher(
        *("densenet121", "torchxrayvision-densenet121", lambda: grey(of_torchvision("densenet121")(), "features.conv0")),
        *("classifier", xray),
        left_over=("classifier.", "op_threshs"),
        channels=1,
    ),
    "torchxrayvision resnet50": Publisher(
        *("resnet50", "torchxrayvision-resnet50", lambda: grey(of_torchvision("resnet50")(), "conv1"), "fc"),
        lambda network: {"op_threshs": torch.zeros(18), **{f"model.{key}": value for key, value in network.state_dict().items()}},
        left_over=("model.fc.", "op_threshs"),
        channels=1,
    ),
}
