"""Low-rank adapters (Hu et al., LoRA, ICLR 2022) in the attention of a transformer, through peft.

An adapter adds scale × B·A to a frozen projection; B starts at zero, so that the network begins as it was. Once trained,
the products are added to the weights, and what is saved is the plain network.
"""

from __future__ import annotations

import torch
from torch import nn

RANK = 8
PROJECTIONS = ("qkv", "q", "k", "v", "q_proj", "k_proj", "v_proj", "to_q", "to_k", "to_v", "proj", "out_proj")


def targets(trunk: nn.Module) -> list[str]:
    """The paths of the linear projections inside attention modules, as timm and MONAI name them (`….attn.qkv`)."""
    return [
        name
        for name, module in trunk.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in PROJECTIONS and "attn" in name.rpartition(".")[0]
    ]


def size(module: nn.Module, rank: int) -> int:
    """How many numbers the adapters of a module that holds none yet would have: rank × (inputs + outputs) of each projection.

    Args:
        module: of a layer group; blocks, or a part of the trunk that holds them.
        rank: of the adapters.
    """
    projections = (module.get_submodule(name) for name in targets(module))
    return sum(rank * (layer.in_features + layer.out_features) for layer in projections if isinstance(layer, nn.Linear))


def inject(trunk: nn.Module, rank: int, seed: int) -> None:
    """Put an adapter into every attention projection; their first random numbers are decided by `seed`."""
    from peft import LoraConfig, inject_adapter_in_model

    for module in trunk.modules():
        if hasattr(module, "qkv_bias_separate"):  # else timm's BEiT, EVA and Swin v2 take weights past their adapter
            setattr(module, "qkv_bias_separate", True)  # noqa: B010
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets(trunk), lora_dropout=0.0, bias="none")
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, trunk)


def parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of the adapters inside a module, in order."""
    return [parameter for name, parameter in module.named_parameters() if ".lora_" in f".{name}"]


def merge(trunk: nn.Module) -> None:
    """Add every adapter to the weights of its projection, and take it out."""
    from peft.tuners.lora import LoraLayer

    for parent in list(trunk.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLayer):
                child.merge(safe_merge=True)
                setattr(parent, name, child.get_base_layer())
