"""How many labelled images each strategy needs: AUROC over the number of training images, on real radiographs.

    python benchmarks/label_efficiency.py [--sizes 16 32] [--seeds 0 1] [--strategies full scratch] [--threads 2]

Children's chest radiographs (Kermany et al. 2018), pneumonia or not, MobileNetV2 at 224 pixels. One test part of 400 images
is fixed; training images are drawn from the patients that are left, half of them with the finding, so that no patient is in
both. All labelled images are learnt from: there is no validation part to stop on, the number of epochs is fixed for each size,
and the epoch kept is judged on the training images. Results are appended to label_efficiency.csv after each training, so that
a second call goes on where the first one stopped; rows of other settings than today's are left alone and not counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats

from pipelines import files
from pipelines.config import AugmentSection, TrainSection
from pipelines.imaging.radiograph import Recipe, prepare, read
from pipelines.metrics.discrimination import auroc
from pipelines.models import backbones, passports
from pipelines.models.backbones import Network
from pipelines.models.provenance import Normalisation
from pipelines.records import Task
from pipelines.training.batches import Examples
from pipelines.training.learn import learn, place
from pipelines.training.listener import Silence
from pipelines.training.loss import probabilities
from pipelines.training.material import Images
from pipelines.transfer.strategies import STRATEGIES, plan

HERE = Path(__file__).parent
RESULTS = HERE / "label_efficiency.csv"
SHARED = Path(os.environ.get("RADTRANSFER_SHARED") or HERE.parents[1] / "shared")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "radtransfer" / "benchmarks"
RECIPE = Recipe(224, "uint8", (0.5, 99.5))
TASK = Task("binary", ("pneumonia",))
TEST_PER_CLASS = 200
EPOCHS = {8: 30, 16: 30, 32: 20, 64: 15, 128: 10, 400: 6}  # small sets get more passes, at a bounded cost
BATCH = {8: 8, 16: 8, 32: 8, 64: 16, 128: 16, 400: 16}
JUDGED = 16  # training images that choose among the epochs
COLUMNS = ("settings", "strategy", "size", "seed", "auroc", "epochs", "seconds")
CPU = torch.device("cpu")
# settings that came after the first rows were measured; as long as they do nothing, those rows still count
LATER: dict[str, Any] = {"stochastic_depth": None, "label_smoothing": 0.0, "mixup": 0.0, "ema": None}
LATER_IN_STRATEGY: dict[str, Any] = {
    "rates": {},
    **dict.fromkeys(("groups", "unfreeze_every", "classifier", "regularisation", "neighbours", "hidden", "rank", "anchor")),
}
APPLICABLE = [name for name in STRATEGIES if name != "lora"]  # which needs a transformer


@dataclass(frozen=True)
class Cohort:
    """All images (images, 224, 224), their labels and patients (numbered), and which are of the test part."""

    images: NDArray[np.uint8]
    labels: NDArray[np.float32]
    patients: NDArray[np.int64]
    test: NDArray[np.bool_]

    def take(self, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.images[rows]

    def examples(self, rows: NDArray[np.int64]) -> Examples:
        return Examples(self, np.zeros_like(rows), rows, self.labels[rows][:, None], self.patients[rows])


def cohort() -> Cohort:
    """Prepared once, then read from the cache."""
    cached = CACHE / f"paediatric-{fingerprint(RECIPE.to_dict())}.npz"
    if not cached.is_file():
        folder = SHARED / "data" / "paediatric_cxr"
        table = pd.read_csv(folder / "labels.csv")
        datasets = [read(folder / file) for file in table["file"]]
        images = np.stack([prepare(dataset, RECIPE).array for dataset in datasets])
        patients = pd.factorize(pd.Series([str(dataset.PatientID) for dataset in datasets]))[0]
        with files.replacing(cached) as temporary, temporary.open("wb") as stream:
            np.savez(stream, images=images, labels=table["pneumonia"].to_numpy(np.float32), patients=patients)
    with np.load(cached) as stored:
        images, labels, patients = stored["images"], stored["labels"], stored["patients"]
    test = np.zeros(len(labels), dtype=bool)
    test[drawn(labels, patients, np.arange(len(labels)), TEST_PER_CLASS, seed=2024, whole=True)] = True
    assert not set(patients[test]) & set(patients[~test])
    return Cohort(images, labels, patients, test)


def drawn(
    labels: NDArray[np.float32], patients: NDArray[np.int64], rows: NDArray[np.int64], per_class: int, *, seed: int, whole: bool
) -> NDArray[np.int64]:
    """Images of random patients, `per_class` with and as many without the finding; with `whole`, all of each patient's."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(np.unique(patients[rows]))
    chosen: list[int] = []
    left = {0.0: per_class, 1.0: per_class}
    for patient in order:
        own = rows[patients[rows] == patient]
        label = float(labels[own[0]])
        own = own if whole else own[: left[label]]
        if len(own) <= left[label]:
            chosen += own.tolist()
            left[label] -= len(own)
    assert not any(left.values())
    return np.array(chosen)


def settings_for(strategy: str, size: int, seed: int) -> TrainSection:
    return TrainSection.model_validate(
        {
            "backbone": "mobilenet_v2",
            "strategy": {"name": strategy},
            "epochs": EPOCHS[size],
            "patience": EPOCHS[size],
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


def measured(data: Cohort, strategy: str, size: int, seed: int) -> dict[str, Any]:
    """Train once and score the test part; one row of the results."""
    started = time.perf_counter()
    pool = np.flatnonzero(~data.test)
    train = data.examples(drawn(data.labels, data.patients, pool, size // 2, seed=seed, whole=False))
    judges = data.examples(train.rows[np.argsort(train.labels[:, 0], kind="stable")][:: max(1, size // JUDGED)])
    settings = settings_for(strategy, size, seed)
    network = network_for(settings)
    fitted = learn(network, plan(network, settings.strategy), TASK, train, judges, settings, Silence())
    test = data.examples(np.flatnonzero(data.test))
    network.eval()
    with torch.inference_mode():
        batches = [network(images) for images, _ in Images(test, AugmentSection(), CPU).judging(50)]
    scores = probabilities(torch.cat(batches), exclusive=False).numpy()[:, 0]
    return {
        "settings": identity(strategy, size),
        "strategy": strategy,
        "size": size,
        "seed": seed,
        "auroc": round(auroc(test.labels[:, 0], scores), 6),
        "epochs": fitted.best_epoch,
        "seconds": round(time.perf_counter() - started, 1),
    }


def identity(strategy: str, size: int) -> str:
    """Of what decides a result, the code and the seed left out: rows of another identity are not counted."""
    settings = settings_for(strategy, size, 0).model_dump(mode="json")
    for values, later in ((settings, LATER), (settings["strategy"], LATER_IN_STRATEGY)):
        for name in [name for name, neutral in later.items() if values[name] == neutral]:
            del values[name]
    rates = {"learning_rate": STRATEGIES[strategy].learning_rate, "batch_norm": STRATEGIES[strategy].batch_norm}
    recipe = {name: value for name, value in RECIPE.to_dict().items() if name in ("size", "depth", "percentiles")}
    return fingerprint({"settings": settings, "rates": rates, "recipe": recipe, "steps": STRATEGIES[strategy].least_steps})


def fingerprint(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]


def results() -> pd.DataFrame:
    """The rows measured with today's settings."""
    table = pd.read_csv(RESULTS, dtype={"epochs": "Int64"}) if RESULTS.is_file() else pd.DataFrame(columns=list(COLUMNS))
    known = {identity(strategy, size) for strategy in APPLICABLE for size in EPOCHS}
    return table[table["settings"].isin(known)]


def keep(row: dict[str, Any]) -> None:
    table = pd.read_csv(RESULTS, dtype={"epochs": "Int64"}) if RESULTS.is_file() else pd.DataFrame(columns=list(COLUMNS))
    table = pd.concat([table, pd.DataFrame([row])]) if len(table) else pd.DataFrame([row])
    table = table.sort_values(["strategy", "size", "seed"], kind="stable")
    files.write_text(RESULTS, table.to_csv(index=False))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the 95% interval of the mean over seeds (Student's t); NaN bounds for a single seed."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return mean, mean - float(half), mean + float(half)


def report(table: pd.DataFrame, threads: int) -> str:
    sizes = sorted(table["size"].unique())
    lines = [
        "# Label efficiency",
        "",
        "AUROC for pneumonia on 400 fixed test radiographs of children (Kermany et al. 2018) over the number of labelled",
        "training images: mean over seeds, with its 95% interval (Student's t over the draws of training images and the random",
        "numbers of training; the test part is always the same). MobileNetV2 at 224 pixels from ImageNet weights, or from",
        "scratch; every strategy with its default learning rates; patients are never in both parts.",
        "Epochs: "
        + ", ".join(f"{EPOCHS[size]} at {size}" for size in sizes)
        + f"; batches of {BATCH[min(sizes)]} to {BATCH[max(sizes)]}; fp32, {threads} CPU thread{'s' if threads > 1 else ''}.",
        "",
        "| strategy | " + " | ".join(f"N = {size}" for size in sizes) + " |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    for strategy in [name for name in STRATEGIES if name in set(table["strategy"])]:
        cells = [cell(table[(table["strategy"] == strategy) & (table["size"] == size)]) for size in sizes]
        lines.append(f"| {strategy} | " + " | ".join(cells) + " |")
    lines += ["", "![AUROC over the number of training images](label_efficiency.svg)", "", *against_scratch(table), ""]
    lines += [
        "Every training is a row of `label_efficiency.csv`. Run again: `python benchmarks/label_efficiency.py` (it goes on where",
        f"it stopped; the rows here took {table['seconds'].sum() / 60:.0f} minutes of training and testing in all).",
    ]
    return "\n".join(lines) + "\n"


def cell(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "–"
    mean, low, high = interval(rows["auroc"].tolist())
    if len(rows) < 2:
        return f"{mean:.3f} (one seed)"
    return f"{mean:.3f} [{low:.3f}, {min(high, 1):.3f}], {len(rows)} seeds"


def against_scratch(table: pd.DataFrame) -> list[str]:
    """What pretrained weights gain over random ones on the same draws of training images."""
    wide = table.pivot_table(index=["size", "seed"], columns="strategy", values="auroc")
    if "scratch" not in wide:
        return []
    lines = ["Gain over `scratch` on the same training images (mean of the paired differences, 95% interval over seeds):", ""]
    for strategy in [name for name in STRATEGIES if name in wide and name != "scratch"]:
        gains = (wide[strategy] - wide["scratch"]).dropna()
        parts = []
        for size, values in gains.groupby("size"):
            mean, low, high = interval(values.tolist())
            parts.append(f"N = {size}: {mean:+.3f}" + (f" [{low:+.3f}, {high:+.3f}]" if len(values) > 1 else " (one seed)"))
        lines.append(f"- `{strategy}`: {'; '.join(parts)}")
    return lines


def draw(table: pd.DataFrame) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "radtransfer"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    shown = [name for name in STRATEGIES if name in set(table["strategy"])]
    for number, strategy in enumerate(shown):
        rows = table[table["strategy"] == strategy]
        sizes = np.array(sorted(rows["size"].unique()))
        means, lows, highs = np.array([interval(rows.loc[rows["size"] == size, "auroc"].tolist()) for size in sizes]).T
        shifted = sizes * 1.02 ** (number - (len(shown) - 1) / 2)
        whiskers = np.nan_to_num([means - lows, np.minimum(highs, 1) - means])
        axes.errorbar(shifted, means, yerr=whiskers, marker="o", capsize=3, label=strategy)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(table["size"].unique()), [str(size) for size in sorted(table["size"].unique())])
    axes.set_xlabel("labelled training images")
    axes.set_ylabel("test AUROC (mean and 95% interval over seeds)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(HERE / "label_efficiency.svg", metadata={"Date": None})
    figure.savefig(HERE / "label_efficiency.png", dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--strategies", nargs="+", default=APPLICABLE, choices=APPLICABLE)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ.setdefault("RADTRANSFER_WEIGHTS", str(SHARED / "weights"))
    data = cohort()
    wanted = [(size, seed, name) for seed in arguments.seeds for size in arguments.sizes for name in arguments.strategies]
    for size, seed, strategy in wanted:
        table = results()
        if ((table["size"] == size) & (table["seed"] == seed) & (table["strategy"] == strategy)).any():
            continue
        row = measured(data, strategy, size, seed)
        keep(row)
        print(f"{strategy:18} N {size:3} seed {seed}  AUROC {row['auroc']:.3f}  {row['seconds']:.0f} s", flush=True)
    table = results()
    files.write_text(HERE / "label_efficiency.md", report(table, arguments.threads))
    draw(table)


if __name__ == "__main__":
    main()
