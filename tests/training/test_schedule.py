from __future__ import annotations

import math

import pytest

from pipelines.training.schedule import factor


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.25),
        (1, 0.5),
        (3, 1.0),
        (4, 1.0),
        (8, 0.5 * (1 + math.cos(math.pi / 4))),
        (12, 0.5),
        (19, 0.5 * (1 + math.cos(math.pi * 15 / 16))),
        (20, 0.0),
    ],
)
def test_four_steps_of_warm_up_then_a_cosine_over_sixteen(step: int, expected: float) -> None:
    assert factor(step, warmup=4, total=20) == pytest.approx(expected, abs=1e-12)


def test_without_a_warm_up_the_first_step_has_the_full_rate() -> None:
    assert factor(0, warmup=0, total=1) == 1.0


def test_a_warm_up_longer_than_the_training_never_arrives() -> None:
    assert [factor(step, warmup=8, total=2) for step in range(2)] == [1 / 8, 2 / 8]
