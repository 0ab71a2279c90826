"""The methods of domain adaptation, as data, and what they cannot be combined with: refused with the remedy."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.config import TrainSection
from pipelines.errors import ConfigurationError
from pipelines.models.backbones import Network
from pipelines.transfer.batch_norm import batch_norms
from pipelines.transfer.strategies import STRATEGIES, Plan


@dataclass(frozen=True)
class Method:
    """One way to learn for a hospital without labels.

    Attributes:
        describes: what it does, for a person.
        source: where it is published.
        weight: the default weight of the discrepancy against the task's loss; 0 for a method that adds none.
    """

    describes: str
    source: str
    weight: float = 0.0

    @property
    def in_steps(self) -> bool:
        """Whether it takes part in every step, else it acts once, after the training."""
        return self.weight > 0


METHODS: dict[str, Method] = {
    "adabn": Method(
        describes="batch-norm statistics of the target in the place of the source's, once the training is over",
        source="Li et al., Pattern Recognition 80 (2018), arXiv 1603.04779 (2016)",
    ),
    "coral": Method(
        describes="features of both hospitals with the same covariances",
        source="Sun and Saenko, ECCV workshops 2016",
        weight=10.0,
    ),
    "mmd": Method(
        describes="features of both hospitals with the same kernel means",
        source="Long et al., ICML 2015",
        weight=1.0,
    ),
    "dann": Method(
        describes="features from which an adversary cannot tell the hospitals",
        source="Ganin et al., JMLR 2016",
        weight=1.0,
    ),
}


def settled(settings: TrainSection) -> TrainSection:
    """The settings with batch norm as the method needs it, where it was left to the defaults.

    AdaBN normalises each hospital by statistics of its own, so that the source has to be normalised by its own too: those
    of the training images, not those that came with the weights.
    """
    strategy = settings.strategy
    frozen = STRATEGIES[strategy.name].batch_norm == "frozen"
    if settings.adaptation.method != "adabn" or strategy.batch_norm or not frozen:
        return settings
    return settings.model_copy(update={"strategy": strategy.model_copy(update={"batch_norm": "adaptive"})})


def check_network(settings: TrainSection, network: Network) -> None:
    """Refuse what the method cannot do to this network, or beside these settings.

    Raises:
        ConfigurationError: naming the setting, what was expected, and the remedy.
    """
    section, strategy = settings.adaptation, settings.strategy
    if section.method is None:
        if section.sites or section.weight:
            option, value = ("sites", list(section.sites)) if section.sites else ("weight", section.weight)
            raise _wrong(option, f"expected nothing without a method, got {value}; set train.adaptation.method")
        return
    if section.weight and not METHODS[section.method].in_steps:
        raise _wrong("weight", f"expected null for {section.method}, which adds nothing to the loss, got {section.weight:g}")
    if section.method != "adabn":
        if settings.mixup:
            raise _wrong(
                "method",
                f"expected null or adabn beside train.mixup: {settings.mixup:g}, whose mixtures are images of no hospital, got "
                f"{section.method}; set train.mixup: 0",
            )
        return
    if not any(True for _ in batch_norms(network)):
        raise _wrong("method", f"adabn needs batch norm, and {network.name} has none; choose coral, mmd or dann")
    if strategy.batch_norm == "frozen":
        raise ConfigurationError(
            "params.yaml train.strategy.batch_norm: expected adaptive, trained or null beside adabn, which normalises each "
            "hospital by its own statistics, got frozen"
        )


def check_plan(settings: TrainSection, plan: Plan) -> None:
    """Refuse to match the features of a backbone that does not learn.

    Raises:
        ConfigurationError: the method changes features in steps, and the plan lets only the head learn.
    """
    method = settings.adaptation.method
    if method and METHODS[method].in_steps and not any(group.learning_rate for group in plan.groups[:-1]):
        raise _wrong(
            "method",
            f"{method} changes the features, and the backbone does not learn with {plan.strategy}; choose adabn, or a strategy "
            "such as differential or full",
        )


def _wrong(option: str, words: str) -> ConfigurationError:
    return ConfigurationError(f"params.yaml train.adaptation.{option}: {words}")
