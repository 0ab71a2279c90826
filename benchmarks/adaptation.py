"""Does adaptation to a hospital without labels help? A model of children's pneumonia, taken to adults of another hospital.

    python benchmarks/adaptation.py [--seeds 0 1 2 3 4] [--methods none coral] [--threads 1]

MobileNetV2 at 224 pixels from ImageNet weights, strategy `differential`, learns from 128 labelled radiographs of children
(Kermany et al. 2018) and, without their labels, from those of half of the adults (NIH ChestX-ray). The other half of the
adults' patients, always the same, judges, with labels. As a check that the adults' labels can be learnt at all, the same
network learns from the first half with its labels (`adults`); and whether another way to transfer fares better without any
adaptation, which is what it has to beat, strategies that leave more of the network as it was learn from the children alone.
Results are appended to adaptation.csv after each training, so that a second call goes on where the first one stopped; rows of
other settings than today's are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from typing import Any

import children
import numpy as np
import pandas as pd
import torch
from children import CACHE, FOLDER, HERE, RECIPE, SHARED, TASK, Cohort, fingerprint
from label_efficiency import METHODS as STRATEGIES
from label_efficiency import network_for
from numpy.typing import NDArray
from scipy import stats

from pipelines import files
from pipelines.config import TrainSection
from pipelines.imaging.radiograph import prepare, read
from pipelines.metrics.discrimination import Array, auroc, weighted_auroc
from pipelines.metrics.intervals import bootstrap, interval
from pipelines.training import adaptation_outcome
from pipelines.training.adaptation_outcome import HeldOut
from pipelines.training.batches import Examples
from pipelines.training.learn import learn
from pipelines.training.listener import Silence
from pipelines.transfer.adaptation import METHODS, settled
from pipelines.transfer.guard import Looks
from pipelines.transfer.strategies import plan

RESULTS = HERE / "adaptation.csv"
ADULTS = FOLDER.parent / "adult_cxr"
SIZE, VALIDATED = 128, 100  # images of children: learnt from, and held out
HALVES = 2025  # seed of the adults' halves
ALONE, POSITIVE = "none", "adults"
OTHERS = ("feature_extraction, logistic_regression", "head_only", "last_groups", "lp_ft", "full")  # alone as well
RUNS = (ALONE, *METHODS, *OTHERS, POSITIVE)
COLUMNS = ("settings", "method", "seed", "children", "adults", "verdict", "says", "apart", "seconds", "scores")


@dataclass(frozen=True)
class Data:
    """Children, and the two halves of the adults; `judges` are the labels and patients of the second half."""

    children: Cohort
    learnt: Examples
    judges: Examples


def data() -> Data:
    """Prepared once, then read from the cache."""
    cached = CACHE / f"adult-{fingerprint(RECIPE.to_dict())}.npz"
    table = pd.read_csv(ADULTS / "labels.csv")
    if not cached.is_file():
        datasets = [read(ADULTS / file) for file in table["file"]]
        images = np.stack([prepare(dataset, RECIPE).array for dataset in datasets])
        patients = pd.factorize(pd.Series([str(dataset.PatientID) for dataset in datasets]))[0]
        with files.replacing(cached) as temporary, temporary.open("wb") as stream:
            np.savez(stream, images=images, patients=patients)
    with np.load(cached) as stored:
        adults = Cohort(stored["images"], stored["patients"])
    labels, first = table["pneumonia"].to_numpy(np.float32), half(adults.patients)
    learnt, judges = (adults.examples(np.flatnonzero(part), labels) for part in (first, ~first))
    return Data(children.cohort(), learnt, judges)


def half(patients: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which images are of the first half of the patients."""
    order = np.random.default_rng(HALVES).permutation(np.unique(patients))
    return np.isin(patients, order[: len(order) // 2])


def settings_for(run: str, seed: int) -> TrainSection:
    values = {
        "backbone": "mobilenet_v2",
        "strategy": STRATEGIES[run if run in OTHERS else "differential"],
        "epochs": 4,
        "batch_size": 16,
        "seed": seed,
        "device": "cpu",
        "adaptation": {"method": run if run in METHODS else None},
    }
    return settled(TrainSection.model_validate(values))


def measured(found: Data, run: str, seed: int, before: Looks | None) -> tuple[dict[str, Any], Looks]:
    """Train once, judge, and return a row of the results and what the network made of the held-out images."""
    started = time.perf_counter()
    settings = settings_for(run, seed)
    network = network_for(settings)
    drawn = children.draw(found.children, children.QUESTIONS["pneumonia"], SIZE, seed)
    held_out = drawn.test.take(np.arange(0, len(drawn.test), len(drawn.test) // VALIDATED))
    # nobody who judges is looked at: the positive control chooses its epoch on what it learns from
    train, validation = (found.learnt, found.learnt) if run == POSITIVE else (drawn.train, held_out)
    learn(network, plan(network, settings.strategy), TASK, train, validation, settings, Silence(), None, found.learnt)
    parts = HeldOut(held_out, held_out.labels, held_out.grouped()), judges(found)
    verdict, says, apart, looks = "", "", "", None
    if run in METHODS:
        done = adaptation_outcome.finish(network, TASK, settings, parts, found.learnt, train.labels, before)
        verdict, says = done.verdict, done.describe().replace("\n", "; ")
        apart = json.dumps({name: value["auroc_of_hospital"] for name, value in done.figures["apart"].items()})
    looks = adaptation_outcome.look(network, TASK, *parts, settings.batch_size)
    scores = looks.target.scores[:, 0]
    row = {
        "settings": identity(run),
        "method": run,
        "seed": seed,
        "children": round(auroc(looks.source.labels[:, 0], looks.source.scores[:, 0]), 4),
        "adults": round(auroc(looks.target.labels[:, 0], scores), 4),
        "verdict": verdict,
        "says": says,
        "apart": apart,
        "seconds": round(time.perf_counter() - started, 1),
        "scores": " ".join(f"{score:.5f}" for score in scores),
    }
    return row, looks


def judges(found: Data) -> HeldOut:
    return HeldOut(found.judges, found.judges.labels, found.judges.grouped() + len(found.children.patients))


def identity(run: str) -> str:
    settings = settings_for(run, 0).model_dump(mode="json", include={"epochs", "batch_size", "strategy", "adaptation", "augment"})
    weight = METHODS[run].weight if run in METHODS else 0
    return fingerprint({"settings": settings, "weight": weight, "size": SIZE, "halves": HALVES, "recipe": RECIPE.to_dict()})


def stored() -> pd.DataFrame:
    if not RESULTS.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.read_csv(RESULTS, keep_default_na=False)
    return table[table["settings"].isin({identity(run) for run in RUNS})]


def keep(row: dict[str, Any]) -> None:
    table = pd.concat([stored(), pd.DataFrame([row])]) if len(stored()) else pd.DataFrame([row])
    order = {run: number for number, run in enumerate(RUNS)}
    table = table.sort_values(["method", "seed"], key=lambda column: column.map(order) if column.name == "method" else column)
    files.write_text(RESULTS, table.to_csv(index=False))


def gain(table: pd.DataFrame, run: str, found: Data) -> str:
    """Mean over the seeds of the difference to no adaptation, with its 95% interval over patients."""
    both = set(table.loc[table["method"] == run, "seed"]) & set(table.loc[table["method"] == ALONE, "seed"])
    if run == ALONE or not both:
        return ""
    labels = found.judges.labels[:, 0]
    pairs = [[scores(table, name, seed) for name in (run, ALONE)] for seed in sorted(both)]

    def statistic(weights: Array) -> Array:
        areas = [[weighted_auroc(labels, one, weights) for one in pair] for pair in pairs]
        return np.mean([ours - other for ours, other in areas], axis=0)

    value, draws = bootstrap(statistic, found.judges.grouped(), 2000, seed=17)
    ends = interval(float(np.ravel(value)[0]), np.ravel(draws))
    return f"{ends.value:+.3f} [{ends.low:+.3f}, {ends.high:+.3f}]"


def standing(table: pd.DataFrame, found: Data) -> list[str]:
    """Which runs are better than chance on the adults, in words: AUROC, mean over the seeds, 95% interval over patients."""
    labels, groups = found.judges.labels[:, 0], found.judges.grouped()
    told: dict[str, list[str]] = {"better than chance": [], "not told from chance": [], "worse than chance": []}
    for run in [name for name in RUNS if name in set(table["method"])]:
        each = [scores(table, run, seed) for seed in table.loc[table["method"] == run, "seed"]]
        value, draws = bootstrap(
            lambda weights, each=each: np.mean([weighted_auroc(labels, one, weights) for one in each], axis=0),
            groups,
            2000,
            seed=17,
        )
        ends = interval(float(np.ravel(value)[0]), np.ravel(draws))
        kind = "better than" if ends.low > 0.5 else "worse than" if ends.high < 0.5 else "not told from"
        told[f"{kind} chance"].append(f"`{run}` {ends.value:.3f} [{ends.low:.3f}, {ends.high:.3f}]")
    return [f"- {kind} on the adults: {'; '.join(runs) or 'none'}." for kind, runs in told.items()]


def scores(table: pd.DataFrame, run: str, seed: int) -> NDArray[np.float64]:
    row = table[(table["method"] == run) & (table["seed"] == seed)].iloc[0]
    return np.array(row["scores"].split(), dtype=np.float64)


def over_seeds(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f} (one seed)"
    margin = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.3f} ± {margin:.3f}"


def report(table: pd.DataFrame, found: Data, threads: int) -> str:
    patients, minutes = len(np.unique(found.judges.grouped())), table["seconds"].astype(float).sum() / 60
    lines = [
        "# Adaptation to a hospital without labels",
        "",
        f"MobileNetV2 at 224 pixels from ImageNet weights, {settings_for(ALONE, 0).epochs} epochs, learns pneumonia from {SIZE}",
        "labelled radiographs of children (Kermany et al. 2018): with `differential` in the first rows and in `adults`, else",
        f"with the strategy named. What adapts learns from {len(found.learnt)} radiographs, without labels, of adults at another",
        f"hospital (NIH ChestX-ray). Judged on {VALIDATED} other children, who choose the epoch too, and on {len(found.judges)}",
        f"radiographs of {patients} other adults. AUROC: mean over {table['seed'].nunique()} seeds ± half of its 95% interval",
        "(Student's t). Gain: over `none` with the same seed, mean over seeds, 95% interval over patients (2,000 resamples).",
        "Hospital: AUROC of a cross-validated linear classifier that tells children from adults by the features, without → with",
        "adaptation. AdaBN's network answers for the adults only; `adults` learnt from the first half of the adults with labels,",
        "as a check that there is something to learn. What the guard says of AdaBN compares with the same network before its",
        "statistics were exchanged, which were the children's own, and not ImageNet's as in `none`.",
        "",
        "| method | children | adults | gain on adults | hospital | verdict of the guard, by seed |",
        "|---|---|---|---|---|---|",
    ]
    for run in [name for name in RUNS if name in set(table["method"])]:
        rows = table[table["method"] == run]
        verdicts = "; ".join(f"{name} ({count})" for name, count in rows["verdict"].value_counts().items() if name)
        adults = [auroc(found.judges.labels[:, 0], scores(table, run, seed)) for seed in rows["seed"]]
        cells = [over_seeds(figures) for figures in (rows["children"].astype(float).tolist(), adults)]
        lines.append(f"| {run} | {' | '.join(cells)} | {gain(table, run, found)} | {apart(rows)} | {verdicts} |")
    lines += ["", *standing(table, found), "", "What the guard said with the first seed:", ""]
    first = table[(table["seed"] == table["seed"].min()) & (table["says"] != "")]
    lines += [f"- `{row['method']}`: {row['says']}." for _, row in first.iterrows()]
    lines += [
        "",
        "Every training is a row of `adaptation.csv`. Run again: `python benchmarks/adaptation.py` (it goes on where it",
        f"stopped; the rows here took {minutes:.0f} minutes, {threads} CPU thread{'s' * (threads > 1)}).",
    ]
    return "\n".join(lines) + "\n"


def apart(rows: pd.DataFrame) -> str:
    told = [json.loads(text) for text in rows["apart"] if text]
    if not told:
        return ""
    before, after = (np.mean([each[name] for each in told]) for name in ("before", "after"))
    return f"{before:.3f} → {after:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=list(RUNS), choices=RUNS)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ.setdefault("RADTRANSFER_WEIGHTS", str(SHARED / "weights"))
    found = data()
    for seed in arguments.seeds:
        table = stored()
        done = set(table.loc[table["seed"] == seed, "method"])
        missing = [run for run in RUNS if run in arguments.methods and run not in done]
        before: Looks | None = None
        if any(adaptation_outcome.wants_control(settings_for(run, seed)) for run in missing) and ALONE not in missing:
            _, before = measured(found, ALONE, seed, None)  # again, for its features
        for run in missing:
            row, looks = measured(found, run, seed, before)
            before = looks if run == ALONE else before
            keep(row)
            print(
                f"{run:40} seed {seed}  children {row['children']:.3f}  adults {row['adults']:.3f}  {row['verdict']}", flush=True
            )
    files.write_text(HERE / "adaptation.md", report(stored(), found, arguments.threads))


if __name__ == "__main__":
    main()
