"""What is recommended is what was measured: among the winners of the label-efficiency benchmark, and said with its reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.config import StrategySection
from pipelines.transfer.checks import check_settings
from pipelines.transfer.recommendation import RULES, Fingerprint, fingerprint, recommend

NAN = float("nan")


def section(**changes: object) -> StrategySection:
    return StrategySection.model_validate({"name": "recommended", **changes})


def test_the_fingerprint_counts_labelled_images_and_the_patients_of_the_rarest_class() -> None:
    labels = np.array([[1, 0], [1, NAN], [0, 1], [0, 0], [0, 1], [NAN, NAN]], np.float32)
    found = fingerprint(labels, np.array([0, 0, 1, 2, 3, 4]), pretrained=True)
    assert found == Fingerprint(images=5, patients=4, fewest=1, pretrained=True)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.pretrained}-{rule.least}")
def test_every_rule_recommends_what_the_table_of_strategies_takes(rule: object) -> None:
    answer = recommend(section(), Fingerprint(100, 90, rule.least, rule.pretrained))  # type: ignore[attr-defined]
    check_settings(answer.settings)


@pytest.mark.parametrize("fewest", [0, 1, 3, 4, 200])
@pytest.mark.parametrize("pretrained", [True, False])
def test_there_is_a_recommendation_for_every_size(fewest: int, pretrained: bool) -> None:
    answer = recommend(section(), Fingerprint(2 * fewest, 2 * fewest, fewest, pretrained))
    assert (answer.settings.name == "scratch") != pretrained


def test_few_labels_call_for_fewer_groups() -> None:
    few, more = (recommend(section(), Fingerprint(100, 90, fewest, True)).settings for fewest in (3, 4))
    assert (few.name, few.groups) == ("last_groups", 1)
    assert (more.name, more.groups) == ("differential", None)


def test_the_line_says_what_for_which_data_and_why() -> None:
    line = recommend(section(), Fingerprint(40, 30, 12, True)).line
    assert line.startswith("recommended: differential")
    assert "40 labelled images of 30 patients, 12 in the rarest class, weights to start from: " in line
    assert "than were measured" not in line
    more = recommend(section(), Fingerprint(401, 300, 120, True)).line
    assert "more images than were measured, and radtransfer compare says what is best here" in more


def test_what_is_set_besides_the_name_stays() -> None:
    answer = recommend(section(learning_rate=0.01, decay=0.5, warmup_epochs=2), Fingerprint(40, 30, 12, True))
    assert (answer.settings.learning_rate, answer.settings.decay, answer.settings.warmup_epochs) == (0.01, 0.5, 2)


def test_it_is_among_the_winners_of_every_size_that_was_measured(repository: Path) -> None:
    """Over the same draws no strategy is better than what it comes to, by a difference whose 95% interval is above 0."""
    from scipy import stats

    table = pd.read_csv(repository / "benchmarks" / "label_efficiency.csv")
    assert not table.duplicated(["task", "method", "size", "seed"]).any()
    wide = table.pivot_table(index=["task", "size", "seed", "fewest"], columns="method", values="auroc")
    taken = [recommend(section(), Fingerprint(size, size, fewest, True)).settings.name for _, size, _, fewest in wide.index]
    own = pd.Series([wide.loc[draw, name] for draw, name in zip(wide.index, taken, strict=True)], wide.index)
    compared = 0
    for (task, size), rows in wide.groupby(level=["task", "size"]):
        assert rows.index.get_level_values("seed").nunique() == 5 or size == 8
        assert own[rows.index].notna().all(), f"what is recommended at {size} images of {task} was not measured on every draw"
        for other in wide.columns:
            gains = (rows[other] - own[rows.index]).dropna()
            if len(gains) > 2:  # two say too little: they may differ by nothing
                half = stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))
                assert gains.mean() - half <= 0, f"{other} beats what is recommended at {size} images of {task}"
                compared += 1
    assert compared > 80


def test_options_that_are_set_are_neither_overruled_nor_misreported() -> None:
    answer = recommend(section(groups=3), Fingerprint(12, 12, 3, True))
    assert (answer.settings.name, answer.settings.groups) == ("last_groups", 3)
    assert answer.line.startswith("recommended: last_groups for ")
