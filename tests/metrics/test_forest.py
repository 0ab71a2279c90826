from __future__ import annotations

from pipelines.metrics.forest import Row, draw
from pipelines.metrics.intervals import Interval

MODEL = Interval(0.9, 0.85, 0.95)
ROWS = (
    Row("Border", True, True, Interval(0.8, 0.7, 0.9), 0.75),
    Row("Shape", True, False, Interval(0.5, 0.3, 0.6), None),
    Row("Thumbnail", False, False, Interval(None, None, None), None),
)


def test_the_figure_is_the_same_bytes_every_time() -> None:
    first = draw(ROWS, MODEL, 0.55)
    assert set(first) == {"shortcuts.png", "shortcuts.svg"}
    assert draw(ROWS, MODEL, 0.55) == first


def test_an_alarm_and_a_model_can_be_seen_in_it() -> None:
    quiet = (Row("Border", True, False, Interval(0.8, 0.7, 0.9), 0.75), *ROWS[1:])
    pictures = {draw(rows, model, 0.55)["shortcuts.svg"] for rows in (ROWS, quiet) for model in (MODEL, Interval(0.8, 0.7, 0.9))}
    assert len(pictures) == 4
    assert b"#a32525" in draw(ROWS, MODEL, 0.55)["shortcuts.svg"]


def test_what_is_undefined_is_left_out() -> None:
    empty = [Row(row.title, row.blind, False, Interval(None, None, None), None) for row in ROWS]
    assert draw(empty, Interval(None, None, None), 0.55)["shortcuts.png"].startswith(b"\x89PNG")
