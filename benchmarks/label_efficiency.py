"""How many labelled images each way to transfer needs: AUROC over the number of training images, on real radiographs.

    python benchmarks/label_efficiency.py [--tasks etiology] [--sizes 16 32] [--seeds 0 1] [--methods full scratch]

Children's chest radiographs (Kermany et al. 2018), MobileNetV2 at 224 pixels, two questions: pneumonia or not, which is easy,
and whether it is viral or bacterial, which is hard. Training images are drawn from the patients that are not of the test part,
half of them positive (see `children.drawn`). All labelled images are learnt from: there is no validation part to stop on, the
number of epochs is fixed for each size (from scratch, which learns more slowly, there are at least as many steps as at the
largest), and the epoch kept is judged on the training images. Results are appended to label_efficiency.csv after each
training, so that a second call goes on where the first one stopped; rows of other settings than today's are left alone and
not counted.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import children
import numpy as np
import pandas as pd
import torch
from children import CPU, HERE, RECIPE, Cohort, fingerprint
from scipy import stats

from pipelines import files
from pipelines.config import StrategySection, TrainSection
from pipelines.models import backbones, passports
from pipelines.models.network import Network
from pipelines.models.provenance import Normalisation
from pipelines.training.learn import learn, place
from pipelines.training.listener import Silence
from pipelines.transfer.folds import fewest
from pipelines.transfer.recommendation import RECOMMENDED, Fingerprint, recommend
from pipelines.transfer.strategies import STRATEGIES, plan

RESULTS = HERE / "label_efficiency.csv"
EPOCHS = {8: 30, 16: 30, 32: 20, 64: 15, 128: 10, 256: 8, 400: 6}  # small sets get more passes, at a bounded cost
BATCH = {8: 8, 16: 8, 32: 8, 64: 16, 128: 16, 256: 16, 400: 16}
LEAST_STEPS = 150  # from scratch: with only the steps that transfer needs, it would be judged half learnt
JUDGED = 16  # training images that choose among the epochs
SEEDS = tuple(range(children.FOLDS))
COLUMNS = ("settings", "task", "method", "size", "seed", "fewest", "auroc", "epochs", "seconds")
# settings that came after the first rows were measured; as long as they do nothing, those rows still count
LATER: dict[str, Any] = {
    "stochastic_depth": None,
    "label_smoothing": 0.0,
    "mixup": 0.0,
    "ema": None,
    "adaptation": {"method": None, "sites": [], "weight": None, "control": True},
}
LATER_IN_STRATEGY: dict[str, Any] = {
    "rates": {},
    **dict.fromkeys(("groups", "unfreeze_every", "classifier", "regularisation", "neighbours", "hidden", "rank", "anchor")),
}
CACHED = ("logistic_regression", "linear_svm", "knn", "mlp")
METHODS: dict[str, dict[str, Any]] = {
    **{name: {"name": name} for name in STRATEGIES if name != "lora"},  # which needs a transformer
    **{f"feature_extraction, {name}": {"name": "feature_extraction", "classifier": name} for name in CACHED},
}
REFERENCE = "scratch"
SHOWN = (RECOMMENDED, *METHODS)


@dataclass(frozen=True)
class Question:
    """One of the cohort's questions here: the sizes asked for, and whether each seed is judged on a test fold of its own."""

    title: str
    sizes: tuple[int, ...]
    folds: bool


# a test part of 400 can be fixed; of the 400 images with an etiology each is tested by one of the five seeds
QUESTIONS = {
    "pneumonia": Question("Pneumonia or not: 400 fixed test radiographs", (8, 16, 32, 64, 128, 400), folds=False),
    "etiology": Question(
        "Viral or bacterial pneumonia: 400 radiographs, a fifth of them the test part of each seed",
        (16, 64, 256),
        folds=True,
    ),
}


def settings_for(method: str, size: int, seed: int) -> TrainSection:
    least = math.ceil(LEAST_STEPS / math.ceil(size / BATCH[size])) if method == REFERENCE else 0
    epochs = max(EPOCHS[size], least)
    return TrainSection.model_validate(
        {
            "backbone": "mobilenet_v2",
            "strategy": METHODS[method],
            "epochs": epochs,
            "patience": epochs,
            "batch_size": BATCH[size],
            "seed": seed,
            "device": "cpu",
        }
    )


def network_for(settings: TrainSection) -> Network:
    pretrained = STRATEGIES[settings.strategy.name].pretrained
    found = passports.find("imagenet", "mobilenet_v2", download=False) if pretrained else None
    normalisation = found.passport.normalisation if found else Normalisation((0.5,) * 3, (0.25,) * 3)
    torch.manual_seed(settings.seed)
    network = backbones.build("mobilenet_v2", outputs=1, dropout=settings.dropout, normalisation=normalisation)
    if found:
        passports.load(network, found)
    return place(network, CPU)


def measured(data: Cohort, task: str, method: str, size: int, seed: int) -> dict[str, Any]:
    """Train once and score the test part; one row of the results."""
    started = time.perf_counter()
    draw = children.draw(data, children.QUESTIONS[task], size, seed, fold=seed if QUESTIONS[task].folds else None)
    judges = draw.train.take(np.argsort(draw.train.labels[:, 0], kind="stable")[:: max(1, size // JUDGED)])
    settings = settings_for(method, size, seed)
    network = network_for(settings)
    fitted = learn(network, plan(network, settings.strategy), children.TASK, draw.train, judges, settings, Silence())
    return {
        "settings": identity(task, method, size),
        "task": task,
        "method": method,
        "size": size,
        "seed": seed,
        "fewest": fewest(draw.train.labels.astype(np.float64), draw.train.grouped()),
        "auroc": round(children.area(network, draw.test), 6),
        "epochs": fitted.best_epoch,
        "seconds": round(time.perf_counter() - started, 1),
    }


def identity(task: str, method: str, size: int) -> str:
    """Of what decides a result, the code and the seed left out: rows of another identity are not counted."""
    settings = settings_for(method, size, 0).model_dump(mode="json")
    for values, later in ((settings, LATER), (settings["strategy"], LATER_IN_STRATEGY)):
        for name in [name for name, neutral in later.items() if values[name] == neutral]:
            del values[name]
    strategy = STRATEGIES[settings["strategy"]["name"]]
    rates = {"learning_rate": strategy.learning_rate, "batch_norm": strategy.batch_norm}
    recipe = {name: value for name, value in RECIPE.to_dict().items() if name in ("size", "depth", "percentiles")}
    facts = {"settings": settings, "rates": rates, "recipe": recipe, "steps": strategy.least_steps}
    if strategy.classifiers and not strategy.cached:  # rows from before that do not count
        facts["begins"] = "at the probe, judged as epoch 0, without dropout"
    if QUESTIONS[task].folds:  # rows of overlapping test parts do not count
        facts["test"] = "fold"
    return fingerprint(facts)


def stored() -> pd.DataFrame:
    return pd.read_csv(RESULTS, dtype={"epochs": "Int64"}) if RESULTS.is_file() else pd.DataFrame(columns=list(COLUMNS))


def results() -> pd.DataFrame:
    """The rows measured with today's settings."""
    table = stored()
    todays = {(task, identity(task, method, size)) for task in QUESTIONS for method in METHODS for size in QUESTIONS[task].sizes}
    return table[[row in todays for row in zip(table["task"], table["settings"], strict=True)]]


def with_recommended(table: pd.DataFrame) -> pd.DataFrame:
    """The rows, and once more those of the method that `recommended` comes to for their draw, in its name."""
    taken = [recommended(row.size, row.fewest) for row in table.itertuples()]
    own = table[table["method"] == pd.Series(taken, index=table.index, dtype=object)]
    return pd.concat([table, own.assign(method=RECOMMENDED)], ignore_index=True)


def recommended(size: int, rarest: int) -> str:
    """The strategy for a draw of so many images, with so many patients in the rarest class."""
    return recommend(StrategySection(name=RECOMMENDED), Fingerprint(size, size, rarest, pretrained=True)).settings.name


def keep(row: dict[str, Any]) -> None:
    table = stored()
    table = pd.concat([table, pd.DataFrame([row])]) if len(table) else pd.DataFrame([row])
    table = table.sort_values(["task", "method", "size", "seed"], kind="stable")
    files.write_text(RESULTS, table.to_csv(index=False))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the 95% interval of the mean over seeds (Student's t); NaN bounds for a single seed."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return mean, mean - float(half), mean + float(half)


def report(table: pd.DataFrame) -> str:
    lines = [
        "# Label efficiency",
        "",
        "Test AUROC on radiographs of children (Kermany et al. 2018) over the number of labelled training images: mean over",
        "seeds, with its 95% interval (Student's t over the draws of training images, the random numbers of training and, where",
        "they are folds, the test parts; the luck of a fixed test part is not in it).",
        "MobileNetV2 at 224 pixels from ImageNet weights, or from scratch; every strategy with its default learning rates;",
        f"patients are never in both parts; fp32. `{RECOMMENDED}` is the row of what it comes to for each draw's patients:",
        f"{resolved(table)}.",
        "Epochs: " + ", ".join(f"{epochs} at {size}" for size, epochs in EPOCHS.items()) + f"; `{REFERENCE}` takes at least",
        f"{LEAST_STEPS} steps. The epoch kept is chosen on {JUDGED} of the training images, or all. Not measured: `lora`,",
        "which needs a transformer, and batch norm, regularisers and rates other than each strategy's own. The rule of",
        f"`{RECOMMENDED}` was read off the first of these rows, so that its standing here is not a test of it on new data.",
        "",
        "**Bold** is the best mean of a column. A star: not told apart from it, the 95% interval of the difference on the same",
        "draws holds 0; where there is none, that is not corrected for looking at many methods.",
        "",
    ]
    for task, question in QUESTIONS.items():
        rows = table[table["task"] == task]
        if len(rows):
            lines += [f"## {question.title}", "", *of_task(rows), ""]
            lines += [f"![AUROC over the number of training images](label_efficiency-{task}.svg)", ""]
            lines += ["Drawn are means over every seed.", ""]
    lines += [
        "Every training is a row of `label_efficiency.csv`. Run again: `python benchmarks/label_efficiency.py` (it goes on where",
        f"it stopped; the rows here took {table['seconds'].sum() / 60:.0f} minutes of training and testing in all).",
    ]
    return "\n".join(lines) + "\n"


def resolved(table: pd.DataFrame) -> str:
    """What `recommended` comes to, by sizes."""
    found: dict[str, list[int]] = {}
    for size, rows in table.groupby("size"):
        taken = sorted({recommended(size, rarest) for rarest in rows["fewest"]})
        found.setdefault(" or ".join(f"`{name}`" for name in taken), []).append(size)
    return "; ".join(f"{names} at N = {', '.join(map(str, sizes))}" for names, sizes in found.items())


def of_task(rows: pd.DataFrame) -> list[str]:
    rows, sizes = with_recommended(rows), sorted(rows["size"].unique())
    methods = [name for name in SHOWN if name in set(rows["method"])]
    lines = ["| method | " + " | ".join(f"N = {size}" for size in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    columns = {size: of_size(rows[rows["size"] == size], methods) for size in sizes}
    lines += [f"| {name} | " + " | ".join(columns[size][name] for size in sizes) + " |" for name in methods]
    return [*lines, "", "Which wins, of those with every seed:", "", *winners(rows), "", *gains(rows, RECOMMENDED)]


def winners(rows: pd.DataFrame) -> list[str]:
    """For each size, in words: the best, what it cannot be told apart from, and what transfer is worth."""
    lines = []
    for size, part in rows.groupby("size"):
        wide = part.pivot_table(index="seed", columns="method", values="auroc").dropna(axis=1)
        if len(wide) < 2 or len(wide.columns) < 2:
            continue
        order = wide.mean().sort_values(ascending=False).index.tolist()
        best, behind = order[0], {name: interval((wide[order[0]] - wide[name]).tolist()) for name in order[1:]}
        tied = [spoken(name) for name, (_, low, _) in behind.items() if not low > 0]
        words = f"N = {size}: {spoken(best)}, {interval(wide[best].tolist())[0]:.3f}"
        words += f"; not told apart: {', '.join(tied)}" if tied else ""
        worse = [f"{spoken(name)} by {mean:.3f}" for name, (mean, low, _) in behind.items() if low > 0]
        words += f"; worse: {', '.join(worse)}" if worse else ""
        if REFERENCE in wide and RECOMMENDED in wide:
            mean, low, high = interval((wide[RECOMMENDED] - wide[REFERENCE]).tolist())
            shown = "" if low > 0 else ", which is not shown to be more than none"
            words += f"; transfer (`{RECOMMENDED}` against `{REFERENCE}`) is worth {mean:+.3f} [{low:+.3f}, {high:+.3f}]{shown}"
        if not any(interval(wide[name].tolist())[1] > 0.5 for name in order):
            words += "; nothing is shown to be better than chance"
        lines.append(f"- {words}.")
    return lines


def spoken(method: str) -> str:
    """A method's name without a comma."""
    name, _, classifier = method.partition(", ")
    return f"{name} ({classifier})" if classifier else name


def of_size(rows: pd.DataFrame, methods: list[str]) -> dict[str, str]:
    """The cell of each method; only those with every seed are ranked."""
    wide = rows.pivot_table(index="seed", columns="method", values="auroc")
    complete = wide.dropna(axis=1)
    best = complete.mean().idxmax() if len(complete.columns) else None
    cells = {}
    for name in methods:
        values = wide[name].dropna() if name in wide else pd.Series(dtype=float)
        mark = ""
        if best is not None and name in complete:
            _, low, _ = interval((complete[best] - complete[name]).tolist())
            mark = "**" if name == best else "*" if not low > 0 else ""
        cells[name] = cell(values.tolist(), len(wide), mark)
    return cells


def cell(values: list[float], seeds: int, mark: str) -> str:
    if not values:
        return "–"
    mean, low, high = interval(values)
    spelled = f"{mean:.3f} [{low:.3f}, {min(high, 1):.3f}]" if len(values) > 1 else f"{mean:.3f}"
    spelled += f" ({len(values)} of {seeds} seeds)" if len(values) < seeds else ""
    return f"**{spelled}**" if mark == "**" else spelled + (r"\*" if mark else "")


def gains(rows: pd.DataFrame, reference: str) -> list[str]:
    """Each method minus one of them, on the same draws of images."""
    wide = rows.pivot_table(index=["size", "seed"], columns="method", values="auroc")
    if reference not in wide:
        return []
    lines = [f"Difference from `{reference}` on the same images (mean, 95% interval over seeds):", ""]
    for name in [name for name in SHOWN if name in wide and name != reference]:
        parts = []
        for size, values in (wide[name] - wide[reference]).dropna().groupby("size"):
            mean, low, high = interval(values.tolist())
            parts.append(f"N = {size}: {mean:+.3f}" + (f" [{low:+.3f}, {high:+.3f}]" if len(values) > 1 else " (one seed)"))
        lines.append(f"- {name}: {'; '.join(parts)}")
    return lines


def draw(table: pd.DataFrame, name: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "radtransfer"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8.5, 5), layout="constrained")
    # a mean over some of the seeds cannot stand beside one over all
    seeds = table.groupby(["method", "size"])["seed"].transform("nunique")
    table = table[seeds == table.groupby("size")["seed"].transform("nunique")]
    shown = [method for method in METHODS if method in set(table["method"])]
    colours = plt.get_cmap("tab20")
    default = with_recommended(table)
    default = default[default["method"] == RECOMMENDED].groupby("size")["auroc"].mean()
    axes.plot(default.index, default, color="0.8", linewidth=9, solid_capstyle="round", label=RECOMMENDED, zorder=0)
    for number, method in enumerate(shown):
        rows = table[table["method"] == method]
        sizes = np.array(sorted(rows["size"].unique()))
        means, lows, highs = np.array([interval(rows.loc[rows["size"] == size, "auroc"].tolist()) for size in sizes]).T
        shifted = sizes * 1.03 ** (number - (len(shown) - 1) / 2)
        whiskers = np.nan_to_num([means - lows, np.minimum(highs, 1) - means])
        style = {"marker": "o", "markersize": 4, "capsize": 2, "linewidth": 1.1}
        axes.errorbar(shifted, means, yerr=whiskers, label=method, color=colours(number), **style)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(table["size"].unique()), [str(size) for size in sorted(table["size"].unique())])
    axes.minorticks_off()
    axes.set_xlabel("labelled training images")
    axes.set_ylabel("test AUROC (mean and 95% interval over seeds)")
    # what starts from nothing would squeeze the others together
    lowest = table.loc[table["method"] != REFERENCE].groupby(["method", "size"])["auroc"].mean().min()
    axes.set_ylim(max(0.4, lowest - 0.03), 1.003 if table["auroc"].max() > 0.97 else None)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(HERE / f"{name}.svg", metadata={"Date": None})
    figure.savefig(HERE / f"{name}.png", dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(QUESTIONS), choices=list(QUESTIONS))
    parser.add_argument("--sizes", type=int, nargs="+", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), choices=SEEDS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ.setdefault("RADTRANSFER_WEIGHTS", str(children.SHARED / "weights"))
    data = children.cohort()
    for task in arguments.tasks:
        sizes = [size for size in arguments.sizes if size in QUESTIONS[task].sizes]
        for seed, size, method in itertools.product(arguments.seeds, sizes, arguments.methods):
            table = results()
            there = (table["task"] == task) & (table["size"] == size) & (table["seed"] == seed) & (table["method"] == method)
            if there.any():
                continue
            row = measured(data, task, method, size, seed)
            keep(row)
            print(f"{task} {method:40} N {size:3} seed {seed}  AUROC {row['auroc']:.3f}  {row['seconds']:.0f} s", flush=True)
    table = results()
    files.write_text(HERE / "label_efficiency.md", report(table))
    for task in table["task"].unique():
        draw(table[table["task"] == task], f"label_efficiency-{task}")


if __name__ == "__main__":
    main()
