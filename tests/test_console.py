"""Results on a terminal: lines break between words, hang under their first one, and keep paths whole."""

from __future__ import annotations

import pytest
from rich.text import Text

from pipelines import console

PATH = "/srv/radiology/workspaces/chest/artifacts/evaluation/packet.html"


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("short enough", "short enough"),
        ("a sentence that is wider than the screen", "a sentence that is wider\nthan the screen"),
        ("  - lower end of the interval: 0.7", "  - lower end of the\n    interval: 0.7"),
        ("✓ git      at a commit, and clean", "✓ git      at a commit,\n           and clean"),
        (f"packet  {PATH}", f"packet  {PATH}"),
        (f"see {PATH} for it", f"see\n{PATH}\nfor it"),
        ("one\n\ntwo", "one\n\ntwo"),
    ],
)
def test_a_line_that_is_too_wide_hangs_under_its_words(line: str, broken: str) -> None:
    assert console.hung(Text(line), 25).plain == broken


def test_what_is_emphasised_stays_so() -> None:
    hung = console.hung(Text.from_markup("a verdict: [bold]every gate passed[/bold] today"), 20)
    assert [hung.plain[span.start : span.end].split() for span in hung.spans] == [["every"], ["gate", "passed"]]


def test_into_a_file_lines_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    console.tell(Text("word " * 40))
    assert capsys.readouterr().out == "word " * 40 + "\n"
