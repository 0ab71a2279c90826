"""Numbers of patients against the published formula, worked out by hand."""

import math

import pytest

from pipelines.metrics.power import patients_to_settle


def error(area: float, each: int) -> float:
    """Hanley and McNeil, Radiology 143 (1982), equation 1, with as many patients with as without the finding."""
    one, both = area / (2 - area), 2 * area**2 / (1 + area)
    return math.sqrt((area * (1 - area) + (each - 1) * (one + both - 2 * area**2)) / each**2)


@pytest.mark.parametrize("area", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("difference", [0.02, 0.05, 0.1])
def test_it_is_the_smallest_number_with_enough_power(area: float, difference: float) -> None:
    patients = patients_to_settle(area, difference)
    seen = [difference / (math.sqrt(2 * 0.5) * error(area, patients // 2 - fewer)) for fewer in (0, 1)]
    assert seen[0] >= 1.959964 + 0.841621 > seen[1]


def test_small_differences_and_poor_models_take_more() -> None:
    assert patients_to_settle(0.8, 0.02) > patients_to_settle(0.8, 0.05) > patients_to_settle(0.95, 0.05)
    assert patients_to_settle(1.0, 0.05) == patients_to_settle(0.99, 0.05)
