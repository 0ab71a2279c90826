from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from tiny_networks import monai_vit, resnet, same, state, vit

from pipelines.models.network import Network
from pipelines.transfer import adapters

IMAGES = torch.rand(2, 1, 48, 48)
TRANSFORMERS = [(vit, 32, ("qkv", "proj")), (monai_vit, 48, ("out_proj", "qkv"))]  # timm's and MONAI's
Make = Callable[[], Network]


@pytest.mark.parametrize(("make", "width", "names"), TRANSFORMERS)
def test_the_projections_of_attention_are_found_and_nothing_else(make: Make, width: int, names: tuple[str, ...]) -> None:
    assert adapters.targets(make().trunk) == [f"blocks.{block}.attn.{name}" for block in (0, 1) for name in names]
    assert adapters.targets(resnet().trunk) == []


@pytest.mark.parametrize(("make", "width", "names"), TRANSFORMERS)
def test_adapters_begin_as_nothing_and_hold_rank_times_inputs_and_outputs(make: Make, width: int, names: tuple[str, ...]) -> None:
    network = make().eval()
    before = network(IMAGES)
    assert adapters.size(network.trunk, 4) == 2 * 4 * ((width + 3 * width) + (width + width))
    size = adapters.size(network.trunk, 4)
    adapters.inject(network.trunk, 4, seed=1)
    assert sum(parameter.numel() for parameter in adapters.parameters(network.trunk)) == size
    assert torch.equal(network(IMAGES), before)


@pytest.mark.parametrize("make", [vit, monai_vit])
def test_merged_adapters_leave_a_plain_network_with_the_same_answers(make: Make) -> None:
    network = make().eval()
    names, plain = list(network.state_dict()), network(IMAGES)
    adapters.inject(network.trunk, 4, seed=1)
    with torch.no_grad():
        for parameter in adapters.parameters(network.trunk):
            parameter.normal_(std=0.1)
    adapted = network(IMAGES)
    assert not torch.allclose(adapted, plain, atol=1e-3)
    adapters.merge(network.trunk)
    assert list(network.state_dict()) == names
    assert torch.allclose(network(IMAGES), adapted, atol=1e-5)


FAMILIES = [
    (Beit, {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}),
    (Eva, {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}),
    (Eva, {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "qkv_fused": False}),
    (SwinTransformer, {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 8, "depths": (1,), "num_heads": (2,)}),
    (SwinTransformerV2, {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 8, "depths": (1,), "num_heads": (2,)}),
    (VisionTransformer, {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}),
]


@pytest.mark.parametrize(("family", "form"), FAMILIES, ids=[f"{family.__name__}-{len(form)}" for family, form in FAMILIES])
def test_every_adapter_of_every_family_is_used(family: type[torch.nn.Module], form: dict[str, object]) -> None:
    torch.manual_seed(1)
    trunk, images = family(in_chans=1, num_classes=3, **form).eval(), torch.rand(2, 1, 32, 32)
    for parameter in trunk.parameters():
        if not parameter.any():  # blocks that begin as nothing would hide what their attention does
            torch.nn.init.normal_(parameter, std=0.1)
    before = trunk(images)
    adapters.inject(trunk, 2, seed=1)
    torch.testing.assert_close(trunk(images), before)
    trunk(images).square().sum().backward()
    upper = {name: parameter.grad for name, parameter in trunk.named_parameters() if "lora_B" in name}
    assert len(upper) == len(adapters.parameters(trunk)) / 2
    assert not [name for name, gradient in upper.items() if gradient is None or not gradient.abs().sum() > 0]


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
