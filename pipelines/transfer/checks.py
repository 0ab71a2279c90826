"""What a strategy cannot be, has no use for, or cannot do to a network: refused with the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.config import StrategySection, TrainSection
from pipelines.errors import ConfigurationError
from pipelines.models.backbones import Network
from pipelines.transfer import adapters
from pipelines.transfer.batch_norm import batch_norms
from pipelines.transfer.table import SOLVED, STRATEGIES, BatchNorm, Strategy

if TYPE_CHECKING:
    from pipelines.transfer.strategies import Plan

DECAY = StrategySection.model_fields["decay"].default  # which a strategy without a use for it need not mention


def check_settings(settings: StrategySection) -> None:
    """Refuse what the strategy cannot be or has no use for.

    Raises:
        ConfigurationError: naming the setting, what was expected, and which strategy would use it.
    """
    name = settings.name
    if name not in STRATEGIES:
        raise ConfigurationError(
            f"params.yaml train.strategy.name: {name} depends on the data, which are not known here; "
            f"choose one of {', '.join(STRATEGIES)}"
        )
    strategy = STRATEGIES[name]
    optional = {option for other in STRATEGIES.values() for option in other.options}
    for option in sorted(optional - set(strategy.options)):
        if value := getattr(settings, option):
            users = ", ".join(other for other in STRATEGIES if option in STRATEGIES[other].options)
            nothing = "{}" if option == "rates" else "null"
            raise _wrong(option, f"expected {nothing} for {name}, which has no use for it, got {value}; it is for {users}")
    if settings.classifier and settings.classifier not in strategy.classifiers:
        raise _wrong("classifier", f"expected {' or '.join(strategy.classifiers)} for {name}, got {settings.classifier}")
    _check_classifier(settings, strategy)
    if settings.batch_norm == "trained" and strategy.learns in ("head", "adapters"):
        raise _wrong(
            "batch_norm",
            f"expected frozen, adaptive or null for {name}, whose backbone does not learn, got trained; choose the strategy "
            "full or differential to train batch norm",
        )
    if settings.batch_norm in ("frozen", "adaptive") and not strategy.pretrained:
        raise _wrong(
            "batch_norm",
            f"expected trained or null for {name}, whose statistics are not learnt yet, got {settings.batch_norm}",
        )


def check_network(network: Network, settings: StrategySection, batch_norm: BatchNorm) -> None:
    """Refuse what the strategy cannot do to this network.

    Raises:
        ConfigurationError: a layer group that it does not have, a rate of 0 for what has to learn, no batch norm to adapt, or
            no attention for adapters.
    """
    names = [group.name for group in network.groups()]
    if unknown := sorted(set(settings.rates) - set(names)):
        raise _wrong("rates", f"expected layer groups of {network.name} ({', '.join(names)}), got {', '.join(unknown)}")
    _check_rates(settings, names)
    if settings.groups and settings.groups >= len(names):
        raise _wrong("groups", f"expected at most {len(names) - 1}, the layer groups of {network.name}, got {settings.groups}")
    if batch_norm == "adaptive" and not any(True for _ in batch_norms(network)):
        raise _wrong("batch_norm", f"expected frozen or null for {network.name}, which has no batch norm, got adaptive")
    if STRATEGIES[settings.name].learns == "adapters" and not adapters.targets(network.trunk):
        raise _wrong("name", f"lora puts adapters into attention, and {network.name} has none; choose a transformer (a ViT)")


def unused(plan: Plan, settings: TrainSection) -> str | None:
    """The settings of `train` that are in effect elsewhere and come to nothing under this plan, in words; None without any.

    Defaults that come to nothing are no mistake, and neither is changing the strategy alone, so that nothing is refused.
    """
    solved, still = plan.solved, plan.cached
    rules = {
        "augment": (still and any(settings.augment.model_dump().values()), "features are computed once, from images as they are"),
        "epochs, train.patience, train.weight_decay, train.strategy.warmup_epochs": (solved, "a solver finds it in one go"),
        "dropout": (settings.dropout > 0 and (solved or plan.begins_solved), "the head that a solver finds has none"),
        "class_weighting": (plan.classifier == "knn" and settings.class_weighting != "none", "neighbours vote as they are"),
        "strategy.decay": (
            not STRATEGIES[plan.strategy].decays and settings.strategy.decay != DECAY,
            "its rates do not fall from group to group",
        ),
    }
    said = [f"train.{names} ({why})" for names, (comes_to_nothing, why) in rules.items() if comes_to_nothing]
    what = f"{plan.strategy} with {plan.classifier}" if plan.classifier else plan.strategy
    return f"{what} has no use for {'; '.join(said)}" if said else None


def _check_rates(settings: StrategySection, groups: list[str]) -> None:
    """A head of random numbers has to learn, and beside one that a solver finds something else."""
    still = [group for group in groups if settings.rates.get(group) == 0]
    if "head" in still and not STRATEGIES[settings.name].classifiers:
        raise _wrong("rates", f"expected a rate above 0 for head, which begins at random numbers for {settings.name}, got 0")
    if still == groups:
        raise _wrong("rates", "expected a layer group that learns, got 0 for all; choose the strategy feature_extraction")


def _check_classifier(settings: StrategySection, strategy: Strategy) -> None:
    """Each option of a classifier is for that one only."""
    chosen = settings.classifier or strategy.classifier
    uses = {"regularisation": ("logistic_regression", "linear_svm"), "neighbours": ("knn",), "hidden": ("mlp",)}
    for option, classifiers in uses.items():
        if getattr(settings, option) and chosen not in classifiers:
            raise _wrong(
                option,
                f"expected null for the classifier {chosen}, got {getattr(settings, option)}; "
                f"it is for {' and '.join(classifiers)}",
            )
    if settings.learning_rate and strategy.cached and chosen in SOLVED:
        raise _wrong(
            "learning_rate",
            f"expected null for the classifier {chosen}, which a solver finds, got {settings.learning_rate}; "
            "choose linear or mlp to learn in steps",
        )


def _wrong(option: str, words: str) -> ConfigurationError:
    return ConfigurationError(f"params.yaml train.strategy.{option}: {words}")
