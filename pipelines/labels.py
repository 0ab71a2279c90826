"""Labels: declare the task that a table of them speaks of, read its values, and match its rows to images.

Errors and lists say the line of the file and the column, never a key or a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipelines.config_tasks import ORDERED, TaskSection
from pipelines.errors import ConfigurationError, LabelError
from pipelines.label_files import KEY_COLUMNS, LabelTable, named_lines, squashed
from pipelines.records import Head, Task

UNKNOWN = frozenset({"", "nan", "na", "n/a", "null"})
NUMBERS = {"0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "true": 1.0}
_PERSONAL = {
    *("name", "names", "surname", "address", "street", "city", "zip", "postcode", "phone", "telephone", "email", "mail"),
    *("birth", "birthdate", "dob", "date", "datetime", "time", "physician", "operator", "institution"),
    *("comment", "comments", "report", "text", "note", "notes"),
}
LARGEST = 3e38  # of a number that fits into 32 bits
MOST_CLASSES = 20
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
if TYPE_CHECKING:
    import pandas as pd

Label = float | str | None


@dataclass(frozen=True, repr=False)
class Matched:
    """Labels joined to images.

    Attributes:
        labels: for each image that a row names, its label for each target (None: unknown).
        unmatched: positions in the table of rows that name no image.
    """

    labels: Mapping[str, tuple[Label, ...]]
    unmatched: tuple[int, ...]


def declare(table: LabelTable, known: TaskSection | None = None) -> TaskSection:
    """The task that a table of labels speaks of: exactly its columns of 0 and 1.

    Args:
        table: the labels.
        known: what is configured of the task; columns of its further tasks are theirs.

    Raises:
        ConfigurationError: there is no such column (the message holds the setting that declares a text column), or its name is
            one that a further task uses.
    """
    known = known or TaskSection()
    taken = {target for name, task in known.also.items() for target in task.targets or (name,)}
    candidates = {name: cells for name, cells in table.columns.items() if not _is_identifier(name) and name not in taken}
    found = tuple(name for name, cells in candidates.items() if _is_binary(cells))
    if found:
        rest = {"also": known.also, "weight": known.weight, "weighting": known.weighting}
        try:
            return TaskSection(kind="binary" if len(found) == 1 else "multilabel", targets=found, **rest)
        except ValidationError as error:
            reason = str(error.errors()[0]["ctx"]["error"])
            raise ConfigurationError(
                f"params.yaml task: with the columns {', '.join(found)}, which hold only 0 and 1, as targets: expected {reason}; "
                "name the columns in task.targets, or call the further task otherwise"
            ) from None
    text = [name for name, cells in candidates.items() if 2 <= len(_known(cells)) <= MOST_CLASSES]
    remedy = "add a column of 0 and 1 for each finding"
    if text:
        several = len(_known(candidates[text[0]]))
        remedy += (
            f", or declare column {text[0]} ({several} different values) with --set task.kind=multiclass "
            f"--set 'task.targets=[{text[0]}]' --set 'task.classes=[CLASS, CLASS, …]', its values in the order of the outputs"
        )
    raise ConfigurationError(f"params.yaml task.targets: [] and no column of the label table holds only 0 and 1; {remedy}")


def unused(table: LabelTable, task: Task) -> tuple[str, ...]:
    """The columns that look like labels, not like names, contacts, dates or free text, and are of no task of these."""
    return tuple(
        name
        for name, cells in table.columns.items()
        if name not in task.labels and not _is_identifier(name) and not _is_personal(name) and _could_be_labels(cells)
    )


def parse(table: LabelTable, task: Task) -> list[tuple[Label, ...]]:
    """The labels of each row, in the order of `task.labels`: 0.0, 1.0 or None, a class or None, or a number or None.

    Raises:
        ConfigurationError: a target is not a column of the table.
        LabelError: a value is neither 0, 1 nor empty, is not a declared class, or is no number or out of bounds; names lines
            and column.
    """
    for where, heads in (("targets", (task,)), ("also", task.also)):
        if missing := [target for head in heads for target in head.targets if target not in table.columns]:
            raise ConfigurationError(f"params.yaml task.{where}: the label table has no column {', '.join(missing)}")
    columns = [_parsed(table, target, head) for head in task.heads for target in head.targets]
    return list(zip(*columns, strict=True))


def match(table: LabelTable, labels: list[tuple[Label, ...]], images_of: Callable[[str], Iterable[str]]) -> Matched:
    """Join rows to images; rows that name the same image complete each other.

    Args:
        table: the rows.
        labels: their labels, from `parse`.
        images_of: the images that a key names.

    Raises:
        LabelError: rows that name the same image contradict each other; names their lines.
    """
    found: dict[str, tuple[Label, ...]] = {}
    first_line: dict[str, int] = {}
    unmatched: list[int] = []
    conflicts: list[int] = []
    for position, (key, line) in enumerate(zip(table.keys, table.lines, strict=True)):
        images = list(images_of(key)) if key else []
        if not images:
            unmatched.append(position)
        for image in images:
            earlier = found.get(image, (None,) * len(labels[position]))
            if any(
                old is not None and new is not None and old != new for old, new in zip(earlier, labels[position], strict=True)
            ):
                conflicts += [first_line[image], line]
            merged = (new if old is None else old for old, new in zip(earlier, labels[position], strict=True))
            found[image] = tuple(merged)
            first_line.setdefault(image, line)
    if conflicts:
        raise LabelError(
            f"the label table: rows that name the same image contradict each other, {named_lines(sorted(set(conflicts)))}"
        )
    return Matched(found, tuple(unmatched))


def table(labels: Mapping[str, tuple[Label, ...]], task: Task) -> pd.DataFrame:
    """The contents of labels.parquet: sorted by image, numbers as float64, classes as text."""
    import pandas as pd

    images = sorted(labels)
    dtypes = ["str" if head.kind in ORDERED else "float64" for head in task.heads for _ in head.targets]
    columns = {
        target: pd.Series([labels[image][number] for image in images], dtype=dtype)
        for number, (target, dtype) in enumerate(zip(task.labels, dtypes, strict=True))
    }
    return pd.DataFrame({"image": pd.Series(images, dtype="str"), **columns})


def from_table(table: pd.DataFrame, task: Task) -> dict[str, tuple[Label, ...]]:
    """The labels by image of a labels.parquet; a target that it lacks, and a value that is not declared, is unknown."""
    columns = [
        [value if _is_valid(value, head) else None for value in table[target]] if target in table else [None] * len(table)
        for head in task.heads
        for target in head.targets
    ]
    rows = zip(*columns, strict=True) if columns else []
    return {str(image): values for image, values in zip(table["image"], rows, strict=True)}


def _parsed(table: LabelTable, target: str, task: Head) -> list[Label]:
    read_one: Callable[[str], Label] = _number_of
    if task.kind in ORDERED:
        read_one = _class_of(task.classes)
    elif task.kind == "regression":
        read_one = _value_of(task)
    values: list[Label] = []
    wrong: list[int] = []
    for line, cell in zip(table.lines, table.columns[target], strict=True):
        try:
            values.append(read_one(cell))
        except ValueError:
            wrong.append(line)
    if wrong:
        expected = f"{_expected(task)} or nothing (unknown)"
        raise LabelError(f"the label table, column {target}: expected {expected}, got something else in {named_lines(wrong)}")
    return values


def _expected(task: Head) -> str:
    if task.kind in ORDERED:
        where = f"task.also.{task.name}.classes" if task.name else "task.classes"
        return f"one of {where} ({', '.join(task.classes)})"
    if task.kind == "regression":
        return f"a number from {task.bounds[0]:g} to {task.bounds[1]:g}" if task.bounds else "a number, as in 12.5,"
    return "0, 1"


def _value_of(task: Head) -> Callable[[str], float | None]:
    def value_of(cell: str) -> float | None:
        if cell.casefold() in UNKNOWN:
            return None
        if not _NUMBER.fullmatch(cell) or not _is_valid(float(cell), task):
            raise ValueError
        return float(cell)

    return value_of


def _is_valid(value: Any, task: Head) -> bool:
    """Whether a value of a label column is known, and is what the task declares."""
    if task.kind in ORDERED:
        return value in task.classes
    if task.kind != "regression":
        return value in (0.0, 1.0)
    least, largest = task.bounds or (-LARGEST, LARGEST)
    return isinstance(value, (int, float)) and least <= value <= largest


def _number_of(cell: str) -> float | None:
    folded = cell.casefold()
    if folded in UNKNOWN:
        return None
    if folded not in NUMBERS:
        raise ValueError
    return NUMBERS[folded]


def _class_of(classes: tuple[str, ...]) -> Callable[[str], str | None]:
    def class_of(cell: str) -> str | None:
        if cell in classes:
            return cell
        if cell.casefold() in UNKNOWN:
            return None
        raise ValueError

    return class_of


def _is_binary(cells: tuple[str, ...]) -> bool:
    known = _known(cells)
    return bool(known) and all(cell.casefold() in NUMBERS for cell in known)


def _known(cells: tuple[str, ...]) -> set[str]:
    return {cell for cell in cells if cell.casefold() not in UNKNOWN}


def _could_be_labels(cells: tuple[str, ...]) -> bool:
    known = _known(cells)
    return 2 <= len(known) <= MOST_CLASSES or (bool(known) and all(_NUMBER.fullmatch(cell) for cell in known))


def _is_personal(column: str) -> bool:
    words = {word.casefold() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+", column)}
    return bool(words & _PERSONAL)


def _is_identifier(column: str) -> bool:
    """Whether the name says that the column identifies something: a key of any kind, a UID, an ID."""
    name = squashed(column)
    return (
        name.endswith("uid")
        or name in ("id", "patientid", "studyid", "mrn")
        or any(name in names for names in KEY_COLUMNS.values())
    )
