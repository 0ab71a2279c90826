from __future__ import annotations

import numpy as np

from pipelines.metrics.rate_plot import draw


def test_the_picture_is_a_png_of_the_same_bytes_each_time() -> None:
    rates, losses = np.geomspace(1e-6, 1, 30), np.linspace(1, 0.2, 30)
    pictures = {draw(rates, losses, losses, suggestion, "the steepest descent") for suggestion in (1e-3, 1e-3, 1e-2)}
    assert len(pictures) == 2
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
