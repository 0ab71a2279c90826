"""What a comparison says, in words that a radiologist and an engineer both read: better, worse, or not to be told apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipelines.metrics.intervals import Interval

WAYS = {
    "head_only": "training the head alone",
    "last_groups": "fine-tuning the last layers",
    "gradual": "unfreezing layer by layer",
    "lp_ft": "a linear probe, then fine-tuning",
    "full": "fine-tuning all layers",
    "differential": "fine-tuning all layers at decaying rates",
    "auto_rgn": "fine-tuning by relative gradients",
    "lora": "low-rank adapters",
    "l2_sp": "fine-tuning held to the source",
    "scratch": "training from scratch",
}
CLASSIFIERS = {
    "linear": "a linear probe",
    "logistic_regression": "a linear probe",
    "linear_svm": "a linear SVM on cached features",
    "knn": "nearest neighbours on cached features",
    "mlp": "a small network on cached features",
}


def way(asked: str, came_to: Mapping[str, str | None], source: str | None) -> str:
    """A way to transfer in words, with its name in params.yaml.

    Args:
        asked: the name, which may be `recommended`.
        came_to: what that came to, each strategy with its classifier on cached features.
        source: named where there are several.
    """
    words = (
        CLASSIFIERS[classifier or "linear"] if strategy == "feature_extraction" else WAYS[strategy]
        for strategy, classifier in came_to.items()
    )
    return f"{' or '.join(words)} ({called(asked, came_to, source)})"


def called(asked: str, came_to: Iterable[str], source: str | None) -> str:
    """Its name alone; arguments as for `way`."""
    taken = " or ".join(came_to)
    name = asked if asked == taken else f"{asked}: {taken}"
    return f"{name}, {source}" if source else name


def verdict(name: str, rival: str, difference: Interval, *, of_transfer: bool = False) -> str:
    """What the AUROC of `name` minus that of `rival` says; `of_transfer` where the rival was trained from scratch.

    A sentence claims a difference only where the interval does not hold 0.
    """
    if difference.value is None:
        return f"{name} against {rival}: undefined, since a class is missing"
    how = sign(difference)
    if not how:
        return f"{name} cannot be told apart from {rival}: {numbers(difference)}"
    leads = {1: "transfer helps: ", -1: "transfer hurts: "} if of_transfer else {}
    return f"{leads.get(how, '')}{name} is {'better' if how > 0 else 'worse'} than {rival} here: {numbers(difference)}"


def sign(difference: Interval) -> int:
    """1 or -1 where a difference is surely above or below 0, else 0."""
    if difference.low is None or difference.high is None:
        return 0
    return int(difference.low > 0) - int(difference.high < 0)


def numbers(difference: Interval) -> str:
    """A difference with its interval, e.g. −0.021 AUROC [−0.039, −0.004]."""
    if difference.value is None:
        return "undefined"
    if difference.low is None or difference.high is None:
        return f"{signed(difference.value)} AUROC, too few patients for an interval"
    return f"{signed(difference.value)} AUROC [{signed(difference.low)}, {signed(difference.high)}]"


def signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−") if abs(value) >= 0.0005 else "0.000"
