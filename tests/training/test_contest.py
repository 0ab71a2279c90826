"""What is said of ways to transfer, by what their intervals are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.config import StrategySection, TrainSection
from pipelines.metrics.intervals import Interval
from pipelines.training.contest import Way, _label, _settings, _several, said
from pipelines.training.trial import Result, Trial

NOTHING = Interval(0.0, 0.0, 0.0)
NOT_SHOWN = "nothing here is shown to be better than training from scratch"


def around(value: float, half: float = 0.02) -> Interval:
    return Interval(value, value - half, value + half)


def a_way(
    name: str,
    title: str,
    *,
    scratch: float | None,
    probe: float | None,
    behind: float,
    seconds: float = 10,
    source: str = "net@weights",
    unfinished: int = 0,
) -> Way:
    return Way(
        title=title,
        label=name,
        source=source,
        strategy=name,
        resolved=name,
        classifier=None,
        size=None,
        images=100,
        aurocs=(0.8,),
        auroc=around(0.8),
        over_scratch=None if scratch is None else around(scratch),
        over_probe=None if probe is None else around(probe),
        behind=around(behind) if behind else NOTHING,
        probe=None if probe is None else "probe",
        passes=100,
        seconds=seconds,
        trained=1,
        parameters=2,
        unfinished=unfinished,
        agreement=None,
        divergence=None,
        unmeasured=None,
        settings={"train.strategy.name": name, "train.strategy.rates": {"stem": 0.0}, "train.strategy.learning_rate": None},
    )


def the_ways(full: float, probe: float, scratch: float) -> list[Way]:
    """Their AUROCs; a difference beyond 0.02 is sure."""
    best = max(full, probe, scratch)
    ways = {
        full: a_way("full", "all layers", scratch=full - scratch, probe=full - probe, behind=best - full, seconds=60),
        probe: a_way("probe", "a probe", scratch=probe - scratch, probe=None, behind=best - probe, seconds=2),
        scratch: a_way("scratch", "from scratch", scratch=None, probe=None, behind=best - scratch, seconds=50),
    }
    return [ways[auroc] for auroc in sorted(ways, reverse=True)]


@pytest.mark.parametrize(
    ("aurocs", "lines", "not_said"),
    [
        (
            (0.95, 0.90, 0.80),
            [
                "best: all layers",
                "transfer helps: all layers is better than training from scratch here: +0.150",
                "all layers is better than a probe here: +0.050",
            ],
            ["hurts", "nothing here is shown", "cheapest", "not to be told apart"],
        ),
        (
            (0.80, 0.90, 0.85),
            [
                "best: a probe",
                "transfer helps: a probe is better than training from scratch here: +0.050",
                "transfer hurts: all layers is worse than training from scratch here: −0.050",
                "all layers is worse than a probe here: −0.100",
            ],
            ["nothing here is shown"],
        ),
        (
            (0.80, 0.81, 0.90),
            ["best: from scratch", "transfer hurts: a probe", "transfer hurts: all layers", NOT_SHOWN],
            ["transfer helps"],
        ),
        (
            (0.905, 0.90, 0.899),
            [
                "best: all layers; not to be told apart from it: a probe, from scratch",
                "all layers cannot be told apart from training from scratch",
                NOT_SHOWN,
                "cheapest that cannot be told apart from the best: a probe, 2.0 s of training instead of 60 s, giving up 0.005 "
                "AUROC [−0.015, +0.025]",
            ],
            ["helps", "hurts"],
        ),
    ],
    ids=["transfer helps", "one way hurts", "every way hurts", "nothing is told apart"],
)
def test_the_verdicts_follow_from_the_intervals(
    aurocs: tuple[float, float, float], lines: list[str], not_said: list[str]
) -> None:
    verdicts = said(the_ways(*aurocs), seeds=3)
    for line in lines:
        assert any(verdict.startswith(line) for verdict in verdicts), (line, verdicts)
    assert not [words for words in not_said if words in "\n".join(verdicts)]
    assert not any("one seed" in verdict for verdict in verdicts)


@pytest.mark.parametrize(
    ("seconds", "behind", "advised"),
    [
        (48, Interval(0.01, -0.03, 0.05), True),
        (49, Interval(0.01, -0.03, 0.05), False),
        (2, Interval(0.01, -0.08, 0.1), True),
        (2, Interval(0.176, -1.0, 1.0), False),
        (2, Interval(0.01, None, None), False),
        (2, Interval(0.05, 0.01, 0.09), False),
    ],
    ids=["a fifth saved", "less saved", "little lost", "much may be lost", "nothing known", "worse"],
)
def test_a_cheaper_way_is_advised_where_it_saves_time_and_surely_loses_little(
    seconds: float, behind: Interval, advised: bool
) -> None:
    best = a_way("full", "all layers", scratch=None, probe=None, behind=0, seconds=60)
    other = replace(a_way("probe", "a probe", scratch=None, probe=None, behind=0, seconds=seconds), behind=behind)
    assert any(line.startswith("cheapest that cannot be told apart") for line in said([best, other], seeds=5)) == advised


def test_the_cheapest_is_looked_for_among_those_that_surely_lose_little() -> None:
    best = a_way("full", "all layers", scratch=None, probe=None, behind=0, seconds=60)
    vague = replace(a_way("vague", "a guess", scratch=None, probe=None, behind=0, seconds=1), behind=Interval(0.2, -1.0, 1.0))
    sure = a_way("probe", "a probe", scratch=None, probe=None, behind=0.01, seconds=2)
    (advice,) = [line for line in said([best, sure, vague], seeds=5) if line.startswith("cheapest")]
    assert ": a probe, 2.0 s of training instead of 60 s, giving up 0.010 AUROC [−0.010, +0.030]" in advice


@pytest.mark.parametrize(
    ("sources", "several"),
    [
        ({"full": "a@one", "scratch": "a@scratch"}, False),
        ({"full": "a@one", "lp_ft": "a@two"}, True),
        ({"full": "a@one", "scratch": "b@scratch"}, True),
    ],
)
def test_sources_are_named_where_there_are_several_networks_or_several_weights(sources: dict[str, str], several: bool) -> None:
    assert _several([Trial(source, strategy, None, 1) for strategy, source in sources.items()]) == several


def test_of_several_networks_it_is_said_which_one_was_trained_from_scratch() -> None:
    ways = [
        a_way("full", "all layers", scratch=0.1, probe=None, behind=0, source="net@weights"),
        a_way("scratch", "from scratch", scratch=None, probe=None, behind=0.1, source="net@scratch"),
        a_way("other", "other layers", scratch=-0.1, probe=None, behind=0.2, source="other@weights"),
    ]
    verdicts = said(ways, seeds=5)
    assert "transfer helps: all layers is better than training net from scratch here: +0.100 AUROC [+0.080, +0.120]" in verdicts
    assert any(line.startswith("transfer hurts: other layers is worse than training other from scratch") for line in verdicts)
    unsure = [replace(way, over_scratch=around(0)) if way.over_scratch else way for way in ways]
    assert "nothing here is shown to be better than training the same network from scratch" in said(unsure, seeds=5)


@pytest.mark.parametrize(("seeds", "warned"), [(2, True), (3, True), (4, False), (5, False)])
def test_few_seeds_are_said_to_widen_the_intervals(seeds: int, warned: bool) -> None:
    assert said(the_ways(0.9, 0.8, 0.7), seeds=seeds)[-1].startswith(f"only {seeds} seeds: ") == warned


def test_one_seed_is_warned_of() -> None:
    assert said(the_ways(0.9, 0.8, 0.7), seeds=1)[-1].startswith("one seed: the luck of the seed is not in these intervals")


@pytest.mark.parametrize(
    ("seeds", "unfinished", "behind", "told"),
    [
        (5, 3, 0.2, "from scratch was best at its last epoch with 3 of 5 seeds: "),
        (1, 1, 0.2, "from scratch was best at its last epoch: "),
        (5, 2, 0.2, None),
        (5, 5, 0, None),
    ],
    ids=["most seeds", "the only seed", "few seeds", "it is the best anyway"],
)
def test_scratch_that_was_still_learning_is_said_to_flatter_transfer(
    seeds: int, unfinished: int, behind: float, told: str | None
) -> None:
    scratch = a_way("scratch", "from scratch", scratch=None, probe=None, behind=behind, unfinished=unfinished)
    full = a_way("full", "all layers", scratch=0.2, probe=None, behind=0.0 if behind else 0.2, unfinished=seeds)
    lines = [line for line in said([full, scratch] if behind else [scratch, full], seeds=seeds) if "last epoch" in line]
    assert (len(lines), [told]) == (1, [line[: len(told)] for line in lines]) if told else not lines


def test_scratch_that_learnt_nothing_is_said_to_flatter_transfer() -> None:
    *others, scratch = the_ways(0.95, 0.9, 0.5)
    chance = replace(scratch, auroc=Interval(0.51, 0.47, 0.55))
    assert not any("more epochs" in line for line in said([*others, scratch], seeds=5))
    (line,) = [line for line in said([*others, chance], seeds=5) if "more epochs" in line]
    assert line.startswith("from scratch is not told from chance: given more epochs (train.epochs) it may come closer")
    too_few = replace(scratch, auroc=Interval(0.95, None, None))  # patients, which epochs do not add to
    assert not any("more epochs" in line for line in said([*others, too_few], seeds=5))


def test_where_nothing_starts_from_scratch_its_gain_is_not_spoken_of() -> None:
    alone = [a_way("full", "all layers", scratch=None, probe=0.05, behind=0), a_way("probe", "a probe", scratch=None, probe=None,
             behind=0.05)]  # fmt: skip
    assert not any("scratch" in verdict for verdict in said(alone, seeds=3))


def test_everything_that_recommended_came_to_is_named() -> None:
    """A draw may have enough patients of each class for one strategy, and that of another seed for another only."""
    drawn = [("last_groups", 1), ("differential", 2), ("last_groups", 3)]
    group = [Result(Trial("net@weights", "recommended", 16, seed), "", strategy=strategy) for strategy, seed in drawn]
    assert _label(group, several=True) == "recommended: last_groups or differential, net@weights"


def test_where_draws_differ_in_what_is_recommended_the_command_leaves_it_to_be_recommended() -> None:
    told = TrainSection(strategy=StrategySection(name="full", learning_rate=0.5))
    groups = [{"name": "last_groups", "groups": 1}, {"name": "differential"}]
    taken = [
        told.model_copy(update={"seed": seed, "strategy": StrategySection(**strategy)}) for seed, strategy in enumerate(groups)
    ]
    both = [
        Result(
            Trial("net@weights", "recommended", 16, seed), "", strategy=each.strategy.name, settings=each.model_dump(mode="json")
        )
        for seed, each in enumerate(taken)
    ]
    unset = {"train.strategy.learning_rate": None}
    assert _settings(both, told) == {"train.strategy.name": "recommended", **unset}
    assert _settings(both[:1], told) == {"train.strategy.name": "last_groups", "train.strategy.groups": 1, **unset}
    recommended = told.model_copy(update={"strategy": StrategySection(name="recommended")})
    assert _settings(both, recommended) == {}


def test_the_command_can_be_typed() -> None:
    command = a_way("full", "all layers", scratch=None, probe=None, behind=0).command
    assert command == (
        "radtransfer train --set train.strategy.name=full --set 'train.strategy.rates={\"stem\": 0.0}' "
        "--set train.strategy.learning_rate=null"
    )
