"""Which device computes."""

from __future__ import annotations

import torch

from pipelines.errors import ConfigurationError


def choose_device(name: str = "auto") -> torch.device:
    """The device to compute on: `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigurationError: the device asked for by name is unknown or not there.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    if name not in present:
        raise ConfigurationError(f"params.yaml train.device: expected auto, {', '.join(present)}, got {name!r}")
    if not present[name]:
        there = ", ".join(kind for kind, is_there in present.items() if is_there)
        raise ConfigurationError(
            f"params.yaml train.device: expected a device that torch {torch.__version__} can use here ({there}), "
            f"got {name!r}; use auto, or install a driver and a torch built for it"
        )
    return torch.device(name)
