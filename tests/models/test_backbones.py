"""Every backbone of the table, and timm encoders of every kind: one network at a time, built once."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.errors import ConfigurationError
from pipelines.metrics.saliency import grad_cam
from pipelines.models.backbones import BACKBONES, Network, build, check_size, resolve
from pipelines.models.families import timm_nets
from pipelines.models.provenance import Normalisation

UNEVEN = Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
# plain convolutions, inverted residuals, patches, a class token, channels last, a padding that follows TensorFlow, and an
# activation within batch norm
TIMM = (
    *("timm:test_resnet.r160_in1k", "timm:test_efficientnet", "timm:test_convnext", "timm:test_vit"),
    *("timm:swin_tiny_patch4_window7_224", "timm:tf_efficientnet_lite0", "timm:regnety_002"),
)
UNFOLDED = ("timm:tf_efficientnet_lite0",)
TOKENS = ("vit_b16", "timm:test_vit")


def network_of(name: str, outputs: int = 2) -> Network:
    torch.manual_seed(3)
    return build(name, outputs=outputs, dropout=0.5, normalisation=UNEVEN)


@pytest.fixture(scope="module", params=[*BACKBONES, *TIMM])
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """One at a time, with batch-norm statistics of its own."""
    network = settled(network_of(request.param))
    yield network
    del network
    gc.collect()


def settled(network: Network) -> Network:
    """With batch-norm statistics of its own, so that signals reach the end."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            network.train()(torch.rand(4, 1, *[side(network)] * 2, generator=torch.Generator().manual_seed(6)))
    return network.eval()


def side(network: Network) -> int:
    """Images small enough for a test, yet with more than one place in the last map."""
    return 128 if network.backbone.least_size > 64 else 64


@pytest.fixture(scope="module")
def images(network: Network) -> torch.Tensor:
    return torch.rand(2, 1, *[side(network)] * 2, generator=torch.Generator().manual_seed(5))


def test_groups_cover_each_parameter_exactly_once(network: Network) -> None:
    counts = Counter(id(parameter) for group in network.groups() for parameter in group.parameters())
    assert counts == Counter(id(parameter) for parameter in network.parameters())


def test_groups_run_from_stem_to_head(network: Network) -> None:
    assert [group.name for group in network.groups()] == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    assert network.groups()[-1].modules == (network.head,)


def test_groups_are_in_the_order_in_which_an_image_meets_them(network: Network, images: torch.Tensor) -> None:
    """No layer of a group works before one of the group before has worked, and none after the next group's first map is done."""
    met: list[int] = []
    hooks = []
    for number, group in enumerate(network.groups()):
        leaves = [m for part in group.modules for m in part.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert leaves
        hooks += [leaf.register_forward_hook(lambda _m, _i, _o, number=number: met.append(number)) for leaf in leaves]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    assert met == sorted(met)
    assert set(met) == set(range(6))


def test_an_image_becomes_features_of_the_declared_width(network: Network, images: torch.Tensor) -> None:
    with torch.no_grad():
        features = network.features(images)
        assert features.shape == (2, network.width) == (2, network.backbone.width)
        assert (features[0] - features[1]).abs().max() > 0.01 * features.abs().max()
        assert torch.equal(network(images), network.head.linear(features))


def test_one_channel_gives_the_same_as_three_equal_ones_borders_included(network: Network, images: torch.Tensor) -> None:
    assert network.folded == (network.name not in UNFOLDED)
    if any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):  # random ones amplify rounding
        network.double()
    try:
        with torch.no_grad():
            one, three = (network.features(x.to(network.mean.dtype)) for x in (images, images.expand(-1, 3, -1, -1)))
    finally:
        network.float()
    assert (one - three).abs().max() <= 1e-5 * three.abs().max()


def test_the_saliency_layer_gives_a_map_that_pulls_at_an_output(network: Network, images: torch.Tensor) -> None:
    outputs: list[torch.Tensor] = []
    hook = network.saliency_layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    logits = network(images)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), outputs[0])
    maps, pull = (network.maps(tensor, tuple(images.shape[2:])) for tensor in (outputs[0], gradient))
    assert maps.shape == pull.shape
    assert maps.ndim == 4
    assert maps.shape[2] == maps.shape[3] == side(network) // network.probe().reduction > 1
    assert pull.abs().sum() > 0
    shown = grad_cam(network, network.saliency_layer, images, 0, network.maps)
    assert shown.shape == (2, side(network), side(network))
    assert np.isfinite(shown).all()


def test_every_parameter_learns(network: Network, images: torch.Tensor) -> None:
    network.train()
    for module in network.modules():
        if type(module).__name__ == "DropPath":
            module.drop_prob = 0.0
    network(images).square().sum().backward()
    silent = [
        key for key, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    network.eval().zero_grad()
    assert silent == []


@pytest.mark.parametrize("name", ["resnet10", "efficientnet_b0", "mobilenet_v2", "timm:test_convnext"])
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    one, other = network_of(name).state_dict(), network_of(name).state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "efficientnet_b0", "mobilenet_v2"])
def test_channels_last_and_bfloat16_come_close(name: str) -> None:
    network, images = settled(network_of(name)), torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = network.features(images)
        network.to(memory_format=torch.channels_last)
        torch.testing.assert_close(network.features(images), expected, rtol=1e-3, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            actual, logits = network.features(images).float(), network(images)
    assert logits.dtype == torch.bfloat16
    assert nn.functional.cosine_similarity(actual, expected).min() > 0.9


@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in (*TOKENS, "vgg16")])
def test_convolutional_stages_halve_the_resolution(name: str) -> None:
    """So that a rate that decays by group decays alike in all of them; worked out without storage."""
    with torch.device("meta"):
        network = network_of(name).eval()
        rows: dict[str, int] = {}
        for group in network.groups()[:-1]:
            *_, last = (m for part in group.modules for m in part.modules() if isinstance(m, nn.Conv2d))
            last.register_forward_hook(lambda _m, _i, out, name=group.name: rows.update({name: out.shape[2]}))
        network.features(torch.zeros(1, 1, 256, 256))
    if name == "inception_v3":  # its convolutions are not padded
        assert list(rows.values()) == [125, 60, 29, 14, 6]
    else:
        assert rows == {"stem": 128, "stage1": 64, "stage2": 32, "stage3": 16, "stage4": 8}


@pytest.mark.parametrize("name", TOKENS)
def test_grad_cam_of_a_transformer_peaks_where_the_evidence_is(name: str) -> None:
    """A head that reads one patch out of the features it adds to them has its evidence there."""
    network = network_of(name).eval()
    images = torch.zeros(1, 1, 96, 64)
    images[..., 64:80, 16:32] = 1.0
    with torch.no_grad():
        bright, dark = network.features(images), network.features(torch.zeros_like(images))
        network.head.linear.weight.copy_(torch.stack([bright[0] - dark[0], dark[0] - bright[0]]))
    outputs: list[torch.Tensor] = []
    hook = network.saliency_layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    network(images)
    hook.remove()
    maps = network.maps(outputs[0].detach(), (96, 64))[0]
    assert maps.shape[1:] == (6, 4)
    odd = (maps - maps.flatten(1).median(1).values[:, None, None]).norm(dim=0)
    assert np.unravel_index(int(odd.argmax()), (6, 4)) == (4, 1)
    assert grad_cam(network, network.saliency_layer, images, 0, network.maps).shape == (1, 96, 64)


def test_the_normalisation_is_no_parameter_but_travels_with_the_weights() -> None:
    network = network_of("resnet10")
    assert {"mean", "std"} <= set(network.state_dict())
    assert not {"mean", "std"} & {name for name, _ in network.named_parameters()}
    assert network.normalisation.mean == pytest.approx(UNEVEN.mean)
    assert network.normalisation.std == pytest.approx(UNEVEN.std)


def test_a_probe_leaves_the_network_as_it_was() -> None:
    network = network_of("resnet10").train()
    network.trunk.get_submodule("layer1").eval()
    before, state = [module.training for module in network.modules()], {k: v.clone() for k, v in network.state_dict().items()}
    assert network.probe() == network.probe()
    assert [module.training for module in network.modules()] == before
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_a_transformer_sees_images_of_any_size() -> None:
    network = network_of("timm:test_vit").eval()
    with torch.no_grad():
        assert network.features(torch.rand(1, 1, 64, 64)).shape == network.features(torch.rand(1, 1, 96, 160)).shape == (1, 64)


def test_an_unknown_backbone_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"train\.backbone: expected one of resnet10, resnet18, .*timm:NAME, got 'vgg'"):
        resolve("vgg")


def test_an_unknown_encoder_of_timm_is_refused_with_near_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"timm has no model 'convnxt_tiny'; did you mean timm:convnext_tiny"):
        resolve("timm:convnxt_tiny")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *((name, "timm does not say how its layers are grouped") for name in ("caformer_s18", "pit_xs_224")),
        *((name, "") for name in ("crossvit_tiny_240", "coat_tiny", "mvitv2_tiny", "rdnet_tiny")),
    ],
)
def test_an_encoder_unlike_timms_others_is_refused_with_the_reason_and_some_that_work(name: str, why: str) -> None:
    expected = rf"timm's {name} cannot be used as a backbone: {why}.*; take another one, e\.g\. timm:convnext_tiny, "
    with pytest.raises(ConfigurationError, match=expected):
        resolve(f"timm:{name}")


@pytest.mark.parametrize("name", timm_nets.SUITED)
def test_the_encoders_that_are_named_instead_work(name: str) -> None:
    assert resolve(f"timm:{name}").groups[0][0] == "stem"


def test_an_encoder_declares_what_timm_says_of_it() -> None:
    backbone = resolve("timm:convnext_tiny.in12k")
    assert (backbone.width, backbone.input_size, backbone.first) == (768, 224, "model.stem.0")
    assert [name for name, _ in backbone.groups] == ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert backbone.groups[4][1] == ("model.stages.3", "model.head")


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [("inception_v3", 64, "at least 75"), ("timm:beit_base_patch16_224", 192, "224"), ("vit_b16", 16, "at least 32")],
)
def test_a_size_that_a_network_cannot_take_is_refused(name: str, size: int, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"prepare\.size: expected {expected} for {name}, got {size}"):
        check_size(name, size)
    check_size("resnet10", 32)


def test_dropout_is_the_heads_or_belongs_to_a_layer_group_that_can_be_still(network: Network) -> None:
    still = {id(inner) for group in network.groups() for module in group.modules for inner in module.modules()}
    stray = [name for name, module in network.named_modules() if getattr(module, "p", 0) and id(module) not in still]
    assert stray == []
