"""What is expected of the data, as a table: one entry for each expectation.

An entry says in plain words what must be true, how bad it is if it is not, and which Great Expectations class with which
arguments decides it. Adding an expectation is adding an entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pipelines.config_tasks import ORDERED
from pipelines.labels import LARGEST
from pipelines.records import INDEX, PARTS

if TYPE_CHECKING:
    from pipelines.config import CheckSection
    from pipelines.records import Head, Task

Severity = Literal["error", "warning"]

OLDEST = 89
"""Years; older patients are recorded as 89 (a de-identification rule, so an older one means that it was not applied)."""

PIXELS = (16, 32767)
"""Rows and columns that a radiograph can have at all."""

DETAILED = 256
"""Rows and columns below which fine findings are lost."""

BITS = (6, 16)
"""Bits stored (PS3.3 C.8.11.3: 6 to 16 for digital X-ray)."""

SPACING_MM = (0.01, 2.0)
"""Detector pixels of radiographs measure 0.05 to 0.4 mm; a resampled image has somewhat larger ones."""

FILLED = ("modality", "photometric", "window", "mean", "std", "dark", "bright", "pixel_hash", "perceptual_hash")
"""Columns in which a prepared image is never unknown; the other expectations pass over what is unknown."""

NUMBERS = ["int64", "int32", "float64", "float32"]


@dataclass(frozen=True)
class Expectation:
    """One expectation.

    Attributes:
        name: a short name, unique.
        says: what must be true, in plain words.
        severity: `error` stops the pipeline, `warning` is recorded.
        table: which table of `quality.tables.build` it is about.
        type: the name of the Great Expectations class.
        kwargs: its arguments.
    """

    name: str
    says: str
    severity: Severity
    table: str
    type: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it cannot be decided without."""
        named = self.kwargs.get("column_list") or [self.kwargs[key] for key in ("column",) if key in self.kwargs]
        return tuple(named)


def expectations(check: CheckSection, task: Task) -> tuple[Expectation, ...]:
    """Everything that is expected of the prepared images and labels, in reading order."""
    return (*_shape(task), *_images(check), *_pixels(check), *_labels(task), *_counts(check, task))


def _between(
    name: str, says: str, severity: Severity, table: str, column: str, low: float | None, high: float | None = None, **more: Any
) -> Expectation:
    kwargs = {"column": column, "min_value": low, "max_value": high, **more}
    return Expectation(name, says, severity, table, "ExpectColumnValuesToBeBetween", kwargs)


def _among(name: str, says: str, severity: Severity, table: str, column: str, allowed: tuple[Any, ...]) -> Expectation:
    return Expectation(name, says, severity, table, "ExpectColumnValuesToBeInSet", {"column": column, "value_set": list(allowed)})


def _filled(table: str, column: str, says: str) -> Expectation:
    return Expectation(f"{table}: {column} present", says, "error", table, "ExpectColumnValuesToNotBeNull", {"column": column})


def _like(name: str, says: str, severity: Severity, column: str, pattern: str) -> Expectation:
    return Expectation(name, says, severity, "images", "ExpectColumnValuesToMatchRegex", {"column": column, "regex": pattern})


def _unique(name: str, says: str, table: str) -> Expectation:
    return Expectation(name, says, "error", table, "ExpectColumnValuesToBeUnique", {"column": "image"})


def _shape(task: Task) -> tuple[Expectation, ...]:
    """Schema and keys: what must hold for anything else to mean something."""
    columns = "ExpectTableColumnsToMatchSet"
    numbers = ("age_years", "rows", "columns", "bits_stored", "spacing_mm", "mean", "std", "dark", "bright", "shard", "row")
    return (
        Expectation(
            "index: columns",
            "The index of images has every column that it should have.",
            "error",
            "index",
            columns,
            {"column_set": [*INDEX], "exact_match": False},
        ),
        Expectation(
            "labels: columns",
            f"The labels have a column for the image and for: {', '.join(task.labels)}.",
            "error",
            "labels",
            columns,
            {"column_set": ["image", *task.labels], "exact_match": False},
        ),
        *(
            Expectation(
                f"index: {column} is a number",
                f"The column {column} of the index holds numbers.",
                "error",
                "index",
                "ExpectColumnValuesToBeInTypeList",
                {"column": column, "type_list": NUMBERS},
            )
            for column in numbers
        ),
        _filled("index", "image", "Every row of the index names its image."),
        _filled("index", "patient", "Every image belongs to a patient."),
        _filled("index", "study", "Every image belongs to a study."),
        _unique("index: image unique", "No image (SOP instance) comes in twice.", "index"),
        *(_filled("images", column, f"The column {column} is filled for every prepared image.") for column in FILLED),
        _filled("labels", "image", "Every label names its image."),
        _unique("labels: image unique", "No image has two rows of labels.", "labels"),
    )


def _images(check: CheckSection) -> tuple[Expectation, ...]:
    """What the headers say."""
    listed = "an image may also have none"
    chosen = [
        _among(
            f"{column} allowed", f"Every {words} is one of {', '.join(allowed)} ({listed}).", "error", "images", column, allowed
        )
        for column, words, allowed in (("view", "view", check.views), ("body_part", "body part", check.body_parts))
        if allowed
    ]
    return (
        _like("image pseudonym", "Every image goes by a pseudonymous UID, not by its own.", "error", "image", r"^2\.25\.\d+$"),
        _among(
            "modality allowed",
            f"Every modality is one of {', '.join(check.modalities)}.",
            "error",
            "images",
            "modality",
            check.modalities,
        ),
        *chosen,
        _among("sex valid", "Sex is F, M, O or unknown.", "error", "images", "sex", ("F", "M", "O")),
        _between("age in range", f"Age is between 0 and {OLDEST} years or unknown.", "error", "images", "age_years", 0, OLDEST),
        _like("study date valid", "The shifted study date is a date or unknown.", "error", "study_date", r"^\d{4}-\d\d-\d\d$"),
        *(
            _between(
                f"{column} in range",
                f"An image has {PIXELS[0]} to {PIXELS[1]} {column}.",
                "error",
                "images",
                column,
                *PIXELS,
            )
            for column in ("rows", "columns")
        ),
        *(
            _between(
                f"{column} enough",
                f"An image has at least {DETAILED} {column}; fewer lose fine findings.",
                "warning",
                "images",
                column,
                DETAILED,
            )
            for column in ("rows", "columns")
        ),
        _between(
            "bits in range",
            f"Between {BITS[0]} and {BITS[1]} bits are stored for a pixel.",
            "error",
            "images",
            "bits_stored",
            *BITS,
        ),
        _between(
            "spacing in range",
            f"Pixels measure {SPACING_MM[0]} to {SPACING_MM[1]} mm, or the spacing is unknown.",
            "warning",
            "images",
            "spacing_mm",
            *SPACING_MM,
        ),
        _among(
            "polarity known",
            "Every image says whether high values are bright or dark.",
            "error",
            "images",
            "photometric",
            ("MONOCHROME1", "MONOCHROME2"),
        ),
        _between(
            "one patient per study",
            "A study belongs to one patient only.",
            "warning",
            "images",
            "patients_of_this_study",
            1,
            1,
        ),
    )


def _pixels(check: CheckSection) -> tuple[Expectation, ...]:
    """What the prepared arrays hold.

    A blank or saturated image is a warning by itself, since one bad film should not stop a night's work, and an error when
    there are more of them than `max_left_out` allows.
    """
    tolerated = {"mostly": 1 - check.max_left_out}
    few = f"at most {check.max_left_out:.0%} of the images"
    saturated = (("dark", "lowest"), ("bright", "highest"))
    return (
        Expectation(
            "few left out",
            f"Preparing leaves out {few}, besides raw detector data.",
            "error",
            "index",
            "ExpectColumnValuesToBeNull",
            {"column": "unusable", **tolerated},
        ),
        Expectation(
            "array place unique",
            "No two images share a place in the array store.",
            "error",
            "images",
            "ExpectCompoundColumnsToBeUnique",
            {"column_list": ["shard", "row"]},
        ),
        _between("array place known", "Every prepared image has its place in the array store.", "error", "images", "shard", 0),
        _among(
            "window known",
            "Every image's grey levels come from a VOI LUT, a window or percentiles.",
            "error",
            "images",
            "window",
            ("voi_lut", "window", "percentiles"),
        ),
        _like("pixel fingerprint", "The fingerprint of the pixels is a SHA-256.", "error", "pixel_hash", r"^[0-9a-f]{64}$"),
        _like("perceptual hash", "The perceptual hash has 64 bits.", "error", "perceptual_hash", r"^[0-9a-f]{16}$"),
        *(
            _between(f"{column} in range", f"The {words} lies between 0 and 1.", "error", "images", column, 0, 1)
            for column, words in (
                ("mean", "mean grey level"),
                ("std", "spread of the grey levels"),
                ("dark", "fraction of pixels at the lowest grey level"),
                ("bright", "fraction of pixels at the highest grey level"),
            )
        ),
        _between("not constant", "No prepared image is one single grey.", "error", "images", "std", 0, None, strict_min=True),
        _between(
            "not blank",
            f"No image is blank (grey levels spread by less than {check.min_std:g}).",
            "warning",
            "images",
            "std",
            check.min_std,
        ),
        _between("few blank", f"Blank images are {few}.", "error", "images", "std", check.min_std, None, **tolerated),
        *(
            _between(
                f"not saturated {column}",
                f"No image has more than {check.max_saturated:.0%} of its pixels at the {end} grey level.",
                "warning",
                "images",
                column,
                None,
                check.max_saturated,
            )
            for column, end in saturated
        ),
        *(
            _between(
                f"few saturated {column}",
                f"Images with more than {check.max_saturated:.0%} of their pixels at the {end} grey level are {few}.",
                "error",
                "images",
                column,
                None,
                check.max_saturated,
                **tolerated,
            )
            for column, end in saturated
        ),
        _between(
            "no pixels of two patients",
            "No two patients have an identical image.",
            "warning",
            "images",
            "patients_with_these_pixels",
            1,
            1,
        ),
    )


def _valid(head: Head, target: str) -> Expectation:
    """The label is what its task declares."""
    if head.kind == "regression":
        least, largest = head.bounds or (-LARGEST, LARGEST)
        said = f"is a number from {least:g} to {largest:g}" if head.bounds else "is a number"
        return _between(f"{target} valid", f"The label {target} {said}, or unknown.", "error", "labels", target, least, largest)
    allowed: tuple[Any, ...] = head.classes if head.kind in ORDERED else (0, 1)
    words = ", ".join(str(value) for value in allowed)
    return _among(f"{target} valid", f"The label {target} is one of {words}, or unknown.", "error", "labels", target, allowed)


def _labels(task: Task) -> tuple[Expectation, ...]:
    return (
        *(_valid(head, target) for head in task.heads for target in head.targets),
        _among(
            "labels of known images",
            "Every label is of an image that was taken in.",
            "error",
            "labels",
            "image_is_indexed",
            (True,),
        ),
        _between("labels say something", "No row of labels is all unknown.", "warning", "labels", "known_labels", 1),
        _between(
            "identical images agree",
            "Labels of identical images do not contradict each other.",
            "warning",
            "cohort",
            "labellings_of_these_pixels",
            1,
            1,
        ),
    )


def _counts(check: CheckSection, task: Task) -> tuple[Expectation, ...]:
    low, high = check.prevalence
    fewest, parts = check.min_images_per_class, len(PARTS)
    sides = ("with",) if task.kind == "multiclass" else ("with", "without")
    return (
        Expectation(
            "enough images",
            f"At least {check.min_images} images are prepared and labelled.",
            "error",
            "cohort",
            "ExpectTableRowCountToBeBetween",
            {"min_value": check.min_images},
        ),
        *(
            _between(
                f"enough images {side}",
                f"At least {fewest} images are {side} each finding.",
                "error",
                "classes",
                f"images_{side}",
                fewest,
            )
            for side in sides
        ),
        *(
            _between(
                f"enough patients {side}",
                f"At least {parts} patients are {side} each finding, one for each part.",
                "error",
                "classes",
                f"patients_{side}",
                parts,
            )
            for side in sides
        ),
        _between(
            "prevalence in range",
            f"Between {low:.0%} and {high:.0%} of the images are with each finding.",
            "error",
            "classes",
            "prevalence",
            low,
            high,
        ),
    )
