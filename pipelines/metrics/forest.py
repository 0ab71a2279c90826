"""The figure of the shortcut audit: what each shortcut knows, next to what the model knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.metrics.intervals import Interval
from pipelines.metrics.plots import ACCENT, INK, MUTED, printed

ALARM = "#a32525"
ROW = 0.34  # inches


@dataclass(frozen=True)
class Row:
    """One shortcut: its AUROC over all patients with the interval, and on the test part; None where undefined."""

    title: str
    blind: bool
    alarm: bool
    everyone: Interval
    test: float | None


def draw(rows: Sequence[Row], model: Interval, alarm_above: float) -> dict[str, bytes]:
    """`shortcuts.png` and `shortcuts.svg`, the same bytes every time.

    Args:
        rows: top to bottom; those that see the whole picture stand below a rule.
        model: its AUROC on the test part.
        alarm_above: the AUROC from which a shortcut that cannot see findings knows too much.
    """
    return printed({"shortcuts": partial(_figure, rows, model, alarm_above)})


def _figure(rows: Sequence[Row], model: Interval, alarm_above: float) -> Figure:
    figure = Figure(figsize=(7.4, 1.35 + ROW * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    shown = (value for row in rows for value in (row.everyone.low, row.everyone.value, row.test) if value is not None)
    lowest = min([0.4, *(value - 0.03 for value in shown)])
    axes.axvline(0.5, color=MUTED, linewidth=0.9, linestyle=(0, (4, 4)))
    axes.axvline(alarm_above, color=ALARM, linewidth=0.9, linestyle=(0, (1, 2)), label=f"alarm if surely above {alarm_above:g}")
    if model.value is not None:
        if model.low is not None and model.high is not None:
            axes.axvspan(model.low, model.high, color=ACCENT, alpha=0.13, linewidth=0)
        axes.axvline(model.value, color=ACCENT, linewidth=1.9, label="model, test part")
    for place, row in enumerate(rows):
        _row(axes, place, row)
    blind = sum(row.blind for row in rows)
    axes.axhline(blind - 0.5, color=MUTED, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row.title for row in rows])
    axes.set(xlim=(max(lowest, -0.02), 1.02), ylim=(len(rows) - 0.4, -0.6), xlabel="AUROC (0.5 is chance)")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    _key(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _row(axes: Axes, place: int, row: Row) -> None:
    colour = ALARM if row.alarm else INK if row.blind else MUTED
    whole = row.everyone
    if whole.value is not None:
        if whole.low is not None and whole.high is not None:
            axes.plot([whole.low, whole.high], [place, place], color=colour, linewidth=1.9, solid_capstyle="butt")
        axes.plot([whole.value], [place], marker="o", markersize=6.5, color=colour, linestyle="")
    if row.test is not None:
        axes.plot([row.test], [place], marker="D", markersize=5, color="white", markeredgecolor=colour, markeredgewidth=1.3)


def _key(axes: Axes) -> None:
    """What the marks mean, for the legend."""
    axes.plot([], [], marker="o", markersize=6.5, color=INK, linewidth=1.9, label="all patients")
    axes.plot([], [], marker="D", markersize=5, color="white", markeredgecolor=INK, linestyle="", label="test part")
