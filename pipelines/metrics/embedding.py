"""The figure of a ranking: the features of each network in two dimensions, coloured by label."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.metrics.plots import COLOURS, MUTED, printed
from pipelines.records import Task

ACROSS = 4
SIDE = 2.6  # inches


def draw(panels: Mapping[str, NDArray[np.float64]], task: Task, labels: NDArray[np.floating]) -> dict[str, bytes]:
    """`features.png` and `features.svg`, the same bytes every time: the first two principal components of each network.

    Args:
        panels: features (images, width) of each network.
        task: of its outputs the first colours the images, or its classes do.
        labels: (images, outputs), 0, 1 or NaN.
    """
    return printed({"features": partial(_figure, panels, task, labels)})


def principal_components(features: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Coordinates (images, 2) on the two axes of largest variance of the standardised features, and the share they hold.

    Of each axis the sign is that which makes its largest coordinate positive.
    """
    spread = features.std(axis=0)
    standard = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    left, singular, _ = np.linalg.svd(standard, full_matrices=False)
    places = left[:, :2] * singular[:2]
    largest = places[np.abs(places).argmax(axis=0), np.arange(places.shape[1])]
    return places * np.where(largest < 0, -1, 1), float((singular[:2] ** 2).sum() / max((singular**2).sum(), 1e-12))


def _figure(panels: Mapping[str, NDArray[np.float64]], task: Task, labels: NDArray[np.floating]) -> Figure:
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(SIDE * max(across, 2), SIDE * down + 0.5), layout="constrained")
    places = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (name, features) in zip(places, panels.items(), strict=False):
        _panel(axes, name, features, task, labels)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    figure.legend(*places[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, markerscale=2)
    return figure


def _panel(axes: Axes, name: str, features: NDArray[np.float64], task: Task, labels: NDArray[np.floating]) -> None:
    coordinates, share = principal_components(features)
    for number, (title, members) in enumerate(_groups(task, labels).items()):
        some = coordinates[members]
        axes.scatter(some[:, 0], some[:, 1], s=7, color=COLOURS[number % len(COLOURS)], alpha=0.6, linewidths=0, label=title)
    axes.set_title(name, fontsize=8.5)
    axes.set_xlabel(f"{share:.0%} of the variance", fontsize=7.5, color=MUTED)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)


def _groups(task: Task, labels: NDArray[np.floating]) -> dict[str, NDArray[np.bool_]]:
    """Which images have which colour; those whose label is unknown have none."""
    if task.kind == "multiclass":
        return {name: labels[:, number] == 1 for number, name in enumerate(task.outputs)}
    first = task.outputs[0]
    return {f"no {first}": labels[:, 0] == 0, first: labels[:, 0] == 1}
