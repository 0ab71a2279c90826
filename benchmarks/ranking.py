"""Does `radtransfer rank` know which network will be best? Its scores against what fine-tuning then comes to.

    python benchmarks/ranking.py [--tasks pneumonia etiology] [--seeds 0 1 2] [--threads 2]

Candidates are one network whose pretrained weights are more and more spoilt (ImageNet's in fewer layer groups, with noise,
shuffled, none), learnt from the children's radiographs without labels, and a smaller network. Each is scored on the labelled
training images alone, then fine-tuned on them (`differential`, with batch-norm statistics estimated anew on them, which is
fair to random networks) and judged on test images of other patients. Results are appended to ranking.csv, so that a second
call goes on.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import children
import numpy as np
import pandas as pd
import torch
from scipy import stats

from pipelines import files
from pipelines.config import PretrainSection, TrainSection
from pipelines.metrics.discrimination import auroc
from pipelines.models import starting
from pipelines.models.network import Network
from pipelines.training.batches import Examples
from pipelines.training.learn import learn, place
from pipelines.training.listener import Silence
from pipelines.training.material import extract
from pipelines.training.self_supervised import pretrain
from pipelines.transfer import probes, ranking
from pipelines.transfer.strategies import plan

RESULTS = children.HERE / "ranking.csv"
NETWORK, SMALL = "mobilenet_v2", "resnet10"
SCORED = ("linear probe", "knn", "logme", "h_score", "nleep")
KEY = ["task", "candidate", "seed"]


JUDGED = 16  # training images that choose among the epochs


@dataclass(frozen=True)
class Training:
    """How a question's candidates are scored and trained: on how many images, for how many epochs."""

    images: int
    epochs: int


TRAININGS = {"pneumonia": Training(images=64, epochs=12), "etiology": Training(images=128, epochs=8)}


def imagenet(seed: int) -> Network:
    return starting.start(NETWORK, "imagenet", outputs=1, dropout=0.2, seed=seed, download=False).network


def untrained(backbone: str, seed: int) -> Network:
    return starting.start(backbone, starting.SCRATCH, outputs=1, dropout=0.2, seed=seed).network


@torch.no_grad()
def beheaded(groups: int, seed: int) -> Network:
    """ImageNet's weights in the first layer groups only, random ones above."""
    network, other = imagenet(seed), untrained(NETWORK, seed)
    for own, random in list(zip(network.groups(), other.groups(), strict=True))[groups:-1]:
        for module, source in zip(own.modules, random.modules, strict=True):
            module.load_state_dict(source.state_dict())
    return network


@torch.no_grad()
def noisy(share: float, seed: int) -> Network:
    """ImageNet's weights with noise of `share` of each tensor's deviation."""
    network = imagenet(seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.trunk.parameters():
        if parameter.ndim > 1:
            parameter.add_(share * parameter.std() * torch.randn(parameter.shape, generator=generator))
    return network


@torch.no_grad()
def shuffled(seed: int) -> Network:
    """ImageNet's weights, each tensor's in random order."""
    network = imagenet(seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.trunk.parameters():
        if parameter.ndim > 1:
            flat = parameter.flatten()
            parameter.copy_(flat[torch.randperm(len(flat), generator=generator)].view_as(parameter))
    return network


def self_supervised(start: str, seed: int) -> Network:
    """Learnt without labels from the children who are in the test part of no question; once, then from the cache."""
    data = children.cohort()
    draws = [drawn(data, task, seed=0) for task in TRAININGS]
    judged = [data.patients[draw.test.rows] for draw in draws]
    rows = np.flatnonzero(~np.isin(data.patients, np.concatenate(judged)))
    settings = PretrainSection(weights=start, epochs=6, batch_size=32, device="cpu", seed=0)
    facts = {"settings": settings.model_dump(mode="json"), "rows": rows.tolist()}
    cached = children.CACHE / f"ssl-{start}-{children.fingerprint(facts)}.pt"
    beginning = imagenet if start == "imagenet" else functools.partial(untrained, NETWORK)
    if not cached.is_file():
        learner = beginning(0)
        pretrain(learner, data.examples(rows, np.full(len(data.patients), np.nan, np.float32)), settings, Unwatched())
        with files.replacing(cached) as temporary:
            torch.save(learner.trunk.state_dict(), temporary)
    network = beginning(seed)
    network.trunk.load_state_dict(torch.load(cached, weights_only=True))
    return network


class Unwatched:
    def noted(self, text: str) -> None: ...

    def stepped(self, epoch: int, images: int, loss: float) -> None: ...

    def epoch_ended(self, epoch: int, loss: float, spread: float) -> None:
        print(f"  without labels, epoch {epoch}: loss {loss:.3f}, spread {spread:.2f}", flush=True)


CANDIDATES: dict[str, Callable[[int], Network]] = {
    "ImageNet": imagenet,
    "ImageNet, last group random": lambda seed: beheaded(4, seed),
    "ImageNet, last two groups random": lambda seed: beheaded(3, seed),
    "ImageNet, last three groups random": lambda seed: beheaded(2, seed),
    "ImageNet with 30% noise": lambda seed: noisy(0.3, seed),
    "ImageNet shuffled": shuffled,
    "random": lambda seed: untrained(NETWORK, seed),
    "SimCLR from ImageNet": lambda seed: self_supervised("imagenet", seed),
    "SimCLR from random": lambda seed: self_supervised("scratch", seed),
    "random, ResNet-10": lambda seed: untrained(SMALL, seed),
}


def drawn(data: children.Cohort, task: str, seed: int) -> children.Draw:
    return children.draw(data, children.QUESTIONS[task], TRAININGS[task].images, seed)


def scores(network: Network, train: Examples) -> dict[str, float]:
    (material,), _ = extract(network, (train,), 32, Silence())
    known = probes.Examples(material.features.double().numpy(), train.labels.astype(float), train.grouped(), exclusive=False)
    ranked = ranking.judge(known, None)
    held_out = {kind: auroc(train.labels[:, 0], logits[:, 0]) for kind, logits in ranked.held_out.items()}
    own = {name: float("nan") if value is None else value for name, value in ranked.scores.items()}
    return {"linear probe": held_out["logistic_regression"], "knn": held_out["knn"], **own}


def fine_tuned(network: Network, draw: children.Draw, epochs: int, seed: int) -> float:
    """AUROC on the test part after fine-tuning; the epoch kept is judged on a few training images, as in label_efficiency."""
    settings = TrainSection.model_validate(
        {
            "backbone": network.name,
            "strategy": {"name": "differential", "batch_norm": "adaptive"},
            "epochs": epochs,
            "patience": epochs,
            "batch_size": 16,
            "seed": seed,
            "device": "cpu",
        }
    )
    train = draw.train
    some = np.argsort(train.labels[:, 0], kind="stable")[:: max(1, len(train) // JUDGED)]
    learn(network, plan(network, settings.strategy), children.TASK, train, train.take(some), settings, Silence())
    return children.area(network, draw.test)


def measured(data: children.Cohort, task: str, candidate: str, seed: int) -> dict[str, Any]:
    draw = drawn(data, task, seed)
    network = place(CANDIDATES[candidate](seed), children.CPU)
    started = time.perf_counter()
    scored = scores(network, draw.train)
    ranked = time.perf_counter()
    area = fine_tuned(network, draw, TRAININGS[task].epochs, seed)
    return {
        "task": task,
        "candidate": candidate,
        "seed": seed,
        "auroc": round(area, 6),
        **{name: round(scored[name], 6) for name in SCORED},
        "seconds_ranked": round(ranked - started, 1),
        "seconds_trained": round(time.perf_counter() - ranked, 1),
    }


def results() -> pd.DataFrame:
    return pd.read_csv(RESULTS) if RESULTS.is_file() else pd.DataFrame(columns=[*KEY, "auroc", *SCORED])


def report(table: pd.DataFrame) -> str:
    lines = [
        "# Ranking before training",
        "",
        "Children's chest radiographs (Kermany et al. 2018), 224 pixels. Each candidate is scored on the labelled training",
        "images alone, without training, then fine-tuned on them (`differential`, batch norm `adaptive`) and judged on test",
        "images of other patients. Weighted Kendall's τ says how well a score's order is that of the fine-tuned AUROC (1: the",
        "same, 0: no relation), the best counting most; mean over seeds of the training images [lowest, highest].",
        "",
        "| score | " + " | ".join(f"τ, {task}" for task in TRAININGS) + " |",
        "|---" * (len(TRAININGS) + 1) + "|",
    ]
    for name in SCORED:
        lines.append(f"| {name} | " + " | ".join(agreement(table[table["task"] == task], name) for task in TRAININGS) + " |")
    for task, training in TRAININGS.items():
        rows = table[table["task"] == task]
        if len(rows):
            lines += ["", f"## {task}, {training.images} training images", "", *standings(rows)]
    ranked, trained = (table[f"seconds_{what}"].median() for what in ("ranked", "trained"))
    lines += ["", f"Fine-tuning a candidate took {trained / ranked:.0f} times as long as ranking it (medians).", ""]
    return "\n".join([*lines, "Every row is in `ranking.csv`. Run again: `python benchmarks/ranking.py`.", ""])


def agreement(rows: pd.DataFrame, score: str) -> str:
    taus = [stats.weightedtau(part["auroc"], part[score]).statistic for _, part in rows.groupby("seed") if len(part) > 2]
    if not taus:
        return "–"
    if len(taus) == 1:
        return f"{taus[0]:.2f} (one seed)"
    return f"{np.mean(taus):.2f} [{min(taus):.2f}, {max(taus):.2f}], {len(taus)} seeds"


def standings(rows: pd.DataFrame) -> list[str]:
    means = rows.groupby("candidate")[["auroc", *SCORED]].mean().sort_values("auroc", ascending=False)
    lines = ["| candidate | fine-tuned AUROC | " + " | ".join(SCORED) + " |", "|---" * (len(SCORED) + 2) + "|"]
    for candidate, row in means.iterrows():
        lines.append(f"| {candidate} | {row['auroc']:.3f} | " + " | ".join(f"{row[name]:.3f}" for name in SCORED) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TRAININGS), choices=list(TRAININGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ.setdefault("RADTRANSFER_WEIGHTS", str(children.SHARED / "weights"))
    data = children.cohort()
    for seed in arguments.seeds:
        for task in arguments.tasks:
            for candidate in CANDIDATES:
                table = results()
                if ((table["task"] == task) & (table["candidate"] == candidate) & (table["seed"] == seed)).any():
                    continue
                row = pd.DataFrame([measured(data, task, candidate, seed)])
                table = pd.concat([table, row]) if len(table) else row
                files.write_text(RESULTS, table.sort_values(KEY, kind="stable").to_csv(index=False))
                print(row.to_string(index=False, header=False), flush=True)
    files.write_text(children.HERE / "ranking.md", report(results()))


if __name__ == "__main__":
    main()
