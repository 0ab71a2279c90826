"""Pretrained weights by passport: find the file, check what it is, map its names, and fail loudly on a wrong one."""

from __future__ import annotations

import hashlib
import http.client
import json
import math
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import files
from pipelines.errors import WeightsError
from pipelines.models.checkpoints import listed, read, tensors
from pipelines.models.keymaps import KEY_MAPS, KeyMap
from pipelines.models.proof import LoadReport, check_output, matched
from pipelines.models.provenance import FORMAT, Normalisation, Passport
from pipelines.models.published import PASSPORTS, SOURCES
from pipelines.models.renaming import renamed
from pipelines.paths import weights_folder

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.models.network import Network

__all__ = [
    "KEY_MAPS",
    "PASSPORTS",
    "Found",
    "KeyMap",
    "LoadReport",
    "Normalisation",
    "Passport",
    "answering",
    "beside",
    "broken",
    "fetch_file",
    "find",
    "load",
    "load_state",
    "save_backbone",
    "taken",
]

TIMEOUT_SECONDS = 10
KEY = "params.yaml train.weights"


@dataclass(frozen=True)
class Found:
    """A passport, and the file in the weights folder that it is about."""

    passport: Passport
    path: Path


def find(weights: str, backbone: str, *, download: bool = True, key: str = KEY) -> Found:
    """The checkpoint that `weights` names for one backbone: by its passport's name, or else by its source.

    Of those in the weights folder the published ones come first, in the order of the table. A source stands for an added one
    only where no other there comes from it. Only where none is there, the first that has an address is downloaded.

    Args:
        weights: a passport's name, or a source.
        backbone: as the passport says it.
        download: whether that may be done.
        key: where the user named the weights, for messages.

    Raises:
        WeightsError: no passport answers, several added ones do, or no file of one is there and it cannot be downloaded.
    """
    folder = weights_folder()
    known = (*PASSPORTS, *beside(folder, weights))
    fitting = answering(weights, (passport for passport in known if passport.backbone == backbone))
    if not fitting:
        raise WeightsError(f"{key}: {_unknown(weights, backbone, answering(weights, known), folder)}")
    if here := list({(own.name, own.file): own for own in fitting if (folder / own.file).is_file()}.values()):
        if len(here) > 1 and here[0] not in PASSPORTS:
            found = ", ".join(f"{passport.name} ({passport.file})" for passport in here)
            raise WeightsError(
                f"{key}: expected one checkpoint for {backbone} that {weights} stands for, found {found} in {folder}; "
                "name one of them, or change `name` in the .json of one"
            )
        return Found(here[0], folder / here[0].file)
    published = next((passport for passport in fitting if passport.url), None)
    if published is None or not download:
        raise WeightsError(_absent(weights, backbone, fitting, folder))
    return _downloaded(published, folder, _absent(weights, backbone, fitting, folder))


def answering(weights: str, passports: Iterable[Passport]) -> list[Passport]:
    """Those of the name `weights`; where there is none, those of that source."""
    known = list(passports)
    named = [passport for passport in known if passport.name == weights]
    return named or [passport for passport in known if passport.source == weights]


def taken(name: str, folder: Path) -> bool:
    """Whether `name` stands for other weights than an added file's: it is a source's word, or a published passport's name."""
    sources = (passport.source for passport in beside(folder, "") if passport.name != name)
    return name in {*SOURCES, *sources, *(passport.name for passport in PASSPORTS)}


def load(network: Network, found: Found) -> LoadReport:
    """Fill the backbone of `network` with the weights of `found`; the head keeps its own.

    Raises:
        WeightsError: the file is not the passport's (hash), cannot be read, or is not this network's: another backbone or
            normalisation, tensors missing, of another shape or unexplained, another stride, other golden features.
    """
    passport, path = found.passport, found.path
    content = read(path)
    sha256 = hashlib.sha256(content).hexdigest()
    if not sha256.startswith(passport.sha256):
        raise WeightsError(_altered(path, passport, sha256))
    return load_state(network, passport, lambda: renamed(tensors(content, path, passport.within), passport.renames)[0], sha256)


def load_state(network: Network, passport: Passport, read_tensors: Callable[[], dict[str, Tensor]], sha256: str) -> LoadReport:
    """As `load`, of tensors that `read_tensors` gives once the passport is known to be this network's."""
    if passport.backbone != network.name:
        raise WeightsError(f"passport {passport.name}: expected backbone {network.name}, got {passport.backbone}")
    if not _near(network.normalisation, passport.normalisation):
        raise WeightsError(
            f"passport {passport.name}: expected {passport.normalisation}, the network has {network.normalisation}; "
            "build it with the passport's normalisation"
        )
    state, report = matched(network, read_tensors(), passport, sha256)
    network.trunk.load_state_dict(state, strict=False)
    check_output(network, passport)
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
        channels="RGB" if len(network.normalisation.mean) == 3 else "grey",
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


def beside(folder: Path, weights: str) -> Iterator[Passport]:
    """The passports of the checkpoints in `folder`; one that is not valid matters only where `weights` names it."""
    for path, values in _files_beside(folder):
        try:
            yield _read(path, values)
        except WeightsError:
            if weights in (path.stem, values.get("name"), values.get("source")):
                raise


def broken(folder: Path) -> dict[str, str]:
    """The passports in `folder` that are not valid, by their files' names, and why."""
    reasons = {}
    for path, values in _files_beside(folder):
        try:
            _read(path, values)
        except WeightsError as error:
            reasons[path.stem] = str(error)
    return reasons


def _read(path: Path, values: dict[str, Any]) -> Passport:
    passport = Passport.from_dict(values, str(path))
    if passport.name in SOURCES and passport.name != passport.source:
        raise WeightsError(
            f"{path}: expected a name that is no other source's, got name {passport.name} of source {passport.source}; "
            "change the name in it"
        )
    return passport


def _files_beside(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Files that say that they are passports, or are no JSON, and what they say."""
    for path in sorted(folder.glob("*.json")):
        try:
            values = json.loads(path.read_bytes())
        except ValueError:
            values = {"format": "no JSON"}
        if isinstance(values, dict) and values.get("format") in (FORMAT, "no JSON"):
            yield path, values


def _downloaded(passport: Passport, folder: Path, remedy: str) -> Found:
    """Download the file of `passport`; it takes its place only with the right hash."""

    def check(sha256: str) -> None:
        if not sha256.startswith(passport.sha256):
            raise WeightsError(_altered(folder / passport.file, passport, sha256))

    fetch_file(str(passport.url), folder / passport.file, remedy, check)
    return Found(passport, folder / passport.file)


def fetch_file(url: str, path: Path, remedy: str, check: Callable[[str], None] | None = None) -> None:
    """Fetch `url` (https) to `path`, where it appears in whole, once `check` has let its SHA-256 pass.

    Raises:
        WeightsError: it cannot be downloaded; `remedy` says what else to do.
    """
    try:
        with files.replacing(path) as temporary:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, temporary.open("wb") as stream:  # noqa: S310 (https)
                while block := response.read(1 << 20):
                    stream.write(block)
            if check:
                check(files.sha256(temporary))
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(f"{url}: cannot be downloaded ({error}); {remedy}") from error


def _near(one: Normalisation, other: Normalisation) -> bool:
    if len(one.mean) != len(other.mean):
        return False
    pairs = zip((*one.mean, *one.std), (*other.mean, *other.std), strict=True)
    return all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6) for a, b in pairs)


def _unknown(weights: str, backbone: str, passports: list[Passport], folder: Path) -> str:
    known = [passport for passport in (*PASSPORTS, *beside(folder, weights)) if passport.backbone == backbone]
    names = listed(dict.fromkeys(name for passport in known for name in (passport.source, passport.name)))
    others = f"; it fits {listed(dict.fromkeys(passport.backbone for passport in passports))}" if passports else ""
    foreign = folder / f"{weights}.json"
    unread = f"; {foreign} is there, but its format is not {FORMAT}" if foreign.is_file() and not passports else ""
    return (
        f"expected a passport for {backbone} ({names}), got {weights!r}{others}{unread}; "
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
