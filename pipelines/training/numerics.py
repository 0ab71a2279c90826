"""How numbers are computed: seeds that follow from the settings, precision, and the same bits each time on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from pipelines.config import TrainSection
from pipelines.transfer.strategies import STRATEGIES, Plan


def derived_seed(seed: int, epoch: int, *purpose: int) -> int:
    """A seed of 63 bits for one epoch, and for one purpose in it."""
    return int(np.random.SeedSequence((seed, epoch, *purpose)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def precision_for(plan: Plan, settings: TrainSection) -> str:
    """The precision of a training: fp32 where the strategy needs it, unless the configuration says otherwise."""
    return "fp32" if STRATEGIES[plan.strategy].precise and settings.precision == "auto" else settings.precision


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bf16 where it is asked for, or on `auto` where a GPU has it; else no casting."""
    supported = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    enabled = precision == "bf16" or (precision == "auto" and supported)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """On a CPU only algorithms that give the same bits each time; the global generators are left as they were."""
    filling: Any = torch.utils.deterministic
    before, filled = torch.are_deterministic_algorithms_enabled(), filling.fill_uninitialized_memory
    with torch.random.fork_rng([torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.use_deterministic_algorithms(before or device.type == "cpu")
        filling.fill_uninitialized_memory = False  # a debugging aid that costs a fifth of the speed
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            filling.fill_uninitialized_memory = filled
