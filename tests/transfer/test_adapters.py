from __future__ import annotations

import pytest
import torch
from tiny_networks import resnet, same, state, vit

from pipelines.transfer import adapters

IMAGES = torch.rand(2, 1, 48, 48)


def test_the_projections_of_attention_are_found_and_nothing_else() -> None:
    expected = [f"blocks.{block}.attn.{name}" for block in (0, 1) for name in ("qkv", "proj")]
    assert adapters.targets(vit().trunk) == expected
    assert adapters.targets(resnet().trunk) == []


def test_adapters_begin_as_nothing_and_hold_rank_times_inputs_and_outputs() -> None:
    network = vit().eval()
    before = network(IMAGES)
    assert adapters.size(network.trunk, 4) == 2 * 4 * ((32 + 96) + (32 + 32))
    size = adapters.size(network.trunk, 4)
    adapters.inject(network.trunk, 4, seed=1)
    assert sum(parameter.numel() for parameter in adapters.parameters(network.trunk)) == size
    assert torch.equal(network(IMAGES), before)


def test_merged_adapters_leave_a_plain_network_with_the_same_answers() -> None:
    network = vit().eval()
    names = list(network.state_dict())
    adapters.inject(network.trunk, 4, seed=1)
    with torch.no_grad():
        for parameter in adapters.parameters(network.trunk):
            parameter.normal_(std=0.1)
    adapted = network(IMAGES)
    adapters.merge(network.trunk)
    assert list(network.state_dict()) == names
    assert torch.allclose(network(IMAGES), adapted, atol=1e-5)


def test_the_merged_weight_is_the_old_one_plus_twice_b_times_a() -> None:
    network = vit()
    layer = network.trunk.get_submodule("blocks.0.attn.qkv")
    old = layer.weight.detach().clone()
    adapters.inject(network.trunk, 4, seed=1)
    injected = network.trunk.get_submodule("blocks.0.attn.qkv")
    a, b = injected.lora_A["default"].weight, injected.lora_B["default"].weight
    with torch.no_grad():
        b.fill_(0.5)
    expected = old + 2 * b.detach() @ a.detach()
    adapters.merge(network.trunk)
    assert torch.allclose(network.trunk.get_submodule("blocks.0.attn.qkv").weight, expected, atol=1e-6)


@pytest.mark.parametrize(("seed", "alike"), [(1, True), (2, False)])
def test_the_seed_decides_the_first_numbers_and_the_global_generator_is_left_alone(seed: int, alike: bool) -> None:
    one, other = vit(), vit()
    adapters.inject(one.trunk, 4, seed=1)
    before = torch.get_rng_state()
    adapters.inject(other.trunk, 4, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(state(one), state(other)) == alike
