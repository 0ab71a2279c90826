"""Trainings of a comparison as tasks: one after the other, in several processes, or on Ray."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.futures import wait
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from flows.failures import speak_plainly
from pipelines import config
from pipelines.config import CompareSection, Config
from pipelines.errors import ConfigurationError, discreet
from pipelines.paths import Paths
from pipelines.stages import compare as comparison
from pipelines.stages.compare import CompareSummary
from pipelines.training.trial import Trial

# Ray would otherwise write a token into the home folder, and report on its user
QUIET_RAY = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
WILLING_RAY = {"RAY_worker_niceness": "0"}  # by default its workers give way to every other program


# no retries: the same inputs give the same outcome
@task(name="compare", task_run_name="{trial.name}")
def train(workspace: str, settings: Sequence[str], trial: Trial, workers: int) -> None:
    """One training; a worker that shares the machine with others takes its share of the cores."""
    import torch

    with discreet():
        if workers > 1:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
        paths = Paths(Path(workspace))
        comparison.train(config.load(paths.params, settings), paths, trial)


def compare(workspace: str = ".", settings: Sequence[str] = ()) -> CompareSummary:
    """Train what `compare` in params.yaml asks for and was not trained before, by its task runner, then compare.

    Raises:
        ConfigurationError: `compare.runner` is ray, and prefect-ray is not installed; otherwise errors as for the stage.
    """
    with discreet():
        paths = Paths(Path(workspace).resolve())
        section = config.load(paths.params, settings).compare
        runner = RUNNERS[section.runner](section)
    chosen: Any = _compare.with_options(task_runner=runner)
    summary: CompareSummary = chosen(str(paths.workspace), list(settings), section.workers if section.runner != "local" else 1)
    return summary


@flow(name="compare", flow_run_name="compare")
def _compare(workspace: str, settings: list[str], workers: int) -> CompareSummary:
    speak_plainly()
    paths = Paths(Path(workspace))
    with discreet():
        loaded: Config = config.load(paths.params, settings)
        todo = comparison.outstanding(loaded, paths)
    futures = [train.submit(workspace, settings, trial, workers) for trial in todo]
    wait(futures)
    for future in futures:
        future.result()
    with discreet():
        return comparison.conclude(loaded, paths, trained=len(todo))


def _ray(section: CompareSection) -> TaskRunner[Any]:
    os.environ.update(QUIET_RAY | WILLING_RAY)
    try:
        from prefect_ray import RayTaskRunner
    except ImportError:
        raise ConfigurationError(
            "params.yaml compare.runner: expected prefect-ray for ray, which is not installed; `pip install 'radtransfer[ray]'`, "
            "or take local or processes"
        ) from None
    # workers find the package where this process does
    environment = {"env_vars": {**QUIET_RAY, "PYTHONPATH": _source()}}
    options = {"num_cpus": section.workers, "include_dashboard": False, "runtime_env": environment, "log_to_driver": False}
    runner: TaskRunner[Any] = RayTaskRunner(address=os.environ.get("RAY_ADDRESS"), init_kwargs=_for_cluster(options))
    return runner


def _for_cluster(options: Mapping[str, Any]) -> dict[str, Any]:
    """What may be told to a cluster that is there (RAY_ADDRESS), or to one that is started for this."""
    started_here = ("num_cpus", "include_dashboard")
    return {name: value for name, value in options.items() if name not in started_here or not os.environ.get("RAY_ADDRESS")}


def _source() -> str:
    root = str(Path(__file__).parents[1])
    return os.pathsep.join(dict.fromkeys([root, *filter(None, [os.environ.get("PYTHONPATH")])]))


# torch's switches are of a whole process, so that threads would disturb one another
RUNNERS: dict[str, Callable[[CompareSection], TaskRunner[Any]]] = {
    "local": lambda section: ThreadPoolTaskRunner(max_workers=1),
    "processes": lambda section: ProcessPoolTaskRunner(max_workers=section.workers),
    "ray": _ray,
}
