"""A comparison in MLflow: one parent run with the figures, and a run of every training below it.

Each run is known again by what decided it, so that a comparison that is logged twice, or was cut short, is there once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from pipelines import __version__
from pipelines.config import Config
from pipelines.paths import Paths
from pipelines.tracking.client import NEUTRAL, experiment_of, metric_name, record, speaking
from pipelines.training.contest import Contest, Way
from pipelines.training.trial import Result, flat

IDENTITY = "compare.identity"
FIGURES = ("comparison.json", "runs.csv")
FAILED = "compare.failed"


@dataclass(frozen=True)
class _Entry:
    """What one run says; `failed` tells why there is nothing to say."""

    name: str
    identity: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    tags: Mapping[str, str]
    history: Sequence[Mapping[str, float]] = ()
    failed: str | None = None


def log(config: Config, paths: Paths, results: Sequence[Result], found: Contest) -> str:
    """Log a comparison that was written to artifacts/compare; gives the id of its parent run.

    Raises:
        ServiceError: MLflow does not answer, or refuses.
    """
    paths.mlflow.mkdir(parents=True, exist_ok=True)
    with speaking(paths) as client:
        experiment = experiment_of(client, paths, config.registration.experiment)
        parent = _logged(client, experiment, _parent(config, results, found), finish=False)
        for result in results:
            _logged(client, experiment, _child(result), parent=parent)
        for name in FIGURES:
            client.log_artifact(parent, str(paths.comparison / name))
        client.log_artifacts(parent, str(paths.comparison / "figures"), "figures")
        client.set_terminated(parent)
    return parent


def _logged(client: MlflowClient, experiment: str, entry: _Entry, *, parent: str | None = None, finish: bool = True) -> str:
    """The id of the run of this entry, which is made unless it is there and complete."""
    known = _known(client, experiment, entry.identity, parent)
    if known is not None and known.info.status in ("FINISHED", "FAILED"):
        identifier: str = known.info.run_id
        return identifier
    if known is None:
        tags = {**NEUTRAL, **entry.tags, IDENTITY: entry.identity, "radtransfer.version": __version__}
        tags |= {MLFLOW_PARENT_RUN_ID: parent} if parent else {}
        known = client.create_run(experiment, run_name=entry.name, tags=tags)
    identifier = known.info.run_id
    began = known.info.start_time
    record(client, identifier, entry.parameters, entry.metrics, _curves(entry.history, began), began)
    if entry.failed:
        client.set_tag(identifier, FAILED, entry.failed)
    if finish:
        client.set_terminated(identifier, "FAILED" if entry.failed else "FINISHED")
    return identifier


def _known(client: MlflowClient, experiment: str, identity: str, parent: str | None) -> Run | None:
    wanted = f"tags.`{IDENTITY}` = '{identity}'" + (f" and tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'" if parent else "")
    return next(iter(client.search_runs([experiment], wanted, max_results=1)), None)


def _parent(config: Config, results: Sequence[Result], found: Contest) -> _Entry:
    identities = sorted(result.identity or result.trial.name for result in results)
    settings = config.compare.model_dump(mode="json", exclude={"runner", "workers", "mlflow"})
    decided = "\n".join([*identities, repr(sorted(settings.items()))])
    networks = dict.fromkeys(result.trial.backbone for result in results)
    metrics: dict[str, float | None] = {}
    for way in found.final:
        for name, interval in (("auroc", way.auroc), ("over_scratch", way.over_scratch)):
            if interval is not None:
                metrics |= {f"{way.label}/{name}{end}": getattr(interval, key) for end, key in _ENDS}
    return _Entry(
        name=f"compare {', '.join(networks)}",
        identity=hashlib.sha256(decided.encode()).hexdigest(),
        parameters={f"compare.{key}": value for key, value in settings.items()},
        metrics={**metrics, "best_auroc": found.final[0].auroc.value},
        tags={"compare.best": found.final[0].label, MLFLOW_RUN_NOTE: _note(found.final, found.verdicts)},
    )


_ENDS = (("", "value"), ("_low", "low"), ("_high", "high"))


def _note(ways: Sequence[Way], verdicts: Sequence[str]) -> str:
    lines = "\n".join(f"- {line}" for line in verdicts)
    return f"{len(ways)} ways to transfer, judged on the validation part, which the best was chosen by.\n\n{lines}"


def _child(result: Result) -> _Entry:
    trial, forgetting = result.trial, result.forgetting
    return _Entry(
        name=trial.name,
        identity=result.identity or trial.name,
        parameters={
            "source": trial.source,
            "strategy": trial.strategy,
            "resolved": result.strategy,
            "size": trial.size or "all",
            "seed": trial.seed,
            **{f"train.{key}": value for key, value in flat(result.settings or {})},
        },
        metrics={}
        if result.failed
        else {
            "auroc": result.auroc,
            "images": result.images,
            "passes": result.passes,
            "seconds": result.seconds,
            "best_epoch": result.best_epoch,
            "trained_parameters": result.trained,
            "source_agreement": forgetting.agreement if forgetting else None,
            "source_divergence": forgetting.divergence if forgetting else None,
        },
        tags={"compare.strategy": trial.strategy, "compare.source": trial.source},
        history=result.history,
        failed=result.failed,
    )


def _curves(history: Sequence[Mapping[str, float]], moment: int) -> Iterator[Metric]:
    for epoch in history:
        for name, value in epoch.items():
            if name != "epoch" and math.isfinite(value):
                yield Metric(metric_name(f"stopping/{name}"), float(value), moment, int(epoch["epoch"]))
