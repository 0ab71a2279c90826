"""The section `task` of params.yaml: the main task, and what the network learns besides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipelines.config_types import Section
from pipelines.errors import ConfigurationError
from pipelines.records import Head, Task

ORDERED = ("multiclass", "ordinal")  # kinds whose target holds one of several classes
SEVERAL = ("multilabel",)
BESIDE = ("regression", "ordinal")  # kinds that have no AUROC for the split, the gates and the shortcut audit to go by


class FurtherTaskSection(Section):
    """a task beside the main one, on the same network"""

    kind: Literal["binary", "multilabel", "multiclass", "regression", "ordinal"] = Field(
        description="binary, multilabel, multiclass, regression or ordinal"
    )
    targets: tuple[str, ...] = Field((), description="label columns; [] takes the one that is called like the task")
    classes: tuple[str, ...] = Field((), description="the classes of a multiclass or ordinal target, in order")
    unit: str = Field("", description="of a regression target, e.g. years")
    bounds: tuple[float, float] | None = Field(None, description="least and largest value of a regression target; null: any")
    weight: float = Field(1.0, gt=0, le=1000, description="of its loss in the sum")

    @model_validator(mode="after")
    def _consistent(self) -> FurtherTaskSection:
        _check(self.kind, self.targets, self.classes)
        if self.kind != "regression" and (self.unit or self.bounds):
            raise ValueError("unit and bounds for a regression, and only there")
        if self.bounds and not self.bounds[0] < self.bounds[1]:
            raise ValueError("bounds: the least value below the largest")
        return self

    def declared(self, name: str) -> Head:
        return Head(self.kind, self.targets or (name,), self.classes, name, self.unit, self.bounds, self.weight)


class TaskSection(Section):
    """what the network learns to say"""

    kind: Literal["binary", "multilabel", "multiclass"] = Field("binary", description="binary, multilabel or multiclass")
    targets: tuple[str, ...] = Field((), description="label columns (0, 1 or empty); [] lets ingest declare them from the table")
    classes: tuple[str, ...] = Field((), description="the classes of a multiclass target, in order")
    also: dict[str, FurtherTaskSection] = Field(
        {}, description="further tasks on the same network, e.g. {age: {kind: regression, unit: years}}; see README"
    )
    weight: float = Field(1.0, gt=0, le=1000, description="of this task's loss, where there are further ones")
    weighting: Literal["fixed", "uncertainty"] = Field(
        "fixed", description="fixed weights, or learned from each task's uncertainty (Kendall et al., 2018)"
    )

    @field_validator("kind", mode="before")
    @classmethod
    def _main(cls, kind: Any) -> Any:
        if kind in BESIDE:
            raise ValueError(
                "binary, multilabel or multiclass for the main task, by which the split is balanced, the gates judge and "
                f"shortcuts are audited, got {kind}; name a main task, and this one in task.also: {{NAME: {{kind: {kind}}}}}"
            )
        return kind

    @model_validator(mode="after")
    def _consistent(self) -> TaskSection:
        _check(self.kind, self.targets, self.classes)
        weights = [self.weight, *(task.weight for task in self.also.values())]
        if self.weighting == "uncertainty" and (not self.also or any(weight != 1 for weight in weights)):
            raise ValueError("for weighting: uncertainty several tasks (also), and no weight but 1, since weights are learned")
        if not self.also and self.weight != 1:
            raise ValueError("a weight only where there are further tasks (also)")
        if "" in self.also:
            raise ValueError("a name for every task of also")
        heads = [task.declared(name) for name, task in self.also.items()]
        columns = [*self.targets, *(target for head in heads for target in head.targets)]
        outputs = [*(self.classes or self.targets), *(output for head in heads for output in head.outputs)]
        for found in (columns, outputs):
            if several := _several(found):
                raise ValueError(f"every label column in one task, and every output once; {', '.join(several)} is in several")
        named = {*self.also, *(target for head in heads for target in head.targets)}
        if clash := sorted(named & {*self.targets, *self.classes}):
            raise ValueError(
                f"names of further tasks and of their columns that the main task does not use, {', '.join(clash)} is one"
            )
        return self

    def declared(self) -> Task:
        """The task, once its targets are declared.

        Raises:
            ConfigurationError: `task.targets` is still empty.
        """
        if not self.targets:
            raise ConfigurationError(
                "params.yaml task.targets: expected the label columns to learn, got []; "
                "run `radtransfer ingest SOURCE --labels FILE.csv` or name them"
            )
        also = tuple(task.declared(name) for name, task in self.also.items())
        return Task(self.kind, self.targets, self.classes, weight=self.weight, also=also, weighting=self.weighting)


def _check(kind: str, targets: tuple[str, ...], classes: tuple[str, ...]) -> None:
    if kind not in SEVERAL and len(targets) > 1:
        raise ValueError(f"one target for a {kind} task, got {len(targets)}; set kind: multilabel for several")
    if (kind in ORDERED) != bool(classes):
        raise ValueError("classes for a multiclass task, and only there" if kind != "ordinal" else "classes, in order")
    if kind in ORDERED and len(classes) < 2:
        raise ValueError("at least two classes")
    for names in (targets, classes):
        if len(set(names)) < len(names):
            raise ValueError("every target and every class once")


def _several(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
