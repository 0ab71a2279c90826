"""The figures: nothing that is drawn may be hidden."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pipelines.metrics import curves, plots
from pipelines.records import Task


def drawn(*outputs: str) -> plots.Drawn:
    """Scores that say nothing, whose curves run through every corner."""
    generator, several = np.random.default_rng(0), Task("multilabel", outputs)
    labels, scores = generator.integers(0, 2, (60, len(outputs))).astype(float), generator.random((60, len(outputs)))
    return plots.Drawn(
        tables=curves.tables(several, labels, scores, scores >= 0.5, 5),
        scores={name: scores[:, number] for number, name in enumerate(outputs)},
        prevalence=dict.fromkeys(outputs, 0.5),
        points=dict.fromkeys(outputs, (0.5, 0.5, 0.5)),
        classes=(),
        legends={figure: {name: f"{name}, AUROC 0.500" for name in outputs} for figure in plots.FIGURES},
    )


@pytest.mark.parametrize("outputs", [("opacity",), tuple(f"a finding with a rather long name {n}" for n in range(14))])
@pytest.mark.parametrize("name", ["roc", "precision_recall", "reliability"])
def test_a_legend_names_every_output_and_covers_no_curve(name: str, outputs: tuple[str, ...]) -> None:
    with matplotlib.rc_context(plots._STYLE):
        figure = plots.FIGURES[name](drawn(*outputs))
        FigureCanvasAgg(figure).draw()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        texts = {text.get_text() for text in legend.get_texts()}
    assert {f"{output}, AUROC 0.500" for output in outputs} <= texts
    assert not any(box.overlaps(axes.get_window_extent()) or axes.get_legend() for axes in figure.axes)
    assert figure.bbox.contains(*box.min)
    assert figure.bbox.contains(*box.max)
