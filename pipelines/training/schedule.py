"""The learning rate over the steps of a training: a linear warm-up, then a cosine to zero."""

from __future__ import annotations

import math


def factor(step: int, *, warmup: int, total: int) -> float:
    """What every group's learning rate is multiplied by at `step` (from 0) of `total`.

    Rises as (step + 1) / warmup over the first `warmup` steps, is 1 at step `warmup`, and falls as
    ½ (1 + cos(π (step − warmup) / (total − warmup))) towards 0 at step `total`.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
