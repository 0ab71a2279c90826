"""Pretrained weights by passport: find the file, check what it is, map its names, and fail loudly on a wrong one."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import math
import pickle
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import files
from pipelines.errors import WeightsError
from pipelines.models.keymaps import KEY_MAPS, KeyMap
from pipelines.models.provenance import FORMAT, PASSPORTS, Normalisation, Passport
from pipelines.paths import weights_folder

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.models.backbones import Network

__all__ = [
    "KEY_MAPS",
    "PASSPORTS",
    "Found",
    "KeyMap",
    "LoadReport",
    "Normalisation",
    "Passport",
    "find",
    "load",
    "save_backbone",
]

TIMEOUT_SECONDS = 10
GOLDEN_TOLERANCE = 0.01
LISTED = 8


@dataclass(frozen=True)
class Found:
    """A passport, and the file in the weights folder that it is about."""

    passport: Passport
    path: Path


@dataclass(frozen=True)
class LoadReport:
    """What loading did.

    Attributes:
        matched: tensors of the backbone that were filled.
        missing: tensors of the backbone that the file doesn't hold: only batch norm's counters, which nothing reads.
        left_over: tensors of the file that were left out on purpose: its classifier.
        sha256: of the file, in full.
    """

    matched: int
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    sha256: str


def find(weights: str, backbone: str, *, download: bool = True) -> Found:
    """The checkpoint that `weights` names, by its passport's name or source, for one backbone.

    Looks into the weights folder for every passport that answers, in the order of the table and then of the passport
    files there; only then downloads the first that has an address.

    Raises:
        WeightsError: no passport answers, or no file of one is there and it cannot be downloaded.
    """
    folder = weights_folder()
    passports = [passport for passport in (*PASSPORTS, *_beside(folder, weights)) if weights in (passport.name, passport.source)]
    fitting = [passport for passport in passports if passport.backbone == backbone]
    if not fitting:
        raise WeightsError(_unknown(weights, backbone, passports, folder))
    for passport in fitting:
        if (folder / passport.file).is_file():
            return Found(passport, folder / passport.file)
    published = next((passport for passport in fitting if passport.url), None)
    if published is None or not download:
        raise WeightsError(_absent(weights, backbone, fitting, folder))
    return _downloaded(published, folder, _absent(weights, backbone, fitting, folder))


def load(network: Network, found: Found) -> LoadReport:
    """Fill the backbone of `network` with the weights of `found`; the head keeps its own.

    Raises:
        WeightsError: the file is not the passport's (hash), cannot be read, or is not this network's: another backbone or
            normalisation, tensors missing, of another shape or unexplained, another stride, other golden features.
    """
    passport, path = found.passport, found.path
    if passport.backbone != network.name:
        raise WeightsError(f"passport {passport.name}: expected backbone {network.name}, got {passport.backbone}")
    if not _near(network.normalisation, passport.normalisation):
        raise WeightsError(
            f"passport {passport.name}: expected {passport.normalisation}, the network has {network.normalisation}; "
            "build it with the passport's normalisation"
        )
    content = _read(path)
    sha256 = hashlib.sha256(content).hexdigest()
    if not sha256.startswith(passport.sha256):
        raise WeightsError(_altered(path, passport, sha256))
    state, report = _matched(network, _tensors(content, path), passport, sha256)
    network.trunk.load_state_dict(state, strict=False)
    _check_output(network, passport)
    return report


def save_backbone(
    network: Network,
    path: Path,
    *,
    name: str,
    source: str,
    licence: str,
    trained_on: str,
    input_size: int = 224,
    notes: str = "",
) -> Found:
    """Write the backbone of `network` as safetensors, and its passport beside it, so that `find` knows it by name.

    The passport records the hash, and golden features that `load` compares.

    Args:
        network: what to save; its head is not.
        path: `NAME.safetensors` in the weights folder; the passport becomes `NAME.json`.
        name: what `train.weights` will name.
        source: in one word, where the weights come from.
        licence: of the weights.
        trained_on: the images that they learned from.
        input_size: rows and columns during training.
        notes: what else a reader should know.
    """
    import safetensors.torch

    state = {key: tensor.detach().cpu().contiguous() for key, tensor in network.trunk.state_dict().items()}
    content = safetensors.torch.save(state)
    probe = network.probe()
    passport = Passport(
        name=name,
        backbone=network.name,
        source=source,
        architecture=f"radtransfer {network.name}",
        file=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        licence=licence,
        key_map="radtransfer",
        trained_on=trained_on,
        mean=network.normalisation.mean,
        std=network.normalisation.std,
        input_size=input_size,
        reduction=probe.reduction,
        golden=probe.fingerprint,
        notes=notes,
    )
    values = passport.to_dict()
    Passport.from_dict(values, path.with_suffix(".json").name)
    files.write_bytes(path, content)
    files.write_json(path.with_suffix(".json"), values)
    return Found(passport, path)


def _beside(folder: Path, weights: str) -> Iterator[Passport]:
    """The passports of the checkpoints in `folder`; one that is not valid matters only where `weights` names it."""
    for path in sorted(folder.glob("*.json")):
        try:
            values = json.loads(path.read_bytes())
        except ValueError:
            continue
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            continue
        try:
            yield Passport.from_dict(values, str(path))
        except WeightsError:
            if weights in (path.stem, values.get("name"), values.get("source")):
                raise


def _downloaded(passport: Passport, folder: Path, remedy: str) -> Found:
    """Download the file of `passport`; it takes its place only with the right hash."""
    path, url = folder / passport.file, str(passport.url)
    try:
        with files.replacing(path) as temporary:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, temporary.open("wb") as stream:  # noqa: S310 (https)
                while block := response.read(1 << 20):
                    stream.write(block)
            sha256 = files.sha256(temporary)
            if not sha256.startswith(passport.sha256):
                raise WeightsError(_altered(path, passport, sha256))
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(f"{url}: cannot be downloaded ({error}); {remedy}") from error
    return Found(passport, path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: expected a checkpoint, cannot read it: {error.strerror}") from error


def _tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """Names and tensors of a checkpoint, read without running anything that it holds."""
    import safetensors
    import safetensors.torch
    import torch

    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(content)
        values = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(f"{path}: expected safetensors, or a state dict that torch.save wrote: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(value, torch.Tensor) for value in values.values()):
        what = f"keys {_listed(map(str, values))}" if isinstance(values, dict) else type(values).__name__
        raise WeightsError(f"{path}: expected names and tensors, got {what}; save the state dict alone")
    return values


def _matched(
    network: Network, source: dict[str, Tensor], passport: Passport, sha256: str
) -> tuple[dict[str, Tensor], LoadReport]:
    """The tensors of `source` by the backbone's names; every one of the backbone's, and no other."""
    wanted = network.trunk.state_dict()
    dropped = tuple(key for key in source if passport.keys.drops(key))
    renamed = {key: passport.keys.rename(key) for key in source if key not in dropped}
    state = {name: source[key] for key, name in renamed.items() if name in wanted}
    missing = [name for name in wanted if name not in state]
    shapes = [
        f"{name} {tuple(tensor.shape)} for {tuple(wanted[name].shape)}"
        for name, tensor in state.items()
        if tensor.shape != wanted[name].shape
    ]
    unexplained = [key for key, name in renamed.items() if source[key] is not state.get(name)]
    needed = [name for name in missing if not name.endswith(".num_batches_tracked")]
    if needed or shapes or unexplained:
        raise WeightsError(
            f"passport {passport.name}: {passport.file} does not fit {network.name} by key map {_map_name(passport)}: "
            f"missing {_listed(needed)}; of another shape {_listed(shapes)}; left over {_listed(unexplained)}; "
            f"dropped on purpose {_listed(dropped)}"
        )
    return state, LoadReport(len(state), tuple(missing), dropped, sha256)


def _check_output(network: Network, passport: Passport) -> None:
    """Names and shapes can all fit a network that computes something else; its output tells."""
    probe = network.probe()
    if probe.reduction != passport.reduction:
        raise WeightsError(
            f"passport {passport.name}: expected a network that shrinks an image {passport.reduction} times, "
            f"{network.name} shrinks it {probe.reduction} times; a stride or a pooling differs from the publisher's"
        )
    scale = max((abs(value) for value in passport.golden), default=math.inf)
    expected = passport.golden or probe.fingerprint
    differences = [abs(a - b) for a, b in zip(expected, probe.fingerprint, strict=True)]
    if not all(difference <= GOLDEN_TOLERANCE * scale for difference in differences):
        raise WeightsError(
            f"passport {passport.name}: expected golden features {_rounded(expected)}, "
            f"got {_rounded(probe.fingerprint)}; a layer of {network.name} differs from the publisher's"
        )


def _near(one: Normalisation, other: Normalisation) -> bool:
    pairs = zip((*one.mean, *one.std), (*other.mean, *other.std), strict=True)
    return all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6) for a, b in pairs)


def _unknown(weights: str, backbone: str, passports: list[Passport], folder: Path) -> str:
    known = [passport for passport in (*PASSPORTS, *_beside(folder, weights)) if passport.backbone == backbone]
    names = _listed(dict.fromkeys(name for passport in known for name in (passport.source, passport.name)))
    others = f"; it fits {_listed(dict.fromkeys(passport.backbone for passport in passports))}" if passports else ""
    foreign = folder / f"{weights}.json"
    unread = f"; {foreign} is there, but its format is not {FORMAT}" if foreign.is_file() and not passports else ""
    return (
        f"params.yaml train.weights: expected a passport for {backbone} ({names}), got {weights!r}{others}{unread}; "
        f"put a checkpoint and its passport NAME.json into {folder} (RADTRANSFER_WEIGHTS)"
    )


def _absent(weights: str, backbone: str, passports: list[Passport], folder: Path) -> str:
    accepted = " or ".join(passport.file for passport in passports)
    urls = " or ".join(passport.url for passport in passports if passport.url) or "no published address"
    return (
        f"weights {weights} for {backbone}: expected {accepted} in {folder}, found none; "
        f"put one there ({urls}), or set RADTRANSFER_WEIGHTS to the folder that has one"
    )


def _altered(path: Path, passport: Passport, sha256: str) -> str:
    return (
        f"{path}: expected SHA-256 {passport.sha256}, got {sha256}; the file is altered or incomplete: "
        "delete it, and download or copy it again"
    )


def _map_name(passport: Passport) -> str:
    return passport.key_map if isinstance(passport.key_map, str) else "of its own"


def _rounded(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def _listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more if names else "none"
