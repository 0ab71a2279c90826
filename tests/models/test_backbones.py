from collections import Counter

import pytest
import torch

from pipelines.errors import ConfigurationError
from pipelines.models.backbones import BACKBONES, Network, build
from pipelines.models.provenance import Normalisation

HALF = Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def network_of(name: str, outputs: int = 2) -> Network:
    torch.manual_seed(3)
    return build(name, outputs=outputs, dropout=0.5, normalisation=HALF)


@pytest.fixture(scope="module", params=BACKBONES)
def network(request: pytest.FixtureRequest) -> Network:
    """With batch-norm statistics of its own, so that signals reach the end."""
    network = network_of(request.param)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.rand(8, 1, 64, 64, generator=torch.Generator().manual_seed(6)))
    return network.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(5))


def test_groups_cover_each_parameter_exactly_once(network: Network) -> None:
    counts = Counter(id(p) for group in network.groups() for module in group.modules for p in module.parameters())
    assert counts == Counter(id(p) for p in network.parameters())


def test_groups_run_from_stem_to_head(network: Network) -> None:
    assert [group.name for group in network.groups()] == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    assert network.groups()[-1].modules == (network.head,)


def test_each_group_works_at_half_the_resolution_of_the_one_before(network: Network, images: torch.Tensor) -> None:
    rows: dict[str, int] = {}
    hooks = []
    for group in network.groups()[:-1]:
        *_, last = (m for part in group.modules for m in part.modules() if isinstance(m, torch.nn.Conv2d))
        hooks.append(last.register_forward_hook(lambda _m, _i, out, name=group.name: rows.update({name: out.shape[2]})))
    with torch.no_grad():
        network.features(images)
    for hook in hooks:
        hook.remove()
    assert rows == {"stem": 32, "stage1": 16, "stage2": 8, "stage3": 4, "stage4": 2}


def test_logits_are_those_of_the_head_on_the_pooled_features(network: Network, images: torch.Tensor) -> None:
    with torch.no_grad():
        features = network.features(images)
        assert features.shape == (2, network.width)
        assert (features[0] - features[1]).abs().max() > 0.02 * features.abs().max()
        assert torch.equal(network(images), network.head.linear(features))


def test_the_saliency_layer_puts_out_what_is_pooled(network: Network, images: torch.Tensor) -> None:
    maps: list[torch.Tensor] = []
    hook = network.saliency_layer.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    logits = network(images)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), maps[0])
    assert maps[0].shape == gradient.shape == (2, network.width, 2, 2)
    assert gradient.abs().sum() > 0
    torch.testing.assert_close(maps[0].mean((2, 3)), network.features(images))


def test_a_one_channel_image_gives_the_same_as_three_equal_channels(network: Network, images: torch.Tensor) -> None:
    with torch.no_grad():
        assert torch.equal(network.features(images), network.features(images.expand(-1, 3, -1, -1)))


def test_channels_last_changes_nothing_but_rounding(network: Network, images: torch.Tensor) -> None:
    with torch.no_grad():
        expected = network(images)
        try:
            network.to(memory_format=torch.channels_last)
            actual = network(images.contiguous(memory_format=torch.channels_last))
        finally:
            network.to(memory_format=torch.contiguous_format)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


def test_bfloat16_autocast_comes_close(network: Network, images: torch.Tensor) -> None:
    with torch.no_grad():
        expected = network.features(images)
        with torch.autocast("cpu", torch.bfloat16):
            actual, logits = network.features(images).float(), network(images)
    assert logits.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(actual, expected).min() > 0.9


def test_the_normalisation_is_no_parameter_but_travels_with_the_weights(network: Network) -> None:
    assert {"mean", "std"} <= set(network.state_dict())
    assert not {"mean", "std"} & {name for name, _ in network.named_parameters()}
    assert network.normalisation.mean == pytest.approx(HALF.mean)
    assert network.normalisation.std == pytest.approx(HALF.std)


def test_a_probe_leaves_the_network_as_it_was() -> None:
    network = network_of("resnet10").train()
    network.trunk.get_submodule("layer1").eval()
    before, state = [module.training for module in network.modules()], {k: v.clone() for k, v in network.state_dict().items()}
    assert network.probe() == network.probe()
    assert [module.training for module in network.modules()] == before
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", BACKBONES)
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    one, other = network_of(name).state_dict(), network_of(name).state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_parameter_learns(name: str, images: torch.Tensor) -> None:
    network = network_of(name).train()
    network(images).square().sum().backward()
    assert not [key for key, parameter in network.named_parameters() if parameter.grad is None]


def test_an_unknown_backbone_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"train\.backbone: expected one of resnet10, resnet18, .*, got 'vgg'"):
        build("vgg", outputs=1, dropout=0, normalisation=HALF)
