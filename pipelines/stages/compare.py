"""compare: train several ways to transfer on the same patients, and say which is better, at what cost, and where transfer hurts.

The test part is not touched. The validation part judges, and no training sees it; but the best is chosen by it, so that its
figure is that of a choice. What `evaluate` says of the model that is then trained is the honest one.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from pipelines import console, files, tracking_store
from pipelines.config import Config, load
from pipelines.errors import ConfigurationError, ServiceError
from pipelines.metrics import comparison_plots
from pipelines.metrics.comparison_plots import Point, Row
from pipelines.metrics.intervals import Interval
from pipelines.metrics.verdicts import sign, signed
from pipelines.models import backbones
from pipelines.models.starting import SCRATCH
from pipelines.paths import Paths
from pipelines.training.contest import Contest, Way, contest
from pipelines.training.drawing import Ground, ground
from pipelines.training.listener import Epoch, Silence
from pipelines.training.trial import Identities, Result, Trial, kept, perform

KEY = (
    "* surely not 0; passes: images through the network to learn; "
    "kept: on how many of these images the source's own classifier answers as before"
)


@dataclass(frozen=True)
class CompareSummary:
    """What the comparison came to.

    Attributes:
        judged: labelled validation images, and their patients, by which everything is judged.
        stopping: images of the train part for early stopping, besides those that are learnt from.
        ways: by size and then best first; see `training.contest.Way`.
        verdicts: on those of the largest size.
        failed: what could not be trained, with the reason.
        command: trains the best one.
        results: the file of all figures, relative to the workspace; `figures` likewise.
        mlflow: where the runs are, or None where they were not to be logged.
        trained: how many trainings this call took; the others were kept from before.
    """

    judged: tuple[int, int]
    stopping: int
    seeds: tuple[int, ...]
    ways: tuple[Way, ...]
    verdicts: tuple[str, ...]
    failed: dict[str, str]
    command: str
    results: str
    figures: tuple[str, ...]
    mlflow: str | None
    trained: int

    def describe(self) -> str:
        images, patients = self.judged
        sizes = len({way.size for way in self.ways})
        curve = f", of the largest of {sizes} sizes" if sizes > 1 else ""
        final = [way for way in self.ways if way.size == self.ways[-1].size]
        left = "".join(f"\n[yellow]left out {escape(name)}[/yellow]: {escape(reason)}" for name, reason in self.failed.items())
        logged = f"\nevery training is a run in MLflow ({escape(self.mlflow)})" if self.mlflow else ""
        return (
            f"AUROC on {images:,} validation images of {patients:,} patients, mean over {len(self.seeds)} seeds{curve}; "
            f"{self.stopping:,} training images for early stopping\n"
            f"{escape(_table(final))}{left}\n"
            + "\n".join(f"- {escape(line)}" for line in self.verdicts)
            + f"\nto train the best: [bold]{escape(self.command)}[/bold]\n"
            "it was chosen by these validation patients: `radtransfer evaluate` says on the test part how good it is\n"
            f"drawn in {escape(', '.join(self.figures))}{logged}"
        )


def trials(config: Config, store_size: int) -> list[Trial]:
    """Every training that `config.compare` asks for; from scratch once for each network.

    Raises:
        ConfigurationError: a source is not BACKBONE@WEIGHTS, or its network does not exist or cannot take such images.
    """
    settings, train = config.compare, config.train
    found = []
    for source in settings.sources or (f"{train.backbone}@{train.weights}",):
        backbone, _, weights = source.rpartition("@")
        if not backbone or not weights:
            raise ConfigurationError(f"params.yaml compare.sources: expected BACKBONE@WEIGHTS, got {source!r}")
        backbones.check_size(backbone, store_size, "params.yaml compare.sources" if settings.sources else backbones.KEY)
        for strategy in settings.strategies:
            if strategy == SCRATCH:
                found.append((f"{backbone}@{SCRATCH}", strategy))
            elif weights != SCRATCH:
                found.append((source, strategy))
    if not found:
        raise ConfigurationError("params.yaml compare.sources: expected weights to transfer from, got scratch; name a source")
    each = [(size, seed) for size in settings.sizes or (None,) for seed in settings.seeds]
    return [Trial(source, strategy, size, seed) for source, strategy in dict.fromkeys(found) for size, seed in each]


def outstanding(config: Config, paths: Paths) -> list[Trial]:
    """The trainings that no earlier call has done; errors as for `run`."""
    prepared = _ground(config, paths)
    identities = Identities(config, paths, prepared)
    known = {trial: kept(paths, trial, identities.of(trial)) for trial in trials(config, prepared.size)}
    return [trial for trial, result in known.items() if result is None or result.passing]


def train(config: Config, paths: Paths, trial: Trial) -> Result:
    """Do one training of the comparison, wherever this is called, and keep its result; errors as for `run`."""
    return perform(trial, config, paths, _ground(config, paths))


def run(config: Config, paths: Paths) -> CompareSummary:
    """Train what `config.compare` asks for and was not trained before, one after the other, then compare.

    Raises:
        ConfigurationError: a source is not BACKBONE@WEIGHTS, a size is larger than what is there, or an adaptation is set.
        MissingInputError: prepare, split or ingest has not run.
        TrainingError: a part has too few patients of a class, or nothing can be trained but from scratch, though more was asked
            for; what was trained is kept.
        ServiceError: MLflow does not answer; the results are kept.
    """
    prepared, todo = _ground(config, paths), outstanding(config, paths)
    if todo:
        with console.progress(unit="trainings") as progress:
            _perform(todo, config, paths, prepared, progress)
    return conclude(config, paths, trained=len(todo))


def _perform(todo: Sequence[Trial], config: Config, paths: Paths, prepared: Ground, progress: Progress) -> None:
    """One after the other; each leaves a line."""
    bar = progress.add_task("compare", total=len(todo), note="")
    for trial in todo:
        progress.update(bar, note=trial.name)
        watching = _Note(lambda text, name=trial.name: progress.update(bar, note=f"{name}  {text}"))
        result = perform(trial, config, paths, prepared, watching)
        said = f"not to be had: {result.failed}" if result.failed else f"AUROC {result.auroc:.3f} in {result.seconds:.1f} s"
        progress.console.print(f"{trial.name}: {said}", markup=False)
        progress.update(bar, advance=1)


def conclude(config: Config, paths: Paths, *, trained: int = 0) -> CompareSummary:
    """Compare the trainings that are there, write artifacts/compare, and log them; errors as for `run`."""
    prepared = _ground(config, paths)
    identities = Identities(config, paths, prepared)
    known = [kept(paths, trial, identities.of(trial)) or _lost(trial) for trial in trials(config, prepared.size)]
    told = load(paths.params).train if paths.params.is_file() else config.train  # without what `--set` says for this call
    found = contest(known, prepared, config.compare, told)
    names = _names(found)
    pictures = comparison_plots.draw(_curves(found, names), _points(found.final, names), _forest(found.final))
    shutil.rmtree(paths.comparison / "figures", ignore_errors=True)
    for name, content in pictures.items():
        files.write_bytes(paths.comparison / "figures" / name, content)
    table = pd.DataFrame([_row(result) for result in known])
    files.write_text(paths.comparison / "runs.csv", table.to_csv(index=False))
    summary = _summary(config, paths, prepared, found, sorted(pictures), trained)
    files.write_json(paths.comparison / "comparison.json", {**asdict(summary), "trained": len(known)})
    if config.compare.mlflow:
        _log(config, paths, known, found)
    return summary


def _log(config: Config, paths: Paths, known: Sequence[Result], found: Contest) -> None:
    from pipelines.tracking import comparison  # MLflow takes seconds to load, and may not be wanted

    try:
        comparison.log(config, paths, known, found)
    except ServiceError as error:
        raise ServiceError(
            f"{error}; the comparison itself is done and kept: call `radtransfer compare` again to log it, or with "
            "`--set compare.mlflow=false` to see it"
        ) from error


def _ground(config: Config, paths: Paths) -> Ground:
    if method := config.train.adaptation.method:
        raise ConfigurationError(
            f"params.yaml train.adaptation.method: expected null, since compare judges on patients of hospitals with labels, "
            f"got {method}; give compare `--set train.adaptation.method=null`"
        )
    found = ground(paths, config.task.declared(), config.compare.stopping, config.compare.seed)
    if too_large := [size for size in config.compare.sizes if size > len(found.pool.rows)]:
        raise ConfigurationError(
            f"params.yaml compare.sizes: expected at most {len(found.pool.rows)}, the labelled images of the train part less "
            f"{len(found.stopping.rows)} for early stopping (compare.stopping), got {', '.join(map(str, too_large))}"
        )
    return found


def _lost(trial: Trial) -> Result:
    return Result(trial, "", failed="it was not trained; run `radtransfer compare` again")


def _summary(
    config: Config, paths: Paths, prepared: Ground, found: Contest, pictures: Sequence[str], trained: int
) -> CompareSummary:
    def place(name: str) -> str:
        return (paths.comparison / name).relative_to(paths.workspace).as_posix()

    return CompareSummary(
        judged=(len(prepared.judged.rows), int(prepared.judged.rows["patient"].nunique())),
        stopping=len(prepared.stopping.rows),
        seeds=config.compare.seeds,
        ways=found.ways,
        verdicts=found.verdicts,
        failed=dict(found.failed),
        command=found.final[0].command,
        results=place("comparison.json"),
        figures=tuple(place(f"figures/{name}") for name in pictures if name.endswith(".png")),
        mlflow=tracking_store.public_uri(paths) if config.compare.mlflow else None,
        trained=trained,
    )


def _row(result: Result) -> dict[str, Any]:
    """A line of runs.csv."""
    forgetting = result.forgetting
    return {
        **asdict(result.trial),
        "resolved": result.strategy,
        "auroc": result.auroc,
        "images": result.images,
        "passes": result.passes,
        "seconds": round(result.seconds, 3),
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "trained": result.trained,
        "parameters": result.parameters,
        "source_agreement": forgetting.agreement if forgetting else None,
        "source_divergence": forgetting.divergence if forgetting else None,
        "failed": result.failed,
    }


Names = Mapping[tuple[str, str], str]


def _names(found: Contest) -> dict[tuple[str, str], str]:
    """Of each source and strategy its label, without what `recommended` came to where that differs between sizes.

    In the order of the largest size; those that have none there come last.
    """
    names: dict[tuple[str, str], str] = {}
    for way in (*found.final, *found.ways):
        key = way.source, way.strategy
        same = names.get(key, way.label) == way.label
        names[key] = way.label if same else way.label.replace(f": {way.resolved}", "", 1)
    return names


def _points(ways: Sequence[Way], names: Names) -> list[Point]:
    return [Point(names[way.source, way.strategy], way.images, way.auroc, max(way.seconds, 1e-3)) for way in ways]


def _curves(found: Contest, names: Names) -> dict[str, list[Point]]:
    return {name: _points([way for way in found.ways if (way.source, way.strategy) == key], names) for key, name in names.items()}


def _forest(ways: Sequence[Way]) -> dict[str, list[Row]]:
    blocks = {
        "gain over the same network from scratch": [Row(way.label, way.over_scratch) for way in ways if way.over_scratch],
        "gain over the linear probe, or the cheapest": [Row(way.label, way.over_probe) for way in ways if way.over_probe],
        "against the best": [Row(way.label, way.behind.turned()) for way in ways[1:]],
    }
    return {heading: rows for heading, rows in blocks.items() if rows}


def _table(ways: Sequence[Way]) -> str:
    columns = ("strategy", "AUROC", "95% interval", "over scratch", "over probe", "behind", "images", "passes", "seconds", "kept")
    table = Table(*columns)
    for column in table.columns[1:]:
        column.justify = "right"
    for place, way in enumerate(ways):
        ends = "–" if way.auroc.low is None else f"{way.auroc.low:.3f}–{way.auroc.high:.3f}"
        behind = f"{_number(way.behind.value)}{' (tied)' if way.tied else ''}" if place else ""
        table.add_row(
            *(way.label, _number(way.auroc.value), ends, _gain(way.over_scratch), _gain(way.over_probe), behind),
            *(f"{way.images:,}", f"{way.passes:,.0f}", f"{way.seconds:.1f}"),
            "–" if way.agreement is None else f"{way.agreement:.0%}",
        )
    text = StringIO()
    Console(file=text, width=150, color_system=None).print(table)
    return f"{text.getvalue().rstrip()}\n{KEY}"


def _gain(difference: Interval | None) -> str:
    if difference is None or difference.value is None:
        return "–"
    return signed(difference.value) + ("*" if sign(difference) else "")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


class _Note(Silence):
    """Tells each epoch in a few words."""

    def __init__(self, tell: Any) -> None:
        self._tell = tell

    def epoch_ended(self, epoch: Epoch, *, best: bool) -> None:
        self._tell(f"epoch {epoch.epoch}")
