"""rank: which network and weights suit the task, by one pass over the training images of each and no training at all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Table

from pipelines import __version__, console, files
from pipelines.config import Config, RankSection
from pipelines.errors import ConfigurationError, RadtransferError, TrainingError
from pipelines.imaging.store import ArrayStore
from pipelines.metrics import embedding
from pipelines.metrics.standings import standings
from pipelines.models import backbones, passports, starting
from pipelines.models.device import choose_device
from pipelines.models.passports import Found
from pipelines.models.source_head import source_head
from pipelines.models.starting import Start
from pipelines.paths import Paths, weights_folder
from pipelines.records import Task
from pipelines.training.assembly import with_target
from pipelines.training.batches import Examples
from pipelines.training.checkpoint import Checkpoint, fingerprint
from pipelines.training.learn import place
from pipelines.training.listener import Silence
from pipelines.training.material import extract
from pipelines.transfer import probes, ranking
from pipelines.transfer.transferability import SCORES

PROBE, NEIGHBOURS = ranking.PROBES
CHANCE = 0.5  # AUROC
KEY = "params.yaml rank.candidates"
SEVERAL = "its source's classifier says several things of an image at once, and LEEP reads one that decides between classes"


@dataclass(frozen=True)
class Place:
    """How one candidate came out; AUROCs are means over the outputs, on patients whom the probe has not seen.

    Attributes:
        candidate: BACKBONE@WEIGHTS.
        width: its features.
        probe: AUROC of a linear probe, with its 95% interval over patients.
        neighbours: AUROC of nearest neighbours, likewise.
        behind: the best candidate's probe minus this one's, on the same patients.
        tied: whether the interval of that difference holds 0.
        scores: transferability scores, higher is better; None where undefined. They compare candidates, no more.
        unscored: scores that this candidate cannot have, with the reason.
        seconds: of the pass over the images (0 if its features were kept from before), and of the probes and scores.
    """

    candidate: str
    width: int
    probe: dict[str, float | None]
    neighbours: dict[str, float | None]
    behind: dict[str, float | None]
    tied: bool
    scores: dict[str, float | None]
    unscored: dict[str, str]
    seconds: tuple[float, float]


@dataclass(frozen=True)
class RankSummary:
    """The candidates, best first.

    Attributes:
        recommended: the candidate whose linear probe is best.
        skipped: candidates that could not be looked at, with the reason.
        result: the file of all figures, relative to the workspace; likewise `features`.
        tasks_left_out: those beside the main one, by which alone candidates are ranked.
    """

    images: int
    patients: int
    places: tuple[Place, ...]
    recommended: str
    skipped: dict[str, str]
    result: str
    features: str
    tasks_left_out: tuple[str, ...] = ()

    def describe(self) -> str:
        ties = [place.candidate for place in self.places[1:] if place.tied]
        tied = f"; not to be told apart from it: {escape(', '.join(ties))}" if ties else ""
        left = "".join(f"\nleft out {escape(name)}: {escape(reason)}" for name, reason in self.skipped.items())
        left += "".join(
            f"\nno {score} for {escape(place.candidate)}: {reason}"
            for place in self.places
            for score, reason in place.unscored.items()
        )
        if self.tasks_left_out:
            left += f"\nranked by the main task alone, not by {escape(', '.join(self.tasks_left_out))}"
        blind = (self.places[0].probe["low"] or 0) <= CHANCE
        doubt = "\n[yellow]not even its features surely tell the label[/yellow]: trained whole, a network may" if blind else ""
        return (
            f"AUROC on held-out patients, {self.images:,} training images of {self.patients:,} patients, no network trained\n"
            f"{escape(_table(self.places))}{left}\n"
            f"best: [bold]{escape(self.recommended)}[/bold]{tied}{doubt}\n"
            f"to train it: [bold]radtransfer train {escape(_settings(self.recommended))}[/bold]\n"
            f"the features are drawn in {escape(self.features)}"
        )


@dataclass(frozen=True)
class _Seen:
    """What one candidate's features are and came to."""

    features: NDArray[np.float64]
    ranked: ranking.Ranked
    unscored: dict[str, str]
    seconds: tuple[float, float]


def run(config: Config, paths: Paths) -> RankSummary:
    """Compare `config.rank.candidates` on the train part, and write artifacts/ranking.

    Validation and test patients are not looked at, so that a choice made here leaves them honest.

    Raises:
        ConfigurationError: a candidate does not exist, or cannot take the size of the prepared images.
        MissingInputError: prepare, split or ingest has not run.
        WeightsError: the weights of a candidate that was named are missing, or do not fit.
        TrainingError: no candidate's weights are here, or a class has too few patients to hold some out.
    """
    declared, settings = config.task.declared(), config.rank
    task = declared.main
    rows, examples = _train_part(config, paths, task)
    seen: dict[str, _Seen] = {}
    skipped: dict[str, str] = {}
    with console.progress() as progress:
        for candidate in settings.candidates or _here(config):
            try:
                seen[candidate] = _look(candidate, task, rows, examples, settings, paths, progress)
            except RadtransferError as error:
                if settings.candidates:
                    raise
                skipped[candidate] = str(error)
    places = _places(seen, task, rows, examples, settings)
    ordered = {place.candidate: seen[place.candidate].features for place in places}
    for name, content in embedding.draw(ordered, task, examples.labels).items():
        files.write_bytes(paths.ranking / name, content)
    result, features = paths.ranking / "ranking.json", paths.ranking / "features.png"
    summary = RankSummary(
        images=len(rows),
        patients=rows["patient"].nunique(),
        places=places,
        recommended=places[0].candidate,
        skipped=skipped,
        tasks_left_out=tuple(head.title for head in declared.also),
        result=result.relative_to(paths.workspace).as_posix(),
        features=features.relative_to(paths.workspace).as_posix(),
    )
    files.write_json(result, asdict(summary))
    return summary


def _train_part(config: Config, paths: Paths, task: Task) -> tuple[pd.DataFrame, Examples]:
    """Labelled images of the train part, of whole patients drawn at random up to `max_images`; none of a hospital to adapt to."""
    settings = config.rank
    part, _, _ = with_target(config.train, paths, task, ArrayStore(paths.prepared))
    known: NDArray[np.bool_] = np.any(~np.isnan(part.examples.labels), axis=1)
    counts = part.rows.loc[known, "patient"].value_counts()
    fitting = counts[counts <= settings.max_images]
    if fitting.empty:
        got = f"at least {counts.min()} of every patient; raise rank.max_images" if len(counts) else "none; add labels"
        raise TrainingError(
            f"rank: expected labelled images in the train part, at most {settings.max_images}, of whole patients, got {got}"
        )
    order = np.random.default_rng(settings.seed).permutation(sorted(fitting.index))
    images = fitting.loc[order].cumsum()
    chosen = images.index[images <= settings.max_images]
    drawn = part.rows["patient"].isin(chosen).to_numpy() & known
    return part.rows[drawn].reset_index(drop=True), part.examples.take(np.flatnonzero(drawn))


def _here(config: Config) -> tuple[str, ...]:
    """Every passport whose file is in the weights folder, and the configured network without any, to compare with."""
    folder = weights_folder()
    known = [*passports.PASSPORTS, *passports.beside(folder, "")]
    there = [f"{passport.backbone}@{passport.name}" for passport in known if (folder / passport.file).is_file()]
    return tuple(dict.fromkeys([*there, f"{config.train.backbone}@{starting.SCRATCH}"]))


def _parsed(candidate: str) -> tuple[str, str]:
    backbone, _, weights = candidate.rpartition("@")
    if not backbone or not weights:
        raise ConfigurationError(f"{KEY}: expected BACKBONE@WEIGHTS, got {candidate!r}")
    return backbone, weights


def _settings(candidate: str) -> str:
    """What to tell `radtransfer train`, so that it starts from this candidate."""
    backbone, weights = _parsed(candidate)
    source = "strategy.name=scratch" if weights == starting.SCRATCH else f"weights={weights}"
    return f"--set train.backbone={backbone} --set train.{source}"


def _look(
    candidate: str,
    task: Task,
    rows: pd.DataFrame,
    examples: Examples,
    settings: RankSection,
    paths: Paths,
    progress: Progress,
) -> _Seen:
    """One pass over the images, kept for the next call, then probes and scores."""
    backbone, weights = _parsed(candidate)
    backbones.check_size(backbone, ArrayStore(paths.prepared).size, KEY)
    start = starting.start(backbone, weights, outputs=len(task.outputs), dropout=0.0, seed=settings.seed, key=KEY)
    network = place(start.network, choose_device(settings.device))
    folder = paths.ranking / "features" / "".join(letter if letter.isalnum() or letter in "-_.@" else "-" for letter in candidate)
    kept = Checkpoint(folder, _identity(candidate, start, rows, paths, settings))
    (material,), speed = extract(network, (examples,), settings.batch_size, Display(progress, candidate), kept)
    began = time.perf_counter()
    features = material.features.cpu().double().numpy()
    exclusive = task.kind == "multiclass"
    known = probes.Examples(features, examples.labels.astype(np.float64), examples.grouped(), exclusive)
    found = Found(start.passport, weights_folder() / start.passport.file) if start.passport else None
    several = found is not None and found.passport.multi_label
    ranked = ranking.judge(known, source_head(found, network.width) if found and not several else None)
    return _Seen(
        features, ranked, {"leep": SEVERAL} if several else {}, (len(rows) / speed if speed else 0.0, time.perf_counter() - began)
    )


def _identity(candidate: str, start: Start, rows: pd.DataFrame, paths: Paths, settings: RankSection) -> str:
    """What decides the features."""
    facts = {
        "versions": {"radtransfer": __version__, "torch": torch.__version__},
        "candidate": candidate,
        "weights": start.report.sha256 if start.report else settings.seed,
        "recipe": files.read_json(paths.prepared / "recipe.json", made_by="prepare"),
        "images": rows["image"].tolist(),
        "index": files.sha256(paths.index),
    }
    return fingerprint(facts)


def _places(
    seen: Mapping[str, _Seen], task: Task, rows: pd.DataFrame, examples: Examples, settings: RankSection
) -> tuple[Place, ...]:
    """Best linear probe first."""
    if not seen:
        raise TrainingError("rank: expected a candidate whose weights are here, got none; set rank.candidates")
    patients, labels = rows["patient"].to_numpy(), examples.labels
    probed, near = (
        standings(
            *(labels, {name: each.ranked.held_out[kind] for name, each in seen.items()}, patients),
            outputs=task.outputs,
            resamples=settings.bootstrap,
            seed=settings.seed,
        )
        for kind in (PROBE, NEIGHBOURS)
    )
    if probed[0].auroc.value is None:
        raise TrainingError(
            "rank: expected at least two patients with, and two without, each finding in the train part, so that some can be "
            "held out; add labelled images, or change split.seed"
        )
    neighbours = {standing.name: standing.auroc.to_dict() for standing in near}
    return tuple(
        Place(
            candidate=standing.name,
            width=seen[standing.name].features.shape[1],
            probe=standing.auroc.to_dict(),
            neighbours=neighbours[standing.name],
            behind=standing.behind.to_dict(),
            tied=standing.tied,
            scores=dict(seen[standing.name].ranked.scores),
            unscored=seen[standing.name].unscored,
            seconds=seen[standing.name].seconds,
        )
        for standing in probed
    )


def _table(places: Sequence[Place]) -> str:
    names = [*SCORES, *(["leep"] if any("leep" in place.scores for place in places) else [])]
    table = Table("network@weights", "linear probe", "95% interval", "behind", "kNN", *names, "seconds")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in places:
        ends = "–" if row.probe["low"] is None else f"{row.probe['low']:.3f}–{row.probe['high']:.3f}"
        behind = _number(row.behind["value"]) + (" (tied)" if row.tied else "") if row is not places[0] else ""
        figures = (_number(row.scores.get(name)) for name in names)
        near = _number(row.neighbours["value"])
        table.add_row(*(row.candidate, _number(row.probe["value"]), ends, behind, near, *figures, f"{sum(row.seconds):.0f}"))
    text = StringIO()
    Console(file=text, width=140, color_system=None).print(table)
    return text.getvalue().rstrip()


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


class Display(Silence):
    """A progress bar of one candidate's pass over the images."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name
        self._task: TaskID | None = None

    def extracting(self, done: int, total: int) -> None:
        if self._task is None:
            self._task = self._progress.add_task(escape(self._name), total=total, note="")
        self._progress.update(self._task, completed=done)
