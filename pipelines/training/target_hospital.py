"""Whose images are the target of a domain adaptation: which are learnt from, and which are only looked at to judge.

No label of the target is learnt from, and nothing at all is learnt from a patient of the validation or test part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.config import AdaptationSection
from pipelines.errors import ConfigurationError, TrainingError
from pipelines.quality.partition import groups

HELD_OUT = 0.2  # of the target's patients that are in no part of the split, to judge on
FEWEST = 8  # images of the target that a statistic of them takes


@dataclass(frozen=True)
class Choice:
    """The rows of the index that are the target, each with `part` (None in no part of the split), sorted by image.

    Attributes:
        learnt: looked at in training, without their labels.
        held_out: for the judgement whether adaptation helped; their labels, where there are some, only for that.
        tested: how many others belong to patients of the test part, and are not looked at.
        images: every image of the target, wherever it is: none of them counts as one of the source.
    """

    learnt: pd.DataFrame
    held_out: pd.DataFrame
    tested: int
    images: set[str]


def choose(section: AdaptationSection, index: pd.DataFrame, split: pd.DataFrame, seed: int) -> Choice:
    """Find the target: the prepared images of `sites`, or, where none is named, those in no part of the split.

    Patients who share a study or an identical image go together, as in the split. Held out are those of the validation part,
    and a fifth of the patients who are in no part.

    Args:
        section: `train.adaptation`.
        index: of the prepared images.
        split: which image is in which part.
        seed: of the choice among patients in no part.

    Raises:
        ConfigurationError: there is no such site, or no other site with labels.
        TrainingError: there are too few images to learn from.
    """
    rows = index[index["shard"] >= 0].sort_values("image", ignore_index=True)
    rows = rows.merge(split[["image", "part"]], on="image", how="left", validate="1:1")
    ours = rows["site"].isin(section.sites).to_numpy(bool) if section.sites else rows["part"].isna().to_numpy(bool)
    _require_sites(section, rows, ours)
    group, part = groups(rows), rows["part"].to_numpy(object)
    tested = np.isin(group, group[part == "test"])
    judged = np.isin(group, group[part == "validation"])
    free = ~np.isin(group, group[~rows["part"].isna().to_numpy(bool)])
    held = judged | np.isin(group, _drawn(np.unique(group[ours & free]), seed))
    learnt, held_out = rows[ours & ~tested & ~held], rows[ours & ~tested & held]
    if len(learnt) < FEWEST:
        raise TrainingError(
            f"train.adaptation: expected at least {FEWEST} images of the target to learn from, got {len(learnt)} "
            f"({len(held_out)} held out to judge on, {int((ours & tested).sum())} of test patients left alone); "
            "ingest more images of that hospital, or name its sites in train.adaptation.sites"
        )
    images = set(rows.loc[ours, "image"])
    return Choice(learnt.reset_index(drop=True), held_out.reset_index(drop=True), int((ours & tested).sum()), images)


def _drawn(free: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """A fifth of the groups, at least one of several."""
    number = max(round(HELD_OUT * len(free)), int(len(free) > 1))
    return np.random.default_rng(seed).permutation(free)[:number]


def _require_sites(section: AdaptationSection, rows: pd.DataFrame, ours: NDArray[np.bool_]) -> None:
    labelled = rows["part"].notna()
    known = rows.assign(labelled=labelled).dropna(subset=["site"]).groupby("site")["labelled"].agg(["size", "sum"])
    listed = "; ".join(f"{site}: {counts['size']} images, {counts['sum']} with labels" for site, counts in known.iterrows())
    if unknown := [site for site in section.sites if site not in known.index]:
        raise ConfigurationError(
            f"params.yaml train.adaptation.sites: expected sites of the manifest ({listed or 'it names none'}), "
            f"got {', '.join(unknown)}"
        )
    if section.sites and not (labelled & ~ours).any():
        raise ConfigurationError(
            f"params.yaml train.adaptation.sites: expected to leave a site with labels to learn from, got all of them ({listed})"
        )
