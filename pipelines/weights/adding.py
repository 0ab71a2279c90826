"""Adding checkpoints of others: a passport is written once the weights are proven to fit."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import files
from pipelines.errors import ConfigurationError, WeightsError
from pipelines.paths import weights_folder
from pipelines.weights.summaries import Verification, Verified

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.models.bundles import Bundle
    from pipelines.models.keymaps import KeyMap
    from pipelines.models.provenance import Passport

REMEDY = (
    "--prefix takes off what a wrapper put before the network's names, and leaves out what lies beside it; --key-map renames "
    "tensors, or leaves them out (null)"
)
ONE_CHANNEL = "its first convolution has one channel: give --channels grey --mean … --std …, of one number each"
THREE_CHANNELS = (
    "its first convolution has three channels: leave out --channels grey, and give three numbers for --mean and --std"
)


@dataclass(frozen=True)
class Description:
    """What the user says of a file to add; None where the layout, or the bundle, is to say it."""

    backbone: str | None = None
    name: str | None = None
    layout: str | None = None
    source: str | None = None
    licence: str | None = None
    trained_on: str | None = None
    channels: str | None = None
    input_range: tuple[float, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: int | None = None
    url: str | None = None
    notes: str | None = None
    architecture: str | None = None
    multi_label: bool | None = None
    prefix: str | None = None
    key_map: Path | None = None


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """The numbers of `0.485,0.456,0.406`.

    Raises:
        ConfigurationError: it holds something else.
    """
    try:
        return tuple(float(part) for part in text.split(",")) if text is not None else None
    except ValueError as error:
        raise ConfigurationError(f"{option}: expected numbers with commas, got {text!r}") from error


def add(path: Path, said: Description) -> Verification:
    """Write a passport for a file of others, or a MONAI bundle, once its weights are proven to fit; the file is copied.

    The layout, if not said, is the one by which every tensor fits, once the names are those that the user says (`naming`). The
    passport records the hash and golden activations.

    Raises:
        ConfigurationError: there is no such backbone, or `--key-map` is no map.
        WeightsError: the file cannot be read or used; what is missing and what is left over is listed; something that only
            the user can know is not said, or cannot be; or the name is another's.
    """
    from pipelines.models import backbones, bundles, checkpoints, layouts, passports, proof, references, renaming
    from pipelines.weights import naming

    folder = weights_folder()
    if bundles.is_bundle(path):
        path, said = _of_bundle(bundles.read(path), said)
    if said.backbone is None:
        raise WeightsError(f"{path.name}: expected --backbone, one of {', '.join(backbones.BACKBONES)} or timm:NAME")
    backbones.resolve(said.backbone, "--backbone")
    content = checkpoints.read(path)
    within = checkpoints.wrapper(content, path)
    whole = checkpoints.tensors(content, path, within)
    renames = naming.renames(whole, said.prefix, said.key_map)
    state, aside = renaming.renamed(whole, renames)
    passport, layout = _passport(path, hashlib.sha256(content).hexdigest(), state, within, said)
    passport = replace(passport, renames=renames)
    passports.Passport.from_dict(passport.to_dict(), path.name)
    _check_mean(passport, path)
    _check_name(passport, path, folder)
    network = backbones.build(passport.backbone, outputs=1, dropout=0, normalisation=passport.normalisation)
    passport = replace(passport, reduction=network.probe().reduction)
    try:
        report = passports.load_state(network, passport, lambda: state, passport.sha256)
    except WeightsError as error:
        if layouts.fits(network, state, passport.key_map):
            raise
        raise WeightsError(f"{error}; {REMEDY}") from error
    passport = replace(passport, golden=network.probe().fingerprint)
    proof.check_features(passport.golden, passport)
    compared = references.compare(network, passport, state)
    if (folder / passport.file).resolve() != path.resolve():
        files.write_bytes(folder / passport.file, content)
    files.write_json(folder / f"{passport.name}.json", passport.to_dict())
    checked = Verified(
        *(passport.name, passport.backbone, passport.file, passport.sha256, passport.licence, passport.trained_on),
        *(report.matched, report.missing, (*report.left_over, *aside), True, compared),
        normalised=normalised(passport),
        assumed=_assumed(passport, layout, said),
    )
    return Verification(True, (checked,))


def _check_mean(passport: Passport, path: Path) -> None:
    """Refuse a mean that no images in the input range have; a mean of 0 and a deviation of 1 say that nothing is normalised."""
    (low, high), as_it_is = passport.input_range, (set(passport.mean), set(passport.std)) == ({0}, {1})
    if not as_it_is and not all(low <= value <= high for value in passport.mean):
        got = ",".join(f"{value:g}" for value in passport.mean)
        raise WeightsError(
            f"{path.name}: --mean: expected values within the input range, {low:g} to {high:g}, got {got}; give --mean and --std "
            "in units of that range, or --input-range as images were before they were normalised, e.g. --input-range 0,255"
        )


def _check_name(passport: Passport, path: Path, folder: Path) -> None:
    """Refuse a name that would reach outside the folder, stand for other weights, or take another file's place."""
    from pipelines.models.passports import taken
    from pipelines.models.published import SCRATCH

    if plain(passport.name) != passport.name:
        raise WeightsError(f"--name: expected letters, digits, and . _ + - between them, got {passport.name!r}")
    if taken(passport.name, folder) or passport.source == SCRATCH:
        raise WeightsError(f"{path.name}: {passport.name} from {passport.source} stands for other weights; take another --name")
    file, beside = folder / passport.file, folder / f"{passport.name}.json"
    hashes = [files.sha256(file)] if file.is_file() else []
    hashes += [json.loads(beside.read_bytes()).get("sha256")] if beside.is_file() else []
    if any(other != passport.sha256 for other in hashes):
        raise WeightsError(
            f"{path.name}: {passport.name} is another file's in {folder}; take another --name, or delete that and its passport"
        )


def _of_bundle(bundle: Bundle, said: Description) -> tuple[Path, Description]:
    """What the user says goes before what the bundle says."""
    named: dict[str, Any] = {
        "backbone": bundle.backbone,
        "name": plain(bundle.name),
        "layout": "monai",
        "licence": bundle.licence or None,
        "trained_on": bundle.trained_on or None,
        "channels": bundle.channels,
        "input_range": bundle.input_range,
        "input_size": bundle.input_size,
        "architecture": bundle.architecture,
        **(_as_it_is(bundle) if said.mean is None else {}),
    }
    return bundle.weights, replace(said, **{key: value for key, value in named.items() if getattr(said, key) is None})


def _as_it_is(bundle: Bundle) -> dict[str, tuple[float, ...]]:
    """A bundle expects images in its range; it names no mean and no deviation."""
    channels = 1 if bundle.channels == "grey" else 3
    return {"mean": (0.0,) * channels, "std": (1.0,) * channels} if bundle.input_range else {}


def normalised(passport: Passport) -> str:
    """How a passport brings images to what the weights learned from, in words."""
    low, high = passport.input_range
    mean, std = (",".join(f"{value:g}" for value in values) for values in (passport.mean, passport.std))
    return f"{passport.channels} in {low:g} to {high:g}, mean {mean}, std {std}"


ASSUMED = ("source", "licence", "trained_on", "input_range", "mean", "std")


def _assumed(passport: Passport, layout: str, said: Description) -> str:
    """What was taken from the layout, and how to say otherwise; nothing if all was said."""
    from pipelines.models.families import timm_nets

    unsaid = [name for name in ASSUMED if getattr(said, name) is None and (name != "source" or said.trained_on is None)]
    if not unsaid:
        return ""
    options = ", ".join(f"--{name.replace('_', '-')}" for name in unsaid)
    whose = f"{', '.join(name.replace('_', ' ') for name in unsaid)} as the layout {layout} has it for {passport.backbone}"
    remedy = f"if the file differs, add it again with {options}"
    if layout == "timm" and not passport.backbone.startswith(timm_nets.PREFIX):
        remedy += (
            f"; timm has several networks with these names (DeiT's mean is ImageNet's): --backbone {timm_nets.PREFIX}NAME tells"
        )
    return f"{whose}; {remedy}"


def _passport(path: Path, sha256: str, state: dict[str, Tensor], within: str, said: Description) -> tuple[Passport, str]:
    """The passport of a file, from its layout and what the user says, and that layout.

    The key map is one by which all tensors fit, if there is one.
    """
    from pipelines.models import backbones, layouts
    from pipelines.models.provenance import Passport

    backbone = str(said.backbone)
    layout, key_map, channels = _layout(path, state, backbone, said)
    known = layouts.LAYOUTS[layout]
    own = known.positional and said.trained_on is not None  # of whoever wrote the file, whatever its names are
    facts = {
        "source": said.source or ("medical" if said.trained_on else known.source),
        "licence": said.licence or ("" if own else known.licence),
        "trained_on": said.trained_on or known.trained_on,
        "channels": channels,
        "input_range": said.input_range or known.input_range,
        "mean": said.mean or known.mean,
        "std": said.std or known.std,
        **(_timm_facts(backbone, said) if layout == "timm" else {}),
    }
    if channels == "grey" and any(values and len(values) != 1 for values in (facts["mean"], facts["std"])):
        raise WeightsError(f"{path.name}: {ONE_CHANNEL}")
    if unsaid := [f"--{name.replace('_', '-')}" for name, value in facts.items() if value in (None, "")]:
        raise WeightsError(f"{path.name}: {', '.join(unsaid)} not said, and the layout {layout} cannot know")
    name = said.name or plain(path.stem)
    passport = Passport(
        name=name,
        backbone=backbone,
        architecture=said.architecture or f"{layout} {backbone}",
        file=f"{plain(name)}{path.suffix}",
        sha256=sha256,
        key_map=key_map,
        url=said.url,
        input_size=said.input_size or known.sizes.get(backbone) or backbones.resolve(backbone).input_size,
        notes=said.notes or ("" if own else known.notes),
        within=within,
        multi_label=known.multi_label if said.multi_label is None else said.multi_label,
        **facts,
    )
    return passport, layout


def _layout(path: Path, state: dict[str, Tensor], backbone: str, said: Description) -> tuple[str, str | KeyMap, str]:
    """The layout said, or the only one that fits; the map by which it fits, or the first if none does; and the channels."""
    from pipelines.models import backbones, layouts
    from pipelines.models.provenance import CHANNELS, Normalisation

    named = {said.layout: layouts.maps(said.layout, backbone)} if said.layout else {}
    for channels, count in (("RGB", 3), ("grey", 1)):
        even = Normalisation((0.5,) * count, (0.25,) * count)
        network = backbones.build(backbone, outputs=1, dropout=0, normalisation=even)
        fitting = [pair for pair in layouts.fitting(network, state) if said.layout in (None, pair[0])]
        if len({name for name, _ in fitting}) > 1:
            names = ", ".join(dict.fromkeys(name for name, _ in fitting))
            raise WeightsError(f"{path.name}: its names are those of {names}, whose preprocessing differs; say --layout")
        if fitting and said.layout is None and said.trained_on is None and layouts.LAYOUTS[fitting[0][0]].positional:
            raise WeightsError(layouts.unclaimed(fitting[0][0], path.name))
        if fitting and CHANNELS.get(said.channels or channels, count) != count:
            raise WeightsError(f"{path.name}: {ONE_CHANNEL if count == 1 else THREE_CHANNELS}")
        if fitting:
            return *fitting[0], said.channels or channels
    if said.layout is None:
        raise layouts.unrecognised(network, state, path.name)
    return said.layout, named[said.layout][0], said.channels or layouts.LAYOUTS[said.layout].channels


def _timm_facts(backbone: str, said: Description) -> dict[str, Any]:
    """What timm says of the model's weights, unless the user says otherwise."""
    from pipelines.models.families import timm_nets

    names = {"vit_b16": "vit_base_patch16_224", "seresnet50": "legacy_seresnet50"}
    name = names.get(backbone, backbone.removeprefix(timm_nets.PREFIX))
    constants = timm_nets.constants(name)
    facts: dict[str, Any] = {"mean": said.mean or tuple(constants["mean"]), "std": said.std or tuple(constants["std"])}
    tag = str(constants.get("tag") or "")
    if not said.source and not said.trained_on and not re.search(r"in\d+k", tag):
        facts["source"] = "timm"
    if constants.get("license") not in (None, "unknown") and not said.licence:
        facts["licence"] = f"{constants['license']} (timm); the terms of its training images apply"
    if not said.trained_on:
        facts["trained_on"] = f"see timm for {name}, tag {tag or 'none'}"
    return facts


def plain(text: str) -> str:
    """A name that can be a file's."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.") or "weights"
