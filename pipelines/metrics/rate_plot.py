"""The picture of a learning-rate range test."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.metrics.plots import _STYLE, ACCENT, COLOURS, MUTED


def draw(
    rates: NDArray[np.float64],
    losses: NDArray[np.float64],
    smoothed: NDArray[np.float64],
    suggestion: float,
    rule: str,
) -> bytes:
    """Loss over the learning rate, the suggestion marked, as PNG; the same numbers give the same bytes.

    Args:
        rates: (steps,).
        losses: (steps,), of each batch.
        smoothed: (steps,).
        suggestion: a rate.
        rule: where it comes from.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.plot(rates, losses, color=MUTED, linewidth=0.8, alpha=0.6, label="each batch")
        axes.plot(rates, smoothed, color=ACCENT, label="running mean")
        axes.axvline(suggestion, color=COLOURS[1], linestyle="--", label=f"{suggestion:.1e}: {rule}")
        low, high = float(smoothed.min()), float(smoothed[: len(smoothed) // 2].max())
        axes.set(xscale="log", xlabel="learning rate of the head", ylabel="training loss")
        axes.set_ylim(low - 0.1 * (high - low + 0.1), high + 0.5 * (high - low + 0.1))
        axes.legend()
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})
        return stream.getvalue()
