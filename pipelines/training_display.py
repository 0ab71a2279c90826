"""What a person sees of a training in the terminal: its layer groups, its progress, each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import Progress, TaskID
from rich.table import Table

from pipelines import console
from pipelines.training.listener import Epoch, Listener, Step
from pipelines.transfer.strategies import Plan


@contextmanager
def displayed(listener: Listener | None, score: str) -> Iterator[Listener]:
    """The listener given, or one that shows the training in the terminal."""
    if listener is not None:
        yield listener
        return
    with console.progress() as progress:
        yield Display(progress, score)


class Display:
    """Shows a training: the layer groups before it, a progress bar with images/s and rates, each epoch's validation."""

    def __init__(self, progress: Progress, score: str = "AUROC") -> None:
        self._progress, self._score = progress, score
        self._task: TaskID | None = None
        self._names: tuple[str, ...] = ()

    def planned(self, plan: Plan) -> None:
        self._names = tuple(group.name for group in plan.groups)
        self._progress.console.print(layer_table(plan))

    def noted(self, text: str) -> None:
        self._progress.console.print(text)

    def extracting(self, done: int, total: int) -> None:
        if self._task is None:
            self._task = self._progress.add_task("features", total=total, note="")
        self._progress.update(self._task, completed=done)
        if done == total:
            self._task = None

    def passed(self, images: int) -> None: ...

    def epoch_started(self, epoch: int, epochs: int, images: int) -> None:
        self._task = self._progress.add_task(f"epoch {epoch}/{epochs}", total=images, note="")

    def stepped(self, step: Step) -> None:
        if self._task is not None:
            rates = " ".join(f"{name} {rate:.0e}" for name, rate in zip(self._names, step.learning_rates, strict=True) if rate)
            self._progress.update(self._task, advance=step.images, note=f"loss {step.loss:.3f}  {rates}")

    def epoch_ended(self, epoch: Epoch, *, best: bool) -> None:
        """Leave one line of the epoch; its bar goes, so that a long training does not outgrow the terminal."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        mark = " [green]best[/green]" if best else ""
        self._progress.console.print(
            f"epoch {epoch.epoch:>3}  train loss {epoch.train_loss:.3f}  validation loss {epoch.validation_loss:.3f}  "
            f"validation {self._score} {epoch.validation_auroc:.3f}{mark}"
        )


def layer_table(plan: Plan) -> Table:
    """The layer groups of a plan, from stem to head, as a table for the terminal."""
    later = any(group.from_epoch > 1 for group in plan.groups)
    columns = ("layer group", "parameters", "learn", "batch norm", "learning rate", *(("from epoch",) if later else ()))
    table = Table(*columns, title=f"strategy {plan.strategy}")
    for column in table.columns[1:]:
        column.justify = "right"
    for group in plan.groups:
        rate = f"{group.learning_rate:.1e}" if group.learning_rate else "–"
        learns = f"{group.trained:,}" if group.trained else "frozen"
        row = (group.name, f"{group.parameters:,}", learns, group.batch_norm or "–", rate)
        table.add_row(*row, *([str(group.from_epoch)] * later))
    table.add_section()
    table.add_row("all", f"{plan.parameters:,}", f"{plan.trained:,}", plan.batch_norm, "")
    return table
