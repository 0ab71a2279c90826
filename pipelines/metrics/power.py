"""How many labelled patients it takes to see a difference."""

from __future__ import annotations

import math

SIGNIFICANCE = 1.959964  # standard deviations: two-sided 5%
POWER = 0.841621  # 80%
CORRELATION = 0.5  # assumed, of the AUROCs of two models on the same images (Hanley and McNeil, Radiology 148, 1983)


def patients_to_settle(auroc: float, difference: float) -> int:
    """Labelled patients, half of them with the finding, that show such a difference of two models' AUROC with 80% power.

    By the standard error of Hanley and McNeil (Radiology 143, 1982), of both models on the same patients, one image each.

    Args:
        auroc: of one of them, about; in 0.5…1.
        difference: to be told from none, above 0.
    """
    area = min(max(auroc, 0.5), 0.99)
    one, both = area / (2 - area), 2 * area**2 / (1 + area)
    spread, single = one + both - 2 * area**2, area * (1 - area)
    wanted = (difference / (SIGNIFICANCE + POWER)) ** 2 / (2 * (1 - CORRELATION))
    # variance with m patients of each kind: (single + (m − 1) spread) / m²; solved for m
    each = (spread + math.sqrt(spread**2 + 4 * wanted * (single - spread))) / (2 * wanted)
    return 2 * math.ceil(each)
