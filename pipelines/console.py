"""What a person sees in the terminal, through rich: progress on standard error, and results that are easy to read and copy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress
    from rich.text import Text


# what a line begins with before its words: a sign, a dash, or a short name and the space behind it
_LEAD = re.compile(r"\s*(?:- |(?:\S ?){1,20}\s{2,}|[✓·✗] )?")


def console() -> Console:
    """The console on standard error, so that standard output stays for `--json`."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def show(renderable: RenderableType) -> None:
    console().print(renderable)


def tell(text: Text, *, stderr: bool = False) -> None:
    """Print a result or an error: whole lines into a file or a pipe, hung lines on a terminal."""
    from rich.console import Console

    screen = Console(stderr=stderr, highlight=False)
    screen.print(hung(text, screen.width) if screen.is_terminal else text, no_wrap=True, overflow="ignore", crop=False)


def hung(text: Text, width: int) -> Text:
    """Break the lines that are wider than `width` columns between words, under where their words begin.

    A word that is too long, such as a path, stays in one piece, so that it can be copied.
    """
    from rich.text import Text

    pieces: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        lead = _LEAD.match(line.plain)
        indent = lead.end() if lead and lead.end() < width // 2 else 0
        parts = line.divide(_breaks(line.plain, indent, width)) if line.cell_len > width else [line]
        for position, part in enumerate(parts):
            part.rstrip()
            pieces.append(Text(" " * indent) + part if position else part)
    return Text("\n").join(pieces)


def _breaks(line: str, indent: int, width: int) -> list[int]:
    """Where to break a line, in characters: before each word that would reach past `width` columns."""
    breaks: list[int] = []
    start = 0
    for word in re.finditer(r"\S+", line):
        room = width - (indent if breaks else 0)
        if word.start() > max(start, indent) and word.end() - start > room:
            start = word.start()
            breaks.append(start)
    return breaks


@contextmanager
def progress(*, unit: str = "images") -> Iterator[Progress]:
    """A progress display with rate and time left; tasks are added with `add_task(description, total=…, note="")`.

    The `note` field of a task is free text shown at the end of its line (learning rates, MB/s).
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f} {unit}/s" if speed else "", style="cyan")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console(), transient=False) as display:
        yield display
