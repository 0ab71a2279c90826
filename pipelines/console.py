"""What a person sees in the terminal: progress on standard error, through rich; results are the command line's to print."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress


def console() -> Console:
    """The console on standard error, so that standard output stays for `--json`."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def show(renderable: RenderableType) -> None:
    console().print(renderable)


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
