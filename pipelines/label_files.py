"""The file of labels: read a CSV file, and find what its rows name.

A row names an image by SOPInstanceUID, a study by accession number, or a file. Keys are identified data: errors say the
line of the file, never a key.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.config import IngestSection
from pipelines.errors import LabelError, SourceError

# Column names, without case and punctuation, by what they hold; the first kind that is there is taken.
KEY_COLUMNS = {
    "sop_instance_uid": ("sopinstanceuid", "sopuid", "instanceuid", "imageuid"),
    "accession_number": ("accessionnumber", "accession", "accessionno"),
    "file": ("file", "filename", "filepath", "path", "imagefile", "dicomfile"),
}
EXTENSIONS = frozenset({"dcm", "dicom", "ima", "png", "jpg", "jpeg", "tif", "tiff"})
_DELIMITERS = ",;\t"
_NAMED_LINES = 10


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
        where = named_lines(long)
        raise SourceError(f"the label table: more fields than columns in {where}; quote fields that hold the delimiter")
    kind, column = _key(header, config)
    cells = [[*(cell.strip() for cell in row), *[""] * (len(header) - len(row))] for row in rows[1:]]
    columns = {name: tuple(row[position] for row in cells) for position, name in enumerate(header) if name}
    keys = columns.pop(column)
    return LabelTable(kind, column, keys, tuple(lines[1:]), columns)


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
            f"the label table: a file name that several images share, {named_lines(lines)}; use paths relative to the source"
        )


def named_lines(lines: list[int]) -> str:
    shown = ", ".join(map(str, lines[:_NAMED_LINES]))
    more = f" and {len(lines) - _NAMED_LINES} more" if len(lines) > _NAMED_LINES else ""
    return f"line{'s' if len(lines) > 1 else ''} {shown}{more}"


def squashed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


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
        kind = next((kind for kind in kinds if squashed(config.labels_column) in KEY_COLUMNS[kind]), None)
        if kind is None and config.labels_key == "auto":
            raise SourceError(
                "params.yaml ingest.labels_key: the name of ingest.labels_column does not say what it holds; set it"
            )
        return kind or config.labels_key, config.labels_column
    for kind in kinds:
        for column in header:
            if squashed(column) in KEY_COLUMNS[kind]:
                return kind, column
    raise SourceError(
        f"the label table: expected a column SOPInstanceUID, AccessionNumber or file, found none among the {len(header)} of the "
        "first line; name it with --set ingest.labels_column=NAME --set ingest.labels_key=sop_instance_uid|accession_number|file"
    )


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
