"""The figures of a comparison: AUROC over labelled images, AUROC against cost, and differences with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from pipelines.metrics.intervals import Interval
from pipelines.metrics.plots import ACCENT, COLOURS, GRID, INK, LEGEND_ROW, MUTED, SHORT, printed
from pipelines.metrics.verdicts import sign

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
ROW = 0.32  # inches
SPREAD = 1.02  # neighbours at the same number of images stand this factor apart
LETTER = 0.075  # inches


@dataclass(frozen=True)
class Point:
    """One way to transfer, learnt from so many labelled images.

    Attributes:
        name: the same at every size.
        auroc: on the judged patients.
        seconds: of one training.
    """

    name: str
    images: int
    auroc: Interval
    seconds: float


@dataclass(frozen=True)
class Row:
    """One difference of the forest."""

    title: str
    difference: Interval


def draw(curves: Mapping[str, Sequence[Point]], final: Sequence[Point], forest: Mapping[str, Sequence[Row]]) -> dict[str, bytes]:
    """`pareto`, `differences` and, where there are several sizes, `learning_curve`, each as PNG and SVG.

    Args:
        curves: by name, in the order of sizes.
        final: those of the largest size.
        forest: blocks of differences by heading.
    """
    pictures = {"pareto": partial(_pareto, final, list(curves)), "differences": partial(_forest, forest)}
    if any(len(points) > 1 for points in curves.values()):
        pictures["learning_curve"] = partial(_learning_curve, curves)
    return printed(pictures)


def front(points: Sequence[Point]) -> list[Point]:
    """The points than which none is cheaper and as good, from the cheapest on; those without an AUROC left out."""
    kept: list[Point] = []
    known = [point for point in points if point.auroc.value is not None]
    for point in sorted(known, key=lambda point: (point.seconds, -(point.auroc.value or 0.0))):
        if not kept or (point.auroc.value or 0.0) > (kept[-1].auroc.value or 0.0):
            kept.append(point)
    return kept


def round_numbers(low: float, high: float) -> list[float]:
    """Two at least between the ends of a logarithmic axis: 1, 2 and 5 of each power of ten, or evenly spaced ones."""
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    found = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    if len(between := [number for number in found if low <= number <= high]) > 1:
        return between
    return [float(number) for number in MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low <= number <= high]


def _learning_curve(curves: Mapping[str, Sequence[Point]]) -> Figure:
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(curves.items()):
        beside = SPREAD ** (number - (len(curves) - 1) / 2)
        known = [point for point in points if point.auroc.value is not None]
        places, values = [point.images * beside for point in known], [point.auroc.value or 0.0 for point in known]
        axes.plot(places, values, label=name, markersize=5.5, marker=MARKERS[number % len(MARKERS)], color=_colour(number))
        for place, point in zip(places, known, strict=True):
            _whisker(axes, place, point.auroc, _colour(number))
    sizes = sorted({point.images for points in curves.values() for point in points})
    axes.set(xscale="log", xlabel="labelled images learnt from", ylabel="AUROC, mean over seeds")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    _legend(figure, axes)
    return figure


def _pareto(points: Sequence[Point], names: Sequence[str]) -> Figure:
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    known = [point for point in points if point.auroc.value is not None]
    best = front(known)
    axes.plot(
        [point.seconds for point in best],
        [point.auroc.value or 0.0 for point in best],
        color=MUTED,
        linewidth=1.2,
        linestyle=(0, (4, 3)),
        label="Pareto front: nothing is cheaper and better",
        drawstyle="steps-post",
    )
    for point in known:
        number = names.index(point.name)
        _whisker(axes, point.seconds, point.auroc, _colour(number))
        axes.plot(
            [point.seconds],
            [point.auroc.value or 0.0],
            linestyle="",
            marker=MARKERS[number % len(MARKERS)],
            markersize=8,
            color=_colour(number),
            label=point.name,
        )
    axes.set(xscale="log", xlabel="seconds of one training", ylabel="AUROC, mean over seeds")
    ticks = round_numbers(*axes.get_xlim())
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    _legend(figure, axes)
    return figure


def _forest(blocks: Mapping[str, Sequence[Row]]) -> Figure:
    rows = sum(len(block) + 1 for block in blocks.values())
    longest = max((len(row.title) for block in blocks.values() for row in block), default=0)
    figure = Figure(figsize=(4.4 + LETTER * longest, 0.9 + ROW * max(rows, 2)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color=MUTED, linewidth=0.9, linestyle=(0, (4, 4)))
    place, ticks = 0, []
    for heading, block in blocks.items():
        axes.text(0.01, place, heading, transform=axes.get_yaxis_transform(), fontweight="bold", va="center")
        if place:
            axes.axhline(place - 0.5, color=GRID, linewidth=0.8)
        for row in block:
            place += 1
            ticks.append((place, row.title))
            colour = {1: ACCENT, 0: INK, -1: COLOURS[1]}[sign(row.difference)]
            _bar(axes, place, row.difference, colour)
        place += 1
    axes.set_yticks([tick for tick, _ in ticks], [title for _, title in ticks])
    axes.set(ylim=(max(rows, 2) - 0.4, -0.6), xlabel="difference in AUROC; the 95% intervals hold together")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    return figure


def _bar(axes: Axes, place: int, difference: Interval, colour: str) -> None:
    if difference.value is None:
        return
    if difference.low is not None and difference.high is not None:
        axes.plot([difference.low, difference.high], [place, place], color=colour, solid_capstyle="butt")
    axes.plot([difference.value], [place], marker="o", markersize=6, color=colour, linestyle="")


def _whisker(axes: Axes, place: float, auroc: Interval, colour: str) -> None:
    if auroc.low is not None and auroc.high is not None:
        axes.plot([place, place], [auroc.low, auroc.high], color=colour, linewidth=1.2, alpha=0.55, solid_capstyle="butt")


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the axes, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    across = 2 if all(len(label) <= SHORT for label in labels) else 1
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * -(-len(labels) // across))
    figure.legend(handles, labels, loc="outside lower center", ncols=across)
