"""Whether a checkpoint is what its passport says: every tensor in its place, and the output of the publisher's network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from pipelines.errors import WeightsError
from pipelines.models.checkpoints import listed
from pipelines.models.provenance import Normalisation, Passport

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.models.network import Network

GOLDEN_TOLERANCE = 1e-3  # of the largest
# what publishers do to an image in 0…1, tried to explain golden features that do not come out
PREPROCESSINGS = {
    "ImageNet's mean and deviation": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "the range -1 to 1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "the range 0 to 1 as it is": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "the range 0 to 255 as it is": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    "the range -1024 to 1024": ((0.5, 0.5, 0.5), (1 / 2048, 1 / 2048, 1 / 2048)),
}


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


def matched(network: Network, source: dict[str, Tensor], passport: Passport, sha256: str) -> tuple[dict[str, Tensor], LoadReport]:
    """The tensors of `source` by the backbone's names; every one of the backbone's, and no other."""
    wanted = network.trunk.state_dict()
    dropped = tuple(key for key in source if passport.keys.drops(key))
    renamed = {key: passport.keys.rename(key) for key in source if key not in dropped}
    named = {name: source[key] for key, name in renamed.items() if name in wanted}
    unexplained = [key for key, name in renamed.items() if source[key] is not named.get(name)]
    state = passport.keys.reshaped(named)
    missing = [name for name in wanted if name not in state]
    shapes = [
        f"{name} {tuple(tensor.shape)} for {tuple(wanted[name].shape)}"
        for name, tensor in state.items()
        if tensor.shape != wanted[name].shape
    ]
    needed = [name for name in missing if not name.endswith(".num_batches_tracked")]
    if needed or shapes or unexplained:
        raise WeightsError(
            f"passport {passport.name}: {passport.file} does not fit {network.name} by key map {_map_name(passport)}: "
            f"missing {listed(needed)}; of another shape {listed(shapes)}; left over {listed(unexplained)}; "
            f"dropped on purpose {listed(dropped)}"
        )
    return state, LoadReport(len(state), tuple(missing), dropped, sha256)


def check_output(network: Network, passport: Passport) -> None:
    """Names and shapes can all fit a network that computes something else; its output tells."""
    probe = network.probe()
    if probe.reduction != passport.reduction:
        raise WeightsError(
            f"passport {passport.name}: expected a network that shrinks an image {passport.reduction} times, "
            f"{network.name} shrinks it {probe.reduction} times; a stride or a pooling differs from the publisher's"
        )
    expected = passport.golden or probe.fingerprint
    if not _agree(expected, probe.fingerprint):
        raise WeightsError(
            f"passport {passport.name}: expected golden features {_rounded(expected)}, "
            f"got {_rounded(probe.fingerprint)}; {_reason(network, passport)}"
        )


def check_features(features: Sequence[float], passport: Passport) -> None:
    """See that a file's features are such as a trained network has.

    Raises:
        WeightsError: they are not finite numbers, or all equal.
    """
    finite = all(isfinite(value) for value in features)
    if not finite or len(set(features)) == 1:
        raise WeightsError(
            f"passport {passport.name}: expected features that differ, those of {passport.file} are "
            f"{'all equal' if finite else 'not finite numbers'}; its weights are "
            "damaged or were never trained: save or download the file again"
        )


def _agree(expected: tuple[float, ...], actual: tuple[float, ...]) -> bool:
    scale = max(abs(value) for value in expected)
    return all(abs(a - b) <= GOLDEN_TOLERANCE * scale for a, b in zip(expected, actual, strict=True))


def _reason(network: Network, passport: Passport) -> str:
    """Why golden features do not come out: they do with another preprocessing, or not at all."""
    if not passport.golden:
        return "its features are not finite numbers"
    own, channels = network.normalisation, len(passport.mean)
    try:
        for name, (mean, std) in PREPROCESSINGS.items():
            network.renormalise(Normalisation(mean[:channels], std[:channels]))
            if _agree(passport.golden, network.probe().fingerprint):
                return f"they come out with {name}: the passport's input_range, mean or std is not the publisher's"
    finally:
        network.renormalise(own)
    return f"a layer of {network.name} differs from the publisher's"


def _map_name(passport: Passport) -> str:
    return passport.key_map if isinstance(passport.key_map, str) else "of its own"


def _rounded(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
