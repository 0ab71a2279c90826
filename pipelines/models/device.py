"""Which device computes, and how its memory is kept."""

from __future__ import annotations

import ctypes
from functools import cache

import torch

from pipelines.errors import ConfigurationError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc, malloc.h
FROM_THE_HEAP, KEPT = 2**30, 2**31 - 1  # bytes: of one allocation, and freed ones at the heap's end


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


@cache
def keep_memory() -> None:
    """Keep what this process frees, instead of handing it back to the system only to be given it again, page by page.

    A step on the CPU takes and frees hundreds of megabytes several times over; about a fifth of its time goes into that
    (benchmarks/memory.py). Only glibc has the switch; elsewhere nothing happens. The numbers that are computed are the same.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, FROM_THE_HEAP)
    mallopt(M_TRIM_THRESHOLD, KEPT)
