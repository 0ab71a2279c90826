"""The publishers' own networks, to hold ours against: same file, same test pattern, same features.

A key map that puts one layer in another's place can fit by names and shapes. Where torchvision or timm has the network that
the publisher used, its features tell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import WeightsError
from pipelines.models.architecture import replace_module
from pipelines.models.checkpoints import listed
from pipelines.models.families import timm_nets as timm
from pipelines.models.first_layer import one_channel
from pipelines.models.keymaps import KeyMap
from pipelines.models.network import Network, probe_image
from pipelines.models.proof import check_features
from pipelines.models.provenance import Passport

TOLERANCE = 1e-4  # of the largest feature
SPELLED = {"vit_b16": "vit_b_16"}  # torchvision's names that are not ours
CLASSIFIERS = {
    "densenet": "classifier",
    "efficientnet": "classifier",
    "mobilenet": "classifier",
    "vgg": "classifier.6",
    "vit": "heads",
}


def difference(network: Network, passport: Passport, state: Mapping[str, Tensor]) -> float | None:
    """The largest difference between our features and the publisher's network's on the CPU, in units of the largest feature.

    Both see the fixed test pattern; the publisher's sees it in its own channels and its own range. None where the
    publisher's network is not at hand.

    Raises:
        WeightsError: the publisher's network does not take the tensors, or makes nothing of the pattern with them.
    """
    made = _reference(passport, state)
    if made is None:
        return None
    whole = network.backbone.layout == "tokens"  # torchvision's transformer takes its own size only
    pattern = probe_image(network.backbone, network.backbone.input_size if whole else None).double()
    low, high = passport.input_range
    mean, std = (torch.tensor(values).double().view(1, -1, 1, 1) for values in (passport.mean, passport.std))
    theirs = pattern.expand(1, len(passport.mean), -1, -1) * (high - low) + low
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.no_grad():  # in double precision, so that rounding is no difference
            expected = made.double().eval()((theirs - mean) / std).flatten(1)
            actual = network.double().eval().features(pattern[None, None])
    finally:
        network.float()
        for module, training in modes:
            module.training = training
    check_features(expected.flatten().tolist(), passport)
    return float((actual - expected).abs().max() / expected.abs().max())


def compare(network: Network, passport: Passport, state: Mapping[str, Tensor]) -> float | None:
    """As `difference`, which must be small.

    Raises:
        WeightsError: the features differ.
    """
    found = difference(network, passport, state)
    if found is not None and not found <= TOLERANCE:
        raise WeightsError(
            f"passport {passport.name}: expected the features of {passport.architecture} within {TOLERANCE:g}, they differ by "
            f"{found:.2g}; the key map puts a layer in another's place, or a layer of {network.name} differs"
        )
    return found


def _reference(passport: Passport, state: Mapping[str, Tensor]) -> nn.Module | None:
    if isinstance(passport.key_map, KeyMap):
        own = passport.backbone.startswith(timm.PREFIX) and passport.key_map == timm.key_map(_timm_name(passport))
        return _timm(_timm_name(passport), passport, state) if own else None
    family = passport.key_map.partition("-")[0]
    maker = MAKERS.get(family)
    return maker(passport, state) if maker else None


def _timm_name(passport: Passport) -> str:
    return passport.backbone.removeprefix(timm.PREFIX)


def _timm(name: str, passport: Passport, state: Mapping[str, Tensor]) -> nn.Module:
    import timm as library

    settings = timm.constants(name)
    classifier = settings.get("classifier") or ()
    dropped = tuple(f"{path}." for path in ((classifier,) if isinstance(classifier, str) else classifier))
    asked = {"in_chans": len(passport.mean), **timm.options(name)}
    network: nn.Module = library.create_model(name, pretrained=False, num_classes=0, **asked)
    network.load_state_dict({key: tensor for key, tensor in state.items() if not key.startswith(dropped)})
    return network


def _from_timm(passport: Passport, state: Mapping[str, Tensor]) -> nn.Module:
    return _timm({"vit_b16": "vit_base_patch16_224", "seresnet50": "legacy_seresnet50"}[passport.backbone], passport, state)


def _torchvision(passport: Passport, **options: Any) -> tuple[nn.Module, str]:
    """Torchvision's network, for as many channels as the passport says, and the path of its classifier."""
    import torchvision

    name = SPELLED.get(passport.backbone, passport.backbone)
    if name == "inception_v3":
        options = {"transform_input": False, "init_weights": False, **options}
    network: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    if passport.channels == "grey":
        path, layer = next((path, layer) for path, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
        replace_module(network, path, one_channel(layer))
    return network, next((path for family, path in CLASSIFIERS.items() if name.startswith(family)), "fc")


def _from_torchvision(passport: Passport, state: Mapping[str, Tensor]) -> nn.Module:
    auxiliary = {"aux_logits": any(key.startswith("AuxLogits.") for key in state)} if passport.backbone == "inception_v3" else {}
    network, classifier = _torchvision(passport, **auxiliary)
    return _loaded(network, classifier, _modern(state))


def _from_radimagenet(passport: Passport, state: Mapping[str, Tensor]) -> nn.Module:
    options = {"aux_logits": passport.key_map == "radimagenet-inception_v3-aux"} if passport.backbone == "inception_v3" else {}
    network, classifier = _torchvision(passport, **options)
    names = [name for name, _ in network.named_children()]
    named = {re.sub(r"^(?:backbone\.)?(\d+)\.", lambda found: f"{names[int(found[1])]}.", key): state[key] for key in state}
    return _loaded(network, classifier, _modern(named))


def _from_torchxrayvision(passport: Passport, state: Mapping[str, Tensor]) -> nn.Module:
    network, classifier = _torchvision(passport)
    return _loaded(network, classifier, _modern({key.removeprefix("model."): state[key] for key in state if key != "op_threshs"}))


def _modern(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DenseNet's names since torch 0.4."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key): tensor for key, tensor in state.items()}


def _loaded(network: nn.Module, classifier: str, state: Mapping[str, Tensor]) -> nn.Module:
    """Every tensor in its place, but for the classifier, which goes."""
    parent, _, name = classifier.rpartition(".")
    setattr(network.get_submodule(parent), name, nn.Identity())
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(f"{classifier}.")}
    missing, unexpected = network.load_state_dict(kept, strict=False)
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise WeightsError(
            f"the publisher's network does not take these tensors: missing {listed(missing)}; left over {listed(unexpected)}"
        )
    return network


MAKERS: dict[str, Callable[[Passport, Mapping[str, Tensor]], nn.Module]] = {
    "torchvision": _from_torchvision,
    "timm": _from_timm,
    "radimagenet": _from_radimagenet,
    "torchxrayvision": _from_torchxrayvision,
}
