"""lr-find: try learning rates on the training part, draw what the loss does, and suggest one."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines import console, files
from pipelines.config import Config
from pipelines.metrics import rate_plot
from pipelines.paths import Paths
from pipelines.training.assembly import assemble
from pipelines.training.learn import prepare
from pipelines.training.listener import Silence
from pipelines.training.rate_finder import STEPS, check, sweep


@dataclass(frozen=True)
class RateSummary:
    """What the range test came to.

    Attributes:
        strategy: whose relative rates were kept.
        suggestion: for `train.strategy.learning_rate`, the rate of the head; by `rule`.
        steepest: the rate at which the loss falls fastest.
        decade_below: a tenth of the rate at which the loss is lowest.
        setting: what `--set` and params.yaml take.
        kept: what `--write` keeps in params.yaml: that, and the strategy that it is good for, where it was recommended.
        plot: where the picture is.
    """

    strategy: str
    suggestion: float
    rule: str
    steepest: float
    decade_below: float
    steps: int
    setting: str
    kept: tuple[str, ...]
    plot: str

    def describe(self) -> str:
        return (
            f"strategy {self.strategy}, {self.steps} steps: the loss falls fastest at {self.steepest:.1e}, "
            f"a decade below its lowest is {self.decade_below:.1e}\n"
            f"suggestion: [bold]{self.setting}[/bold] ({self.rule})\n"
            f"picture: {self.plot}\n"
            "`radtransfer lr-find --write` keeps it in params.yaml"
        )


def run(config: Config, paths: Paths) -> RateSummary:
    """Sweep the learning rate on the training part, and write artifacts/lr_find.png; nothing that is trained is kept.

    Raises:
        ConfigurationError: the strategy cannot be what it is told to be, or has no learning rate.
        MissingInputError: prepare, split or ingest has not run.
        WeightsError: the pretrained weights are missing, altered, or do not fit.
        TrainingError: the training part cannot be learnt from.
    """
    assembled = assemble(config, paths)
    network, planned, settings = assembled.started.network, assembled.plan, assembled.settings
    parts = (assembled.train.examples, assembled.validation.examples)
    check(planned)
    ready = prepare(network, planned, assembled.task, *parts, settings, Silence())
    with console.progress(unit="steps") as progress:
        bar = progress.add_task("rates", total=STEPS, note="")

        def stepped(rate: float, loss: float) -> None:
            progress.update(bar, advance=1, note=f"rate {rate:.1e}  loss {loss:.3f}")

        seen = sweep(network, planned, ready.train, ready.loss, settings, steps=STEPS, stepped=stepped)
    files.write_bytes(paths.lr_find, rate_plot.draw(seen.rates, seen.losses, seen.smoothed, seen.suggestion, seen.rule))
    setting = f"train.strategy.learning_rate={spelled(seen.suggestion)}"
    return RateSummary(
        strategy=planned.strategy,
        suggestion=seen.suggestion,
        rule=seen.rule,
        steepest=seen.steepest,
        decade_below=seen.decade_below,
        steps=len(seen.losses),
        setting=setting,
        kept=(f"train.strategy.name={planned.strategy}", setting) if assembled.recommended else (setting,),
        plot=str(paths.lr_find),
    )


def spelled(rate: float) -> str:
    """Two significant digits without an exponent, which YAML 1.1 would read as text."""
    return f"{float(f'{rate:.1e}'):.12f}".rstrip("0")
