from __future__ import annotations

import pytest
from tiny_networks import HALF, resnet, vit

from pipelines.errors import ConfigurationError
from pipelines.models import backbones
from pipelines.transfer.stochastic_depth import set_stochastic_depth


def chances(network: backbones.Network) -> list[float]:
    blocks = [module for module in network.trunk.modules() if hasattr(module, "id_skip")]
    return [block.drop_connect_rate for block in blocks]


def test_the_chance_grows_from_the_first_block_to_the_last_of_an_efficientnet() -> None:
    network = backbones.build("efficientnet_b0", outputs=1, dropout=0.0, normalisation=HALF)
    set_stochastic_depth(network, 0.3)
    assert chances(network) == pytest.approx([0.3 * block / 15 for block in range(16)])
    set_stochastic_depth(network, 0.0)
    assert set(chances(network)) == {0.0}


def test_a_transformers_blocks_are_skipped_in_training_only_and_its_state_stays() -> None:
    network = vit()
    names = list(network.state_dict())
    set_stochastic_depth(network, 0.5)
    found = [module for name, module in network.trunk.named_modules() if "drop_path" in name]
    assert [getattr(module, "drop_prob", 0.0) for module in found] == [0.0, 0.0, 0.5, 0.5]
    assert list(network.state_dict()) == names


def test_a_network_without_a_place_for_it_is_refused_unless_it_is_off() -> None:
    set_stochastic_depth(resnet(), 0.0)
    with pytest.raises(ConfigurationError, match=r"train\.stochastic_depth: expected null or 0 for resnet10, .* got 0.2; Effic"):
        set_stochastic_depth(resnet(), 0.2)
