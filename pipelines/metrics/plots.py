"""The figures of an evaluation, the same bytes every time: ROC, precision–recall, reliability and confusion."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.metrics.curves import Tables

INK, MUTED, GRID, ACCENT = "#1d2b36", "#6a7883", "#e3e8ec", "#0f6e7c"
COLOURS = (ACCENT, "#c2571a", "#5b4b9a", "#3f7d20", "#a8326e", "#8a6d00", "#2b5fa8", "#7a7a7a")
DASHES = ("-", "--", ":", "-.")  # once the colours are used up
SHADES = LinearSegmentedColormap.from_list("shades", ["#f3f7f8", ACCENT])
SQUARE = (4.6, 4.6)  # inches
LEGEND_ROW = 0.21  # inches
SHORT = 24  # letters of legend entries that stand two in a row

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine draws the same letters
    "font.size": 9.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.9,
    "svg.hashsalt": "radtransfer",
    "savefig.dpi": 160,
}


@dataclass(frozen=True)
class Drawn:
    """What the figures show.

    Attributes:
        tables: the points of the curves.
        scores: for each output, the probabilities of the images whose label is known.
        prevalence: for each output, the fraction of those with the finding.
        points: for each output, (sensitivity, specificity, precision) at its threshold; None where undefined.
        classes: of a multiclass target, in order; else ().
        legends: for each output, its name with its headline number, by figure (`roc`, `precision_recall`, `reliability`).
    """

    tables: Tables
    scores: Mapping[str, NDArray[np.float64]]
    prevalence: Mapping[str, float]
    points: Mapping[str, tuple[float | None, float | None, float | None]]
    classes: tuple[str, ...]
    legends: Mapping[str, Mapping[str, str]]


def draw(drawn: Drawn) -> dict[str, bytes]:
    """Every figure as PNG and SVG: the content of `roc.png`, `roc.svg`, `precision_recall.png` and so on."""
    return printed({name: partial(picture, drawn) for name, picture in FIGURES.items()})


def printed(pictures: Mapping[str, Callable[[], Figure]]) -> dict[str, bytes]:
    """Each picture, drawn in the one style, as PNG and SVG: the content of `NAME.png` and `NAME.svg`."""
    content: dict[str, bytes] = {}
    with matplotlib.rc_context(_STYLE):
        for name, picture in pictures.items():
            figure = picture()
            FigureCanvasAgg(figure)
            for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
                stream = io.BytesIO()
                figure.savefig(stream, format=suffix, metadata=metadata)
                content[f"{name}.{suffix}"] = stream.getvalue()
    return content


def _square(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SQUARE, layout="constrained")
    axes = figure.add_subplot()
    _unit(axes)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def _unit(axes: Axes) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=np.linspace(0, 1, 6), yticks=np.linspace(0, 1, 6))
    axes.set_aspect("equal")


def _pen(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number // len(COLOURS) % len(DASHES)]}


def _roc(drawn: Drawn) -> Figure:
    figure, axes = _square("1 − specificity (false positive rate)", "sensitivity (true positive rate)")
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 4)))
    for number, (name, curve) in enumerate(drawn.tables.roc.groupby("output", sort=False)):
        pen = _pen(number)
        axes.plot(curve["fpr"], curve["tpr"], label=drawn.legends["roc"][str(name)], **pen)
        sensitivity, specificity, _ = drawn.points[str(name)]
        if sensitivity is not None and specificity is not None:
            _mark(axes, 1 - specificity, sensitivity, pen["color"], named=number == len(drawn.points) - 1)
    _legend(figure, axes)
    return figure


def _precision_recall(drawn: Drawn) -> Figure:
    figure, axes = _square("recall (sensitivity)", "precision (PPV)")
    for number, (name, curve) in enumerate(drawn.tables.precision_recall.groupby("output", sort=False)):
        pen = _pen(number)
        axes.axhline(drawn.prevalence[str(name)], color=pen["color"], linewidth=0.9, linestyle=(0, (4, 4)), alpha=0.6)
        recalls, precisions = [0.0, *curve["recall"]], [*curve["precision"][:1], *curve["precision"]]
        axes.step(recalls, precisions, where="pre", label=drawn.legends["precision_recall"][str(name)], **pen)
        recall, _, precision = drawn.points[str(name)]
        if recall is not None and precision is not None:
            _mark(axes, recall, precision, pen["color"], named=number == len(drawn.points) - 1)
    _legend(figure, axes)
    return figure


def _mark(axes: Axes, x: float, y: float, colour: str, *, named: bool) -> None:
    ring: dict[str, Any] = {"marker": "o", "markersize": 8, "color": "white", "markeredgecolor": colour, "markeredgewidth": 2}
    axes.plot([x], [y], linestyle="", label="operating point" if named else None, **ring)


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the axes, on paper of its own, where it covers no curve however poor."""
    handles, labels = axes.get_legend_handles_labels()
    across = 2 if all(len(label) <= SHORT for label in labels) else 1
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * -(-len(labels) // across))
    figure.legend(handles, labels, loc="outside lower center", ncols=across)


def _reliability(drawn: Drawn) -> Figure:
    figure = Figure(figsize=(SQUARE[0], SQUARE[1] * 1.25), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    _unit(axes)
    axes.set(ylabel="observed fraction with the finding")
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 4)), label="perfect")
    bins = np.linspace(0, 1, 26)
    for number, (name, bars) in enumerate(drawn.tables.reliability.groupby("output", sort=False)):
        pen = _pen(number)
        axes.plot(
            bars["predicted"], bars["observed"], marker="o", markersize=4.5, label=drawn.legends["reliability"][str(name)], **pen
        )
        alone = drawn.tables.reliability["output"].nunique() == 1
        below.hist(drawn.scores[str(name)], bins=bins, histtype="stepfilled" if alone else "step", color=pen["color"])
    below.set(xlabel="predicted probability", ylabel="images")
    _legend(figure, axes)
    return figure


def _confusion(drawn: Drawn) -> Figure:
    groups = list(drawn.tables.confusion.groupby("output", sort=False))
    across = min(len(groups), 3) or 1
    down = -(-len(groups) // across) or 1
    side = SQUARE[0] if len(groups) <= 1 else 3.4
    figure = Figure(figsize=(side * across, side * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for panel, (name, judged) in zip(panels, groups, strict=False):
        _matrix(panel, judged, drawn.classes or (f"no {name}", str(name)))
    for panel in panels[len(groups) :]:
        panel.set_axis_off()
    return figure


def _matrix(axes: Axes, judged: pd.DataFrame, names: tuple[str, ...]) -> None:
    """Counts, shaded by their fraction of the row, so that a rare class is as plain to see as a common one."""
    counts = np.array([[((judged["actual"] == a) & (judged["predicted"] == p)).sum() for p in names] for a in names])
    fraction = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(fraction, cmap=SHADES, vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = fraction[row, column]
        middle: dict[str, Any] = {"ha": "center", "color": "white" if share > 0.5 else INK}
        axes.text(column, row, f"{count}", va="bottom", fontsize=15, **middle)
        axes.text(column, row + 0.04, f"{share:.0%}", va="top", fontsize=9.5, **middle)
    axes.set(xlabel="called", ylabel="labelled")
    axes.set_xticks(range(len(names)), names, rotation=0 if len(names) < 4 else 30)
    axes.set_yticks(range(len(names)), names, rotation=90, va="center")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


FIGURES: dict[str, Callable[[Drawn], Figure]] = {
    "roc": _roc,
    "precision_recall": _precision_recall,
    "reliability": _reliability,
    "confusion": _confusion,
}
