"""One training of a comparison: from the settings that its strategy takes, to what it says of the images that judge.

A trial is done once: its result is one file, named after it and good only for the fingerprint of everything that decides it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines import __version__, files
from pipelines.config import Config, StrategySection, TrainSection
from pipelines.errors import ConfigurationError, TrainingError, WeightsError
from pipelines.metrics.discrimination import macro_auroc
from pipelines.models import passports
from pipelines.models.device import choose_device
from pipelines.models.network import Network
from pipelines.models.starting import SCRATCH
from pipelines.paths import Paths
from pipelines.records import Task
from pipelines.training.assembly import settled, started_network
from pipelines.training.batches import Examples, in_order
from pipelines.training.checkpoint import Checkpoint, Saved, fingerprint
from pipelines.training.drawing import DRAWS, Ground
from pipelines.training.forgetting import Forgetting, forgotten, remember
from pipelines.training.learn import learn, place
from pipelines.training.listener import Epoch, Listener, Silence, Step
from pipelines.training.loop import Fitted
from pipelines.training.loss import probabilities
from pipelines.transfer.strategies import Plan, plan
from pipelines.transfer.table import SOLVED, STRATEGIES

EXPECTED = (ConfigurationError, WeightsError, TrainingError)  # what may keep one way to transfer from being tried
BY_CLASSIFIER = {"regularisation": SOLVED[:2], "neighbours": ("knn",), "hidden": ("mlp",)}


@dataclass(frozen=True)
class Trial:
    """Which source, BACKBONE@WEIGHTS, is transferred how, from how many labelled images (None: all), with which seed."""

    source: str
    strategy: str
    size: int | None
    seed: int

    @property
    def backbone(self) -> str:
        return self.source.rpartition("@")[0]

    @property
    def weights(self) -> str:
        return self.source.rpartition("@")[2]

    @property
    def name(self) -> str:
        """For people and for files."""
        plain = "".join(letter if letter.isalnum() or letter in "-_.@" else "-" for letter in self.source)
        return f"{plain} {self.strategy} {self.size or 'all'} seed {self.seed}"


@dataclass(frozen=True)
class Result:
    """What a trial came to.

    Attributes:
        identity: the fingerprint of everything that decided it.
        failed: why it could not be had; then only `trial`, `identity` and `passing` say anything.
        passing: the failure may pass, since a file of weights may come, so that it is tried again.
        scores: (judged images, outputs), probabilities of the main task.
        auroc: of them, mean over the outputs.
        settings: `train` as it was taken.
        strategy: what `recommended` came to, or the strategy itself.
        classifier: on cached features, or at the start; None without.
        images: labelled images that were learnt from.
        passes: images that went through the backbone to learn: forward and backward of each epoch and for relative gradients,
            forward for cached features and the statistics of batch norm.
        seconds: of training, early stopping included.
        epochs: trained, of which `best_epoch` was kept.
        trained: parameters that learned, of `parameters`.
        forgetting: see `training.forgetting`.
        history: epoch by epoch; validation is the share for early stopping.
    """

    trial: Trial
    identity: str
    failed: str | None = None
    passing: bool = False
    scores: NDArray[np.float64] | None = None
    auroc: float | None = None
    settings: Mapping[str, Any] | None = None
    strategy: str = ""
    classifier: str | None = None
    images: int = 0
    passes: int = 0
    seconds: float = 0.0
    epochs: int = 0
    best_epoch: int = 0
    trained: int = 0
    parameters: int = 0
    forgetting: Forgetting | None = None
    history: tuple[Mapping[str, float], ...] = ()


class Identities:
    """The fingerprints of trials: of the versions, the settings, the images, the labels, the split, the draws and the weights."""

    def __init__(self, config: Config, paths: Paths, ground: Ground) -> None:
        self._train, self._ground = config.train, ground
        self._weights: dict[str, str | None] = {}
        self._facts = {
            "versions": {"radtransfer": __version__, "torch": torch.__version__},
            "task": config.task.model_dump(mode="json"),
            "stopping": [config.compare.stopping, config.compare.seed],
            "draws": DRAWS,
            "recipe": files.read_json(paths.prepared / "recipe.json", made_by="prepare"),
            **{path.name: files.sha256(path) for path in (paths.index, paths.labels, paths.split) if path.is_file()},
        }

    def of(self, trial: Trial) -> str:
        if trial.source not in self._weights:
            self._weights[trial.source] = _weights_hash(trial)
        own = {"trial": asdict(trial), "weights": self._weights[trial.source], "settings": self._settings(trial)}
        return fingerprint({**self._facts, **own})

    def _settings(self, trial: Trial) -> dict[str, Any] | None:
        """What the trial is trained by; None where its images cannot be drawn."""
        try:
            train = self._ground.draw(trial.size, trial.seed)
        except TrainingError:
            return None
        settings, _ = fitting(trial, self._train, train, self._ground.task)
        return settings.model_dump(mode="json", exclude={"operating_point"})


def _weights_hash(trial: Trial) -> str | None:
    """Of the checkpoint that would be taken; None from scratch, and where there is none yet."""
    if trial.weights == SCRATCH:
        return None
    try:
        return passports.find(trial.weights, trial.backbone, download=False).passport.sha256
    except WeightsError:
        return None


def kept(paths: Paths, trial: Trial, identity: str) -> Result | None:
    """The result of an earlier call, if nothing that decides it has changed."""
    saved = Checkpoint(paths.comparison / "runs", identity).read(trial.name)
    if saved is None:
        return None
    facts = dict(saved.facts["result"])
    forgetting = facts.pop("forgetting")
    scores = saved.tensors["scores"].double().numpy() if "scores" in saved.tensors else None
    return Result(
        **{**facts, "trial": trial, "history": tuple(facts["history"]), "scores": scores, "identity": identity},
        forgetting=Forgetting(**forgetting) if forgetting else None,
    )


def perform(trial: Trial, config: Config, paths: Paths, ground: Ground, listener: Listener | None = None) -> Result:
    """Train, judge, and keep the result; what this way to transfer cannot do (`EXPECTED`) is kept as its failure."""
    try:
        result = _tried(trial, config, ground, listener or Silence())
    except EXPECTED as error:
        result = Result(trial, "", failed=str(error), passing=isinstance(error, WeightsError))
    # only now, since weights may have been downloaded
    result = replace(result, identity=Identities(config, paths, ground).of(trial))
    facts = asdict(replace(result, scores=None))
    for name in ("trial", "scores", "identity"):
        del facts[name]
    tensors = {} if result.scores is None else {"scores": torch.from_numpy(result.scores)}
    Checkpoint(paths.comparison / "runs", result.identity).write(trial.name, Saved(tensors, {"result": facts}))
    return result


def _tried(trial: Trial, config: Config, ground: Ground, listener: Listener) -> Result:
    task, train = ground.task, ground.draw(trial.size, trial.seed)
    settings, told = fitting(trial, config.train, train, task)
    if told:
        listener.noted(told)
    key = "params.yaml compare.sources" if config.compare.sources else passports.KEY
    start = started_network(settings, task, ground.size, key)
    network = place(start.network, choose_device(settings.device))
    planned = plan(network, settings.strategy)
    judged, counting = ground.judged.examples, Counting(listener)
    memory = remember(start, planned, judged, settings.batch_size)
    listener.planned(planned)
    began = time.perf_counter()
    fitted = learn(network, planned, task, train, ground.stopping.examples, settings, counting)
    seconds, epochs = time.perf_counter() - began, fitted.history[-1].epoch
    scores = _scores(network.eval(), judged, ground, settings.batch_size)
    auroc = macro_auroc(judged.labels[:, : len(task.columns)], scores)
    if np.isnan(scores).any() or np.isnan(auroc):
        raise TrainingError("validation part: expected finite probabilities, got NaN; lower train.strategy.learning_rate")
    return Result(
        trial=trial,
        identity="",
        scores=scores,
        auroc=auroc,
        settings=settings.model_dump(mode="json"),
        strategy=planned.strategy,
        classifier=planned.classifier,
        images=len(train),
        passes=len(train) * counting.extracted + (0 if planned.cached else counting.learnt) + counting.beside,
        seconds=seconds,
        epochs=epochs,
        best_epoch=fitted.best_epoch,
        trained=planned.until(fitted.best_epoch).trained,
        parameters=planned.parameters,
        forgetting=forgotten(memory, network, judged, settings.batch_size),
        history=_history(fitted),
    )


def fitting(trial: Trial, settings: TrainSection, train: Examples, task: Task) -> tuple[TrainSection, str | None]:
    """`train` with the trial's network, seed and strategy, and of the rest what that strategy has a use for.

    The strategy that `train` names is taken as it is told there. Another one takes the options that it declares, batch norm
    where it can have it, and its own default rates, since rates are chosen for one strategy.

    Returns:
        The settings, and the line that says what was recommended, if that was asked for.
    """
    source = {"backbone": trial.backbone, "weights": trial.weights, "seed": trial.seed}
    as_told = trial.strategy == settings.strategy.name
    strategy = settings.strategy if as_told else StrategySection(name=trial.strategy)
    chosen, line = settled(settings.model_copy(update={**source, "strategy": strategy}), train, task)
    if not as_told:
        chosen = chosen.model_copy(update={"strategy": _told(chosen.strategy, settings.strategy)})
    return _tolerated(chosen), line


def _told(own: StrategySection, told: StrategySection) -> StrategySection:
    """A strategy's settings with what it has a use for of those of another one."""
    if own.name == told.name:
        return told
    strategy = STRATEGIES[own.name]
    options = {name: getattr(told, name) for name in strategy.options if name != "rates" and getattr(own, name) is None}
    if options.get("classifier") not in strategy.classifiers:
        options["classifier"] = None
    classifier = options["classifier"] or strategy.classifier
    options |= {name: None for name, users in BY_CLASSIFIER.items() if classifier not in users}
    if strategy.learns not in ("head", "adapters") and strategy.pretrained:
        options["batch_norm"] = told.batch_norm
    decay = told.decay if strategy.decays else own.decay
    return own.model_copy(update={**options, "decay": decay, "warmup_epochs": told.warmup_epochs})


def _tolerated(settings: TrainSection) -> TrainSection:
    """The settings without regularisers that the strategy has no use for."""
    strategy = STRATEGIES[settings.strategy.name]
    changes: dict[str, Any] = {}
    if strategy.learns == "head":
        changes["stochastic_depth"] = None
    if strategy.cached and (settings.strategy.classifier or strategy.classifier) in SOLVED:
        changes |= {"label_smoothing": 0.0, "mixup": 0.0, "ema": None}
    return settings.model_copy(update=changes)


def changes(told: TrainSection, taken: Mapping[str, Any]) -> dict[str, Any]:
    """What to `--set` for a training by the settings that a trial has taken, but for its seed."""
    before = dict(flat(told.model_dump(mode="json")))
    return {f"train.{key}": value for key, value in flat(taken) if value != before.get(key) and key != "seed"}


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted key; the rates of layer groups are one setting."""
    for key, value in values.items():
        if isinstance(value, dict) and key != "rates":
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _scores(network: Network, judged: Examples, ground: Ground, batch_size: int) -> NDArray[np.float64]:
    """Probabilities of the main task, (images, outputs), in fp32."""
    task, device = ground.task, next(iter(network.buffers())).device
    with torch.inference_mode():
        answers = [
            probabilities(network(images)[:, : len(task.columns)], exclusive=task.kind == "multiclass").cpu()
            for images in judged.images(in_order(len(judged), batch_size), device)
        ]
    scores: NDArray[np.float64] = torch.cat(answers).double().numpy()
    return scores


def _history(fitted: Fitted) -> tuple[Mapping[str, float], ...]:
    return tuple(asdict(epoch) for epoch in fitted.history)


class Counting:
    """Counts the images that are learnt from, and lets another listener hear everything."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.learnt = 0
        self.extracted = False
        self.beside = 0

    def planned(self, plan: Plan) -> None:
        self._listener.planned(plan)

    def noted(self, text: str) -> None:
        self._listener.noted(text)

    def extracting(self, done: int, total: int) -> None:
        self.extracted = True
        self._listener.extracting(done, total)

    def passed(self, images: int) -> None:
        self.beside += images
        self._listener.passed(images)

    def epoch_started(self, epoch: int, epochs: int, images: int) -> None:
        self._listener.epoch_started(epoch, epochs, images)

    def stepped(self, step: Step) -> None:
        self.learnt += step.images
        self._listener.stepped(step)

    def epoch_ended(self, epoch: Epoch, *, best: bool) -> None:
        self._listener.epoch_ended(epoch, best=best)
