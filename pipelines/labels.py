"""Labels: read a CSV file, find what its rows name, declare the task, and match rows to images.

A label row names an image by SOPInstanceUID, a study by accession number, or a file. Keys are identified data: errors
and lists say the line of the file and the column, never a key or a value.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config import IngestSection, TaskSection
from pipelines.errors import ConfigurationError, LabelError, SourceError
from pipelines.records import Task

# Column names, without case and punctuation, by what they hold; the first kind that is there is taken.
KEY_COLUMNS = {
    "sop_instance_uid": ("sopinstanceuid", "sopuid", "instanceuid", "imageuid"),
    "accession_number": ("accessionnumber", "accession", "accessionno"),
    "file": ("file", "filename", "filepath", "path", "imagefile", "dicomfile"),
}
UNKNOWN = frozenset({"", "nan", "na", "n/a", "null"})
NUMBERS = {"0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "true": 1.0}
EXTENSIONS = frozenset({"dcm", "dicom", "ima", "png", "jpg", "jpeg", "tif", "tiff"})
MOST_CLASSES = 20
_NAMED_LINES = 10
_DELIMITERS = ",;\t"

if TYPE_CHECKING:
    import pandas as pd

Label = float | str | None


@dataclass(frozen=True, repr=False)
class LabelTable:
    """A CSV file of labels.

    Attributes:
        kind: what a key names: `sop_instance_uid`, `accession_number` or `file`.
        column: the column that holds the key.
        keys: the key of each row.
        lines: the line of the file at which each row starts, from 1.
        columns: the other columns: the text of each row, without blanks around it.
    """

    kind: str
    column: str
    keys: tuple[str, ...]
    lines: tuple[int, ...]
    columns: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, repr=False)
class Matched:
    """Labels joined to images.

    Attributes:
        labels: for each image that a row names, its label for each target (None: unknown).
        unmatched: positions in the table of rows that name no image.
    """

    labels: Mapping[str, tuple[Label, ...]]
    unmatched: tuple[int, ...]


def read(path: Path, config: IngestSection) -> LabelTable:
    """Read a table of labels (comma, semicolon or tab; UTF-8 or Latin-1) and find its key column.

    Raises:
        SourceError: the file is not there, is no table, or no column is known to hold a key.
    """
    lines, rows = _rows(path)
    if not rows:
        raise SourceError("the label table: expected a line of column names and rows below it, found none")
    header = [name.strip() for name in rows[0]]
    if len(set(header)) < len(header):
        raise SourceError("the label table: two columns have the same name; rename one")
    long = [line for line, row in zip(lines, rows, strict=True) if len(row) > len(header)]
    if long:
        raise SourceError(f"the label table: more fields than columns in {_named(long)}; quote fields that hold the delimiter")
    kind, column = _key(header, config)
    cells = [[*(cell.strip() for cell in row), *[""] * (len(header) - len(row))] for row in rows[1:]]
    columns = {name: tuple(row[position] for row in cells) for position, name in enumerate(header) if name}
    keys = columns.pop(column)
    return LabelTable(kind, column, keys, tuple(lines[1:]), columns)


def declare(table: LabelTable) -> TaskSection:
    """The task that a table of labels speaks of: exactly its columns of 0 and 1.

    Raises:
        ConfigurationError: there is no such column; the message holds the setting that declares a text column.
    """
    candidates = {name: cells for name, cells in table.columns.items() if not _is_identifier(name)}
    found = tuple(name for name, cells in candidates.items() if _is_binary(cells))
    if found:
        return TaskSection(kind="binary" if len(found) == 1 else "multilabel", targets=found)
    text = [name for name, cells in candidates.items() if 2 <= len(_known(cells)) <= MOST_CLASSES]
    remedy = "add a column of 0 and 1 for each finding"
    if text:
        several = len(_known(candidates[text[0]]))
        remedy += (
            f", or declare column {text[0]} ({several} different values) with --set task.kind=multiclass "
            f"--set 'task.targets=[{text[0]}]' --set 'task.classes=[CLASS, CLASS, …]', its values in the order of the outputs"
        )
    raise ConfigurationError(f"params.yaml task.targets: [] and no column of the label table holds only 0 and 1; {remedy}")


def parse(table: LabelTable, task: Task) -> list[tuple[Label, ...]]:
    """The labels of each row, in the order of the task's targets: 0.0, 1.0 or None, or a class or None.

    Raises:
        ConfigurationError: a target is not a column of the table.
        LabelError: a value is neither 0, 1 nor empty, or is not a declared class; names lines and column.
    """
    missing = [target for target in task.targets if target not in table.columns]
    if missing:
        raise ConfigurationError(f"params.yaml task.targets: the label table has no column {', '.join(missing)}")
    read_one = _class_of(task.classes) if task.kind == "multiclass" else _number_of
    columns = [_parsed(table, target, read_one, task) for target in task.targets]
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
            f"the label table: rows that name the same image contradict each other, {_named(sorted(set(conflicts)))}"
        )
    return Matched(found, tuple(unmatched))


def table(labels: Mapping[str, tuple[Label, ...]], task: Task) -> pd.DataFrame:
    """The contents of labels.parquet: sorted by image, numbers as float64, classes as text."""
    import pandas as pd

    images = sorted(labels)
    dtype = "str" if task.kind == "multiclass" else "float64"
    columns = {
        target: pd.Series([labels[image][number] for image in images], dtype=dtype) for number, target in enumerate(task.targets)
    }
    return pd.DataFrame({"image": pd.Series(images, dtype="str"), **columns})


def from_table(table: pd.DataFrame, task: Task) -> dict[str, tuple[Label, ...]]:
    """The labels by image of a labels.parquet; a target that it lacks, and a class that is not declared, is unknown."""
    columns = [list(table[target]) if target in table else [None] * len(table) for target in task.targets]
    allowed = set(task.classes) if task.kind == "multiclass" else {0.0, 1.0}
    rows = zip(*columns, strict=True) if columns else []
    found = ((value if value in allowed else None for value in row) for row in rows)
    return {str(image): tuple(values) for image, values in zip(table["image"], found, strict=True)}


class FileNames:
    """Which images a file name of a label table means: a path, or a base name, with or without extension."""

    def __init__(self, images: Mapping[str, str]) -> None:
        """Take the image of each file, by its path relative to the source."""
        self._whole: dict[str, str] = {}
        self._endings: dict[str, set[str]] = {}
        for path, image in images.items():
            for name in {_normal(path), _without_extension(_normal(path))}:
                self._whole.setdefault(name, image)
                for ending in _endings(name):
                    self._endings.setdefault(ending, set()).add(image)

    def __call__(self, key: str) -> list[str]:
        """The images that `key` means; several where files in different folders share a base name.

        The key may start above the source or below it, so one of the two paths must end with the other: a file of
        another folder is never meant.
        """
        path = _normal(key)
        return self._named(path) or self._named(_without_extension(path))

    def _named(self, path: str) -> list[str]:
        if path in self._whole:
            return [self._whole[path]]
        if path in self._endings:
            return sorted(self._endings[path])
        return next(([self._whole[ending]] for ending in _endings(path) if ending in self._whole), [])


def refuse_ambiguous(table: LabelTable, images_of: Callable[[str], Iterable[str]]) -> None:
    """Refuse file names that mean several images.

    Raises:
        LabelError: names the lines.
    """
    lines = [line for key, line in zip(table.keys, table.lines, strict=True) if key and len(list(images_of(key))) > 1]
    if lines:
        raise LabelError(
            f"the label table: a file name that several images share, {_named(lines)}; use paths relative to the source"
        )


def _rows(path: Path) -> tuple[list[int], list[list[str]]]:
    """The rows that are not blank, with the line of the file at which each starts."""
    if not path.is_file():
        raise SourceError("the label table: expected a CSV file, found none there; check the path given with --labels")
    content = path.read_bytes()
    if b"\0" in content:
        raise SourceError("the label table: not a text file of UTF-8 or Latin-1; save it as “CSV UTF-8”")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    lines, rows, start = [], [], 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                lines.append(start)
                rows.append(row)
            start = reader.line_num + 1
    except csv.Error:
        raise SourceError(f"the label table: not CSV from line {start} on") from None
    return lines, rows


def _key(header: list[str], config: IngestSection) -> tuple[str, str]:
    """What the key column names, and its name. Messages quote no column: without a header line those are keys."""
    kinds = [config.labels_key] if config.labels_key != "auto" else list(KEY_COLUMNS)
    if config.labels_column is not None:
        if config.labels_column not in header:
            raise SourceError("params.yaml ingest.labels_column: not a column of the label table")
        kind = next((kind for kind in kinds if _squashed(config.labels_column) in KEY_COLUMNS[kind]), None)
        if kind is None and config.labels_key == "auto":
            raise SourceError(
                "params.yaml ingest.labels_key: the name of ingest.labels_column does not say what it holds; set it"
            )
        return kind or config.labels_key, config.labels_column
    for kind in kinds:
        for column in header:
            if _squashed(column) in KEY_COLUMNS[kind]:
                return kind, column
    raise SourceError(
        f"the label table: expected a column SOPInstanceUID, AccessionNumber or file, found none among the {len(header)} of the "
        "first line; name it with --set ingest.labels_column=NAME --set ingest.labels_key=sop_instance_uid|accession_number|file"
    )


def _parsed(table: LabelTable, target: str, read_one: Callable[[str], Label], task: Task) -> list[Label]:
    values: list[Label] = []
    wrong: list[int] = []
    for line, cell in zip(table.lines, table.columns[target], strict=True):
        try:
            values.append(read_one(cell))
        except ValueError:
            wrong.append(line)
    if wrong:
        expected = f"one of task.classes ({', '.join(task.classes)})" if task.kind == "multiclass" else "0, 1"
        raise LabelError(
            f"the label table, column {target}: expected {expected} or nothing (unknown), got something else in {_named(wrong)}"
        )
    return values


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


def _is_identifier(column: str) -> bool:
    """Whether the name says that the column identifies something: a key of any kind, a UID, an ID."""
    squashed = _squashed(column)
    return (
        squashed.endswith("uid")
        or squashed in ("id", "patientid", "studyid", "mrn")
        or any(squashed in names for names in KEY_COLUMNS.values())
    )


def _squashed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _normal(path: str) -> str:
    return path.replace("\\", "/").removeprefix("./").strip("/")


def _endings(path: str) -> Iterator[str]:
    """The path, then what remains as folders are taken off its front."""
    while path:
        yield path
        _, _, path = path.partition("/")


def _without_extension(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    return f"{folder}{slash}{stem}" if dot and extension.casefold() in EXTENSIONS else path


def _named(lines: list[int]) -> str:
    shown = ", ".join(map(str, lines[:_NAMED_LINES]))
    more = f" and {len(lines) - _NAMED_LINES} more" if len(lines) > _NAMED_LINES else ""
    return f"line{'s' if len(lines) > 1 else ''} {shown}{more}"
