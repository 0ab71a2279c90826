"""What passes between stages: reasons, the columns of the tables, and the declared task.

Tables are pandas data frames stored as Parquet; each constant below names the columns of one of them, in order, with
their meaning. A column that is unknown for an image holds None (text) or NaN (numbers), never an empty string.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray


class Reason(Enum):
    """Why a file or an image is left out; the value is the code in lists, summaries and tables."""

    NOT_DICOM = "not_dicom"
    TRUNCATED = "truncated"
    UNREADABLE = "unreadable_header"
    UNKNOWN_VR = "unknown_vr"
    NOT_IMAGE = "not_an_image"
    NO_PIXELS = "no_pixel_data"
    MODALITY = "modality_not_allowed"
    MULTI_FRAME = "multi_frame"
    COLOUR = "not_grayscale"
    SIZE = "absurd_size"
    TRANSFER_SYNTAX = "transfer_syntax_unsupported"
    MISSING_UID = "missing_sop_instance_uid"
    DUPLICATE = "same_sop_instance_uid_different_image"
    BURNED_IN = "burned_in_annotation"
    UNDECODABLE = "undecodable_pixels"
    BITS = "inconsistent_bit_depth"
    CONSTANT = "constant_image"
    FOR_PROCESSING = "raw_for_processing"
    TIMEOUT = "decoding_took_too_long"
    CHANGED = "changed_while_read"


MANIFEST = {
    "image": "pseudonym of SOPInstanceUID, a UID under 2.25",
    "study": "pseudonym of StudyInstanceUID",
    "series": "pseudonym of SeriesInstanceUID",
    "accession": "pseudonym of AccessionNumber, or None",
    "patient": "pseudonym of PatientID (of StudyInstanceUID where there is none)",
    "site": "pseudonym of InstitutionName, or None",
    "file": "path of the de-identified file, relative to data/",
    "modality": "CR, DX or RG",
    "body_part": "BodyPartExamined, or None",
    "view": "ViewPosition (PA, AP, LL, …), or None",
    "laterality": "L, R, B, U or None",
    "manufacturer": "the vendor's usual name, or a pseudonym of an unknown one, or None",
    "age_years": "age at the study, capped at 89 (float), or NaN",
    "sex": "F, M, O or None",
    "study_date": "StudyDate shifted by the patient's offset, ISO 8601 text, or None",
    "transfer_syntax": "UID of the transfer syntax",
    "photometric": "MONOCHROME1 or MONOCHROME2",
    "rows": "rows of the stored image (int)",
    "columns": "columns of the stored image (int)",
    "bits_stored": "bits stored (int)",
    "spacing_mm": "row spacing in mm, detector or calibrated (float), or NaN",
}

INDEX = {
    **{name: MANIFEST[name] for name in MANIFEST if name not in ("series", "accession", "file")},
    "window": "where the grey levels came from: voi_lut, window or percentiles; None if left out",
    "mean": "mean of the prepared image inside the padding, 0…1 (float)",
    "std": "standard deviation of the prepared image inside the padding, 0…1 (float)",
    "dark": "fraction of pixels at the lowest grey level (float)",
    "bright": "fraction of pixels at the highest grey level (float)",
    "pixel_aspect": "height of a stored pixel divided by its width (float), 1 where the header says nothing credible",
    "reduction": "the image was decoded at one of this many of its rows and columns (float): 1 for in full, 2, 4, 8, …",
    "crop": "top, left, bottom and right of the part that was kept, in stored pixels, or None for the whole image",
    "mirrored": "1 if the prepared image is mirrored, left to right, else 0 (float)",
    "pixel_hash": "SHA-256 of size and values; the same for all lossless encodings of an image (`imaging.hashes`), or None",
    "perceptual_hash": "64-bit perceptual hash of the prepared image, 16 hexadecimal digits, or None",
    "shard": "number of the array shard (int), -1 if left out",
    "row": "row within the shard (int), -1 if left out",
    "left_out": "a `Reason` value, or None for an image that was prepared",
}

SPLIT = {
    "image": MANIFEST["image"],
    "patient": MANIFEST["patient"],
    "study": MANIFEST["study"],
    "pixel_hash": INDEX["pixel_hash"],
    "part": "train, validation or test",
}

PARTS = ("train", "validation", "test")

CALLED = ("binary", "multilabel")
"""Kinds of further tasks whose outputs are called positive or negative at a threshold."""

HARMED = "harmed"
"""The verdict on an adaptation to another hospital whose answers there are surely worse than without it."""

SELF_SUPERVISED = "ssl"
"""The source of weights that learned from the team's own radiographs without labels."""


@dataclass(frozen=True)
class Head:
    """One task, with columns of its own among the labels and among the network's outputs.

    Attributes:
        kind: `binary` (one column of 0/1), `multilabel` (several columns of 0/1), `multiclass` (one column that holds one of
            `classes`), `ordinal` (likewise, the classes in order) or `regression` (one column of numbers).
        targets: the label columns.
        classes: the classes of a multiclass or ordinal target, in order; else empty.
        name: of a task beside the main one, which has none.
        unit: of a regression target.
        bounds: least and largest value that a regression target can have; None allows any.
        weight: of its loss.
    """

    kind: str
    targets: tuple[str, ...]
    classes: tuple[str, ...] = ()
    name: str = ""
    unit: str = ""
    bounds: tuple[float, float] | None = None
    weight: float = 1.0

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.name or ", ".join(self.targets)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it gives a probability of, in order: the targets, or the classes, after the name of the task where it has one.

        Empty for a regression.
        """
        if self.kind == "regression":
            return ()
        if self.kind in ("multiclass", "ordinal"):
            return tuple(f"{self.name}_{name}" for name in self.classes) if self.name else self.classes
        return self.targets

    @property
    def answers(self) -> int:
        """How many numbers it answers with: a probability for each output, or one value."""
        return len(self.outputs) or 1

    @property
    def columns(self) -> tuple[str, ...]:
        """What each of its columns among the network's outputs tells: one for each output, value, or step between classes."""
        if self.kind == "ordinal":
            return tuple(f"{self.title} > {name}" for name in self.classes[:-1])
        return self.outputs or self.targets

    def matrix(self, labels: pd.DataFrame) -> NDArray[np.float32]:
        """The labels as numbers, one column for each of `columns`.

        Returns:
            Array (images, columns). Binary, multilabel: 0, 1 or NaN (unknown). Multiclass: a row is one-hot or all NaN.
            Regression: the value or NaN. Ordinal: column k holds whether the class is above k, given that it is above k − 1,
            and NaN where it is not (CORN: Shi, Cao and Raschka, arXiv 2111.08851).
        """
        if self.kind == "multiclass":
            column = labels[self.targets[0]]
            known = column.isin(self.classes).to_numpy()[:, None]
            hot = np.stack([(column == name).to_numpy() for name in self.classes], axis=1)
            return np.where(known, hot, np.nan).astype(np.float32)
        if self.kind == "ordinal":
            ranks = self.ranks(labels)[:, None]
            steps = np.arange(len(self.classes) - 1)
            return np.where(ranks >= steps, ranks > steps, np.nan).astype(np.float32)
        return labels[list(self.targets)].to_numpy(dtype=np.float32)

    def ranks(self, labels: pd.DataFrame) -> NDArray[np.float64]:
        """The place of each image's class among the classes (images,), from 0; NaN where it is unknown."""
        places = {name: float(place) for place, name in enumerate(self.classes)}
        return np.array([places.get(name, np.nan) for name in labels[self.targets[0]]], dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for model.json; what is as it is for a single task is left out."""
        values = {"kind": self.kind, "targets": self.targets, "classes": self.classes}
        more = {"name": self.name, "unit": self.unit, "bounds": self.bounds, "weight": self.weight}
        plain = {"name": "", "unit": "", "bounds": None, "weight": 1.0}
        return {**values, **{key: value for key, value in more.items() if value != plain[key]}}


@dataclass(frozen=True)
class Task(Head):
    """What the network learns to say: the main task, and what it learns besides.

    The main task is a classification; the split is balanced, the gates judge and shortcuts are audited by it. Its columns
    come first among the network's outputs, and those of the tasks of `also` follow in order.

    Attributes:
        also: further tasks.
        weighting: of the losses of several tasks: `fixed`, or learned by `uncertainty`.
    """

    also: tuple[Head, ...] = ()
    weighting: str = "fixed"

    @property
    def heads(self) -> tuple[Head, ...]:
        """Every task, the main one first."""
        return (self, *self.also)

    @property
    def main(self) -> Task:
        """The main task alone."""
        return Task(self.kind, self.targets, self.classes)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label columns of every task."""
        return tuple(target for head in self.heads for target in head.targets)

    @property
    def width(self) -> int:
        """How many outputs the network has."""
        return sum(len(head.columns) for head in self.heads)

    @property
    def score(self) -> str:
        """What an epoch is judged by, in words."""
        return "mean score" if self.also else "AUROC"

    @property
    def score_name(self) -> str:
        """Its name in model.json and MLflow; history.csv, whose columns DVC draws by name, calls it `validation_auroc` always."""
        return "validation_score" if self.also else "validation_auroc"

    def everything(self, labels: pd.DataFrame) -> NDArray[np.float32]:
        """The labels of every task as numbers, (images, `width`)."""
        return np.concatenate([head.matrix(labels) for head in self.heads], axis=1)

    def apart(self, answers: NDArray[Any]) -> list[NDArray[Any]]:
        """Answers (images, all answers) by task."""
        return np.split(answers, np.cumsum([head.answers for head in self.heads])[:-1], axis=1)

    def further(self, answers: NDArray[Any]) -> list[tuple[Head, NDArray[Any]]]:
        """Each further task with its own answers, of all answers (images, all answers)."""
        return list(zip(self.also, self.apart(answers)[1:], strict=True))

    def differing(self, other: Task) -> str:
        """In what another task answers otherwise, in words; empty if in nothing. How much losses weigh does not matter."""
        if [head.name for head in self.heads] != [head.name for head in other.heads]:
            return "other tasks"
        for own, theirs in zip(self.heads, other.heads, strict=True):
            for name in ("kind", "targets", "classes", "unit", "bounds"):
                if getattr(own, name) != getattr(theirs, name):
                    where = f"task.also.{own.name}" if own.name else "task"
                    return f"{where}.{name} is {_plain(getattr(own, name))}, the model's is {_plain(getattr(theirs, name))}"
        return ""

    def to_dict(self) -> dict[str, Any]:
        values = {**super().to_dict(), "outputs": list(self.outputs)}
        if self.also:
            values |= {"weighting": self.weighting, "also": [head.to_dict() for head in self.also]}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Task:
        """The inverse of `to_dict`, also of what was written before there were several tasks.

        Raises:
            KeyError: the kind, the targets or the classes are not said.
        """
        also = tuple(Head(**_head(head)) for head in values.get("also", ()))
        return cls(**_head(values), also=also, weighting=values.get("weighting", "fixed"))


def _head(values: Mapping[str, Any]) -> dict[str, Any]:
    bounds = values.get("bounds")
    return {
        "kind": values["kind"],
        "targets": tuple(values["targets"]),
        "classes": tuple(values["classes"]),
        "name": values.get("name", ""),
        "unit": values.get("unit", ""),
        "bounds": tuple(bounds) if bounds else None,
        "weight": values.get("weight", 1.0),
    }


# labels.parquet holds one row per labelled image: "image", then one column per target of each task: 0.0, 1.0 or NaN, the
# name of a class (None where unknown) for a multiclass or ordinal target, or a number (NaN where unknown) for a regression.
#
# predictions.parquet (validation and test) holds "image", "patient", "part", then for each output NAME: "p_NAME", the
# probability, and "y_NAME", the label (0, 1 or NaN). Of a task beside the main one called NAME it holds "p_OUTPUT" for each
# output, "value_NAME" (regression) or "class_NAME" (multiclass, ordinal), and "y_TARGET", its label as in labels.parquet. In
# that of the test part stands "predicted_OUTPUT" beside it, where an output is called positive or negative at a threshold.
#
# shortcuts/scores.parquet (test) holds "image", "patient", then for each shortcut and output "SHORTCUT/OUTPUT", what the
# shortcut says (log odds), or NaN where it could not learn.


def probability_column(output: str) -> str:
    return f"p_{output}"


def label_column(output: str) -> str:
    return f"y_{output}"


def shortcut_column(shortcut: str, output: str) -> str:
    return f"{shortcut}/{output}"


def _plain(value: Any) -> str:
    """A setting as params.yaml spells it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return "null" if value is None else str(value)


def value_column(task: str) -> str:
    return f"value_{task}"


def class_column(task: str) -> str:
    return f"class_{task}" if task else "class"
