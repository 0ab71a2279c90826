"""From the results of trials to what is said of them: each way to transfer against scratch, the linear probe and the best."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from pipelines.config import CompareSection, TrainSection
from pipelines.errors import TrainingError
from pipelines.metrics.crossed import Crossed, crossed
from pipelines.metrics.intervals import Interval
from pipelines.metrics.verdicts import called, numbers, sign, verdict, way
from pipelines.training.drawing import Ground
from pipelines.training.trial import Result, Trial, changes

FEW_SEEDS = 3  # Student's t makes an interval of their mean 2 times as wide as with 5, and with 2 seeds 7 times
SAVING = 0.8  # of the best one's seconds: what takes longer saves nothing worth speaking of
GIVEN_UP = 0.1  # AUROC: where more may be lost, not to be told apart from the best says nothing
PROBE, SCRATCH = "feature_extraction", "scratch"  # strategies that the others are held against
FROM_SCRATCH = "training from scratch"


@dataclass(frozen=True)
class Way:
    """One source and strategy at one size, over all seeds; differences are in AUROC, and None where there is no such rival.

    Attributes:
        title: in words.
        label: short.
        source: BACKBONE@WEIGHTS.
        strategy: as it was asked for; `resolved` is what `recommended` came to, "a or b" where the seeds' draws differ in it.
        size: labelled images asked for; None for all of them, of which there are `images`.
        aurocs: of each seed.
        auroc: their mean, with its 95% interval over patients and seeds.
        over_scratch: the gain over training the same network from scratch.
        over_probe: the gain over the linear probe of the same source, or, where that is not compared, over its cheapest.
        behind: the best one minus this one.
        probe: which that is, by its label.
        passes: images through the backbone in one training, median over seeds; likewise `seconds`.
        unfinished: seeds whose best epoch was the last one that train.epochs allows.
        agreement: see `training.forgetting`; medians over seeds.
        settings: where those of its training differ from params.yaml, but for the seed; where draws differ in what
            `recommended` came to, that is left to be recommended.
    """

    title: str
    label: str
    source: str
    strategy: str
    resolved: str
    classifier: str | None
    size: int | None
    images: int
    aurocs: tuple[float, ...]
    auroc: Interval
    over_scratch: Interval | None
    over_probe: Interval | None
    behind: Interval
    probe: str | None
    passes: float
    seconds: float
    trained: int
    parameters: int
    unfinished: int
    agreement: float | None
    divergence: float | None
    unmeasured: str | None
    settings: Mapping[str, Any]

    @property
    def backbone(self) -> str:
        return self.source.rpartition("@")[0]

    @property
    def tied(self) -> bool:
        """Whether it cannot be told apart from the best."""
        return sign(self.behind) <= 0

    @property
    def command(self) -> str:
        """What trains a model in this way."""
        told = [f"--set {shlex.quote(f'{key}={_spelled(value)}')}" for key, value in self.settings.items()]
        return " ".join(["radtransfer train", *told])


@dataclass(frozen=True)
class Contest:
    """The ways to transfer, by size and then best first, what is said of those of the largest size, and what failed.

    Attributes:
        failed: why, by trials.
    """

    ways: tuple[Way, ...]
    verdicts: tuple[str, ...]
    failed: Mapping[str, str]

    @property
    def final(self) -> tuple[Way, ...]:
        """Those of the largest size, best first."""
        return tuple(way for way in self.ways if way.size == self.ways[-1].size)


def contest(results: Sequence[Result], ground: Ground, settings: CompareSection, told: TrainSection) -> Contest:
    """Compare what has a result for every seed; `told` is what params.yaml says, for the command that trains the best.

    Raises:
        TrainingError: nothing has, or nothing but training from scratch though more was asked for.
    """
    groups: dict[tuple[str, str, int | None], list[Result]] = {}
    for result in results:
        groups.setdefault((result.trial.source, result.trial.strategy, result.trial.size), []).append(result)
    whole = [group for group in groups.values() if not any(result.failed for result in group)]
    failed = _failed(group for group in groups.values() if any(result.failed for result in group))
    lost = any(result.failed and result.trial.strategy != SCRATCH for result in results)
    if not whole or (lost and all(result.strategy == SCRATCH for group in whole for result in group)):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        got = "only training from scratch" if whole else "none"
        raise TrainingError(f"compare: expected a way to transfer that can be trained here, got {got}: {reasons}")
    whole.sort(key=lambda group: (group[0].trial.size or np.inf, -_mean(group)))
    several = _several([group[0].trial for group in whole])
    found = _crossed(whole, ground, settings)
    ways = [_way(group, whole, found, told, several=several) for group in whole]
    known = Contest(tuple(ways), (), failed)
    return replace(known, verdicts=tuple(said(known.final, seeds=len(settings.seeds))))


def _several(trials: Sequence[Trial]) -> bool:
    """Whether a strategy alone does not say what is meant: there are several networks, or several weights of one."""
    sources = {trial.source for trial in trials if trial.strategy != SCRATCH}
    return max(len(sources), len({trial.backbone for trial in trials})) > 1


def _failed(groups: Iterable[Sequence[Result]]) -> dict[str, str]:
    """Why, by the trials that failed for the same reason."""
    reasons: dict[str, list[str]] = {}
    for group in groups:
        reasons.setdefault(next(result.failed for result in group if result.failed), []).append(_trials(group))
    return {", ".join(names): reason for reason, names in reasons.items()}


def said(ways: Sequence[Way], *, seeds: int) -> list[str]:
    """The verdicts on ways of one size, best first: the best, what transfer is worth, and each against the probe."""
    best, rest = ways[0], ways[1:]
    tied = [way.title for way in rest if way.tied]
    lines = [f"best: {best.title}" + (f"; not to be told apart from it: {', '.join(tied)}" if tied else "")]
    lines += _of_transfer([way for way in ways if way.over_scratch], several=len({way.backbone for way in ways}) > 1)
    lines += [_unfinished(way, seeds) for way in rest if way.strategy == SCRATCH and _may_gain(way, seeds)]
    titles = {way.label: way.title for way in ways}
    lines += [_verdict(way, way.over_probe, titles[way.probe]) for way in ways if way.probe]
    if cheaper := [way for way in rest if way.tied and _worth_it(way, best)]:
        cheapest = min(cheaper, key=lambda way: way.seconds)
        lines.append(
            f"cheapest that cannot be told apart from the best: {cheapest.title}, {_seconds(cheapest)} of training instead of "
            f"{_seconds(best)}, giving up {numbers(cheapest.behind).removeprefix('+')}"
        )
    if 1 < seeds <= FEW_SEEDS:
        lines.append(f"only {seeds} seeds: that alone makes these intervals wide; with 5 in compare.seeds they narrow quickly")
    if seeds == 1:
        lines.append("one seed: the luck of the seed is not in these intervals; name several in compare.seeds")
    return lines


def _of_transfer(transferred: Sequence[Way], *, several: bool) -> list[str]:
    """What transfer is worth: by the best way, and by those that it hurts; `several` networks are each named."""
    if not transferred:
        return []
    hurt = [way for way in transferred[1:] if way.over_scratch and sign(way.over_scratch) < 0]
    lines = [
        _verdict(way, way.over_scratch, f"training {way.backbone} from scratch" if several else FROM_SCRATCH, of_transfer=True)
        for way in (transferred[0], *hurt)
    ]
    if not any(sign(way.over_scratch) > 0 for way in transferred if way.over_scratch):
        rival = "training the same network from scratch" if several else FROM_SCRATCH
        lines.append(f"nothing here is shown to be better than {rival}")
    return lines


def _may_gain(scratch: Way, seeds: int) -> bool:
    """Whether more epochs may take from the gain over it: what starts from nothing learns for longer than what transfers."""
    return _by_chance(scratch) or 2 * scratch.unfinished >= seeds


def _by_chance(way: Way) -> bool:
    return way.auroc.low is not None and way.auroc.low <= 0.5


def _unfinished(scratch: Way, seeds: int) -> str:
    found = "is not told from chance"
    if not _by_chance(scratch):
        found = "was best at its last epoch" + (f" with {scratch.unfinished} of {seeds} seeds" if seeds > 1 else "")
    return f"{scratch.title} {found}: given more epochs (train.epochs) it may come closer, and transfer be worth less"


def _worth_it(way: Way, best: Way) -> bool:
    """Whether it saves time, and its interval says that not much is lost."""
    return way.seconds <= SAVING * best.seconds and way.behind.high is not None and way.behind.high <= GIVEN_UP


def _verdict(way: Way, difference: Interval | None, rival: str, *, of_transfer: bool = False) -> str:
    assert difference is not None
    return verdict(way.title, rival, difference, of_transfer=of_transfer)


def _crossed(whole: Sequence[Sequence[Result]], ground: Ground, settings: CompareSection) -> Crossed:
    labels = ground.judged.examples.labels[:, : len(ground.task.columns)]
    scores = {_trials(group): np.stack([result.scores for result in group if result.scores is not None]) for group in whole}
    sizes = {group[0].trial.size for group in whole}
    return crossed(
        labels,
        scores,
        ground.judged.rows["patient"].to_numpy(),
        rivals=[[_trials(group) for group in whole if group[0].trial.size == size] for size in sizes],
        resamples=settings.bootstrap,
        seed=settings.seed,
    )


def _way(group: Sequence[Result], whole: Sequence[Sequence[Result]], found: Crossed, told: TrainSection, *, several: bool) -> Way:
    first, name = group[0], _trials(group)
    peers = [other for other in whole if other[0].trial.size == first.trial.size]
    scratch = _scratch(group, peers)
    probe = _probe(group, peers)
    forgotten = [result.forgetting for result in group if result.forgetting and result.forgetting.agreement is not None]
    return Way(
        title=_title(group, several=several),
        label=_label(group, several=several),
        source=first.trial.source,
        strategy=first.trial.strategy,
        resolved=" or ".join(_came_to(group)),
        classifier=first.classifier,
        size=first.trial.size,
        images=int(median(result.images for result in group)),
        aurocs=tuple(float(result.auroc or 0.0) for result in group),
        auroc=found.aurocs[name],
        over_scratch=found.difference(name, _trials(scratch)) if scratch else None,
        over_probe=found.difference(name, _trials(probe)) if probe else None,
        behind=Interval(0.0, 0.0, 0.0) if group is peers[0] else found.difference(_trials(peers[0]), name),
        probe=_label(probe, several=several) if probe else None,
        passes=median(result.passes for result in group),
        seconds=median(result.seconds for result in group),
        trained=first.trained,
        parameters=first.parameters,
        unfinished=sum(result.best_epoch == (result.settings or {}).get("epochs") for result in group),
        agreement=median(each.agreement or 0.0 for each in forgotten) if forgotten else None,
        divergence=median(each.divergence or 0.0 for each in forgotten) if forgotten else None,
        unmeasured=first.forgetting.unmeasured if first.forgetting else None,
        settings=_settings(group, told),
    )


def _settings(group: Sequence[Result], told: TrainSection) -> dict[str, Any]:
    first, *others = (changes(told, result.settings or {}) for result in group)
    if len(_came_to(group)) == 1:
        return first
    shared = {key: value for key, value in first.items() if all(key in own and own[key] == value for own in others)}
    asked = group[0].trial.strategy
    return shared if asked == told.strategy.name else {"train.strategy.name": asked, **shared}


def _scratch(group: Sequence[Result], peers: Sequence[Sequence[Result]]) -> Sequence[Result] | None:
    """The same network without transfer."""
    own = group[0]
    return next(
        (
            other
            for other in peers
            if other[0].strategy == SCRATCH and own.strategy != SCRATCH and other[0].trial.backbone == own.trial.backbone
        ),
        None,
    )


def _probe(group: Sequence[Result], peers: Sequence[Sequence[Result]]) -> Sequence[Result] | None:
    """The linear probe of the same source, or else the cheapest of it; None for itself and from scratch."""
    own = group[0]
    same = [other for other in peers if other[0].trial.source == own.trial.source and own.strategy != SCRATCH]
    probes = [other for other in same if other[0].trial.strategy == PROBE]
    chosen = min(probes or same, key=lambda other: median(result.passes for result in other), default=None)
    return None if chosen is None or chosen is group else chosen


def _mean(group: Sequence[Result]) -> float:
    return float(np.mean([result.auroc for result in group]))


def _trials(group: Sequence[Result]) -> str:
    return group[0].trial.name.rpartition(" seed ")[0]


def _title(group: Sequence[Result], *, several: bool) -> str:
    trial = group[0].trial
    return way(trial.strategy, _came_to(group), trial.source if several else None)


def _label(group: Sequence[Result], *, several: bool) -> str:
    trial = group[0].trial
    return called(trial.strategy, _came_to(group), trial.source if several else None)


def _came_to(group: Sequence[Result]) -> dict[str, str | None]:
    """The strategies that were taken, each with its classifier; `recommended` goes by the images of each draw."""
    return {result.strategy: result.classifier for result in group}


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _seconds(way: Way) -> str:
    return f"{way.seconds:.1f} s" if way.seconds < 10 else f"{way.seconds:,.0f} s"
