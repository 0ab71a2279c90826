"""Words claim a difference only where the interval does."""

from __future__ import annotations

import pytest

from pipelines.config import StrategySection
from pipelines.metrics.intervals import Interval
from pipelines.metrics.verdicts import sign, verdict, way
from pipelines.transfer.table import STRATEGIES

FULL, PROBE = "fine-tuning all layers (full)", "a linear probe (feature_extraction)"


@pytest.mark.parametrize(
    ("difference", "of_transfer", "words"),
    [
        (Interval(-0.021, -0.039, -0.004), False, f"{FULL} is worse than {PROBE} here: −0.021 AUROC [−0.039, −0.004]"),
        (Interval(0.021, 0.004, 0.039), False, f"{FULL} is better than {PROBE} here: +0.021 AUROC [+0.004, +0.039]"),
        (Interval(0.021, -0.004, 0.046), False, f"{FULL} cannot be told apart from {PROBE}: +0.021 AUROC [−0.004, +0.046]"),
        (Interval(0.0, 0.0, 0.0), False, f"{FULL} cannot be told apart from {PROBE}: 0.000 AUROC [0.000, 0.000]"),
        (Interval(0.1, 0.05, 0.15), True, f"transfer helps: {FULL} is better than {PROBE} here: +0.100 AUROC [+0.050, +0.150]"),
        (Interval(-0.1, -0.2, -0.1), True, f"transfer hurts: {FULL} is worse than {PROBE} here: −0.100 AUROC [−0.200, −0.100]"),
        (Interval(0.1, -0.1, 0.2), True, f"{FULL} cannot be told apart from {PROBE}: +0.100 AUROC [−0.100, +0.200]"),
        (
            Interval(0.1, None, None),
            False,
            f"{FULL} cannot be told apart from {PROBE}: +0.100 AUROC, too few patients for an interval",
        ),
        (Interval(None, None, None), False, f"{FULL} against {PROBE}: undefined, since a class is missing"),
    ],
)
def test_the_verdict_says_what_the_interval_says(difference: Interval, of_transfer: bool, words: str) -> None:
    assert verdict(FULL, PROBE, difference, of_transfer=of_transfer) == words


@pytest.mark.parametrize(("low", "high", "expected"), [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0.0, 0.1, 0)])
def test_a_difference_is_sure_where_its_interval_does_not_reach_nothing(low: float, high: float, expected: int) -> None:
    assert sign(Interval((low + high) / 2, low, high)) == expected


@pytest.mark.parametrize(
    ("asked", "came_to", "source", "words"),
    [
        ("full", {"full": None}, None, "fine-tuning all layers (full)"),
        ("feature_extraction", {"feature_extraction": "knn"}, None, "nearest neighbours on cached features (feature_extraction)"),
        (
            "recommended",
            {"differential": None},
            "resnet18@imagenet",
            "fine-tuning all layers at decaying rates (recommended: differential, resnet18@imagenet)",
        ),
        (
            "recommended",
            {"last_groups": None, "scratch": None},
            None,
            "fine-tuning the last layers or training from scratch (recommended: last_groups or scratch)",
        ),
    ],
)
def test_a_way_to_transfer_has_words_and_its_name(
    asked: str, came_to: dict[str, str | None], source: str | None, words: str
) -> None:
    assert way(asked, came_to, source) == words


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_has_words(name: str) -> None:
    settings = StrategySection.model_validate({"name": name})
    assert f"({name})" in way(name, {name: settings.classifier or STRATEGIES[name].classifier}, None)
