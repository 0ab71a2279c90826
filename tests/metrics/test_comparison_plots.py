"""The figures of a comparison: the same bytes every time, and the front holds what nothing beats at its price."""

from __future__ import annotations

import re

import pytest

from pipelines.metrics.comparison_plots import Point, Row, draw, front, round_numbers
from pipelines.metrics.intervals import Interval


def point(name: str, auroc: float | None, seconds: float, images: int = 100) -> Point:
    return Point(name, images, Interval(auroc, None if auroc is None else auroc - 0.05, 0.99 if auroc else None), seconds)


POINTS = [point("probe", 0.8, 1), point("full", 0.9, 60), point("scratch", 0.7, 60), point("lp_ft", 0.9, 90)]
FOREST = {"gain over training from scratch": [Row("full", Interval(0.2, 0.1, 0.3)), Row("probe", Interval(0.1, None, None))]}


@pytest.mark.parametrize(
    ("points", "names"),
    [
        (POINTS, ["probe", "full"]),
        ([point("dear", 0.9, 9), point("cheap", 0.9, 1)], ["cheap"]),
        ([point("unknown", None, 1), point("known", 0.6, 2)], ["known"]),
    ],
)
def test_the_front_holds_what_is_neither_dearer_nor_worse_than_another(points: list[Point], names: list[str]) -> None:
    assert [kept.name for kept in front(points)] == names


def test_a_learning_curve_needs_several_sizes() -> None:
    one = {name.name: [name] for name in POINTS}
    assert sorted(draw(one, POINTS, FOREST)) == ["differences.png", "differences.svg", "pareto.png", "pareto.svg"]
    two = {name: [point(name, 0.7, 1, images=20), *points] for name, points in one.items()}
    drawn = draw(two, POINTS, FOREST)
    assert {"learning_curve.png", "learning_curve.svg"} < set(drawn)
    assert drawn == draw(two, POINTS, FOREST)


def test_every_name_and_every_size_is_in_the_pictures() -> None:
    curves = {name.name: [point(name.name, None, 1, images=16), name] for name in POINTS}
    drawn = {name: content.decode() for name, content in draw(curves, POINTS, FOREST).items() if name.endswith("svg")}
    for name in curves:
        for picture in ("learning_curve.svg", "pareto.svg"):
            assert f"<!-- {name} -->" in drawn[picture]
    assert "<!-- 16 -->" in drawn["learning_curve.svg"]
    assert "<!-- gain over training from scratch -->" in drawn["differences.svg"]


@pytest.mark.parametrize(
    ("low", "high", "numbers"),
    [
        (0.8, 60, [1, 2, 5, 10, 20, 50]),
        (0.15, 1.2, [0.2, 0.5, 1]),
        (0.3, 1, [0.5, 1]),
        (6, 9.5, [6, 7, 8, 9]),
        (1.5, 3, [1.5, 2, 2.5, 3]),
        (0.9, 1.1, [0.9, 1, 1.1]),
    ],
)
def test_an_axis_has_round_numbers_however_short_it_is(low: float, high: float, numbers: list[float]) -> None:
    assert round_numbers(low, high) == pytest.approx(numbers)


@pytest.mark.parametrize("longest", [6.0, 6.01, 6.5, 9.0, 11.0])
def test_the_axis_of_costs_has_two_numbers_at_least(longest: float) -> None:
    points = [point("probe", 0.8, 6.0), point("full", 0.9, longest)]
    drawn = draw({each.name: [each] for each in points}, points, FOREST)["pareto.svg"].decode()
    axis = drawn[drawn.index('id="matplotlib.axis_1"') : drawn.index('id="matplotlib.axis_2"')]
    assert len(re.findall(r"<!-- [\d.]+ -->", axis)) >= 2
