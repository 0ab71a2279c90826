"""Where a training starts: a network with the weights that a source gives, or with seeded random ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipelines.models import backbones, passports
from pipelines.models.network import Network
from pipelines.models.passports import LoadReport, Passport
from pipelines.models.provenance import Normalisation
from pipelines.models.published import SCRATCH

__all__ = ["SCRATCH", "UNTRAINED", "Start", "start"]

UNTRAINED = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))  # about a radiograph's own, for a network from scratch


@dataclass(frozen=True)
class Start:
    """The network before training; passport and report of its weights are None from scratch."""

    network: Network
    passport: Passport | None
    report: LoadReport | None


def start(
    backbone: str,
    weights: str,
    *,
    outputs: int,
    dropout: float,
    seed: int,
    download: bool = True,
    key: str = passports.KEY,
) -> Start:
    """A network with the weights that `weights` names, a source or a passport's name, or `scratch` for none.

    What is random, the head and a network from scratch, follows from the seed; torch's global generator is left as it was.
    `key` is where the user named the weights, for messages.

    Raises:
        ConfigurationError: there is no such backbone.
        WeightsError: the weights are missing, altered, or do not fit.
    """
    backbones.resolve(backbone)
    found = passports.find(weights, backbone, download=download, key=key) if weights != SCRATCH else None
    normalisation = found.passport.normalisation if found else UNTRAINED
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = backbones.build(backbone, outputs=outputs, dropout=dropout, normalisation=normalisation)
    if found is None:
        return Start(network, None, None)
    return Start(network, found.passport, passports.load(network, found))
