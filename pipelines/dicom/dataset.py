"""The de-identified data set on disk: which images it holds, adding one, and its manifest."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import files
from pipelines.dicom.deidentify import Row, key_fingerprint, manifest_row
from pipelines.dicom.pseudonyms import VARIABLE, Pseudonyms
from pipelines.dicom.reading import open_source
from pipelines.errors import MissingInputError, MissingKeyError
from pipelines.paths import Paths
from pipelines.records import MANIFEST

if TYPE_CHECKING:
    import pandas as pd

_NUMBERS = {"age_years": "float64", "spacing_mm": "float64", "rows": "int64", "columns": "int64", "bits_stored": "int64"}


@dataclass(frozen=True)
class Counts:
    """How many images, studies and patients there are."""

    images: int
    studies: int
    patients: int


def counts(rows: Iterable[Row]) -> Counts:
    rows = list(rows)
    return Counts(len(rows), len({row["study"] for row in rows}), len({row["patient"] for row in rows}))


def held_files(paths: Paths) -> dict[str, Path]:
    """The de-identified files on disk, by image; a killed ingest may have left some that the manifest lacks."""
    return {path.stem: path for path in sorted(paths.dicom.glob("*/*.dcm"))}


def read_rows(paths: Paths, held: Mapping[str, Path]) -> dict[str, Row]:
    """The rows of the manifest by image, and those of files on disk that it lacks.

    Raises:
        MissingInputError: the manifest names files that are not there.
    """
    rows: dict[str, Row] = {}
    if paths.manifest.is_file():
        table = files.read_table(paths.manifest, made_by="ingest")
        records: list[Any] = table.astype(object).where(table.notna(), None).to_dict("records")
        rows = {row["image"]: row for row in records}
    missing = len(rows.keys() - held.keys())
    if missing:
        raise MissingInputError(
            f"data: {missing:,} of the {len(rows):,} files of manifest.parquet are not there; fetch them with `dvc pull` or "
            "`dvc checkout`, or remove manifest.parquet to have it made anew from the files that are"
        )
    for image in held.keys() - rows.keys():
        with held[image].open("rb") as stream:
            rows[image] = manifest_row(open_source(stream))
    return rows


def check_key(held: Mapping[str, Path], pseudonyms: Pseudonyms) -> None:
    """Refuse another key than the one that the data set was made with: every patient would be there twice.

    Raises:
        MissingKeyError: it is another one.
    """
    if not held:
        return
    with held[min(held)].open("rb") as stream:
        made_with = key_fingerprint(open_source(stream))
    if made_with and made_with != pseudonyms.fingerprint:
        raise MissingKeyError(
            f"{VARIABLE}: expected the key that data/ was made with (fingerprint {made_with}), got another "
            f"({pseudonyms.fingerprint}); export that one, or start another workspace with `radtransfer init DIR`"
        )


@contextmanager
def staging(paths: Paths) -> Iterator[Path]:
    """A folder beside the data set for files that are not part of it yet; emptied before and removed after."""
    folder = paths.data / ".incoming"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def take_over(staged: Path, row: Row, paths: Paths) -> None:
    """Put a staged file in its place, at once or not at all."""
    target = paths.data / str(row["file"])
    target.parent.mkdir(parents=True, exist_ok=True)
    staged.chmod(0o644)
    staged.replace(target)


def write_manifest(rows: Iterable[Row], paths: Paths) -> None:
    """Write the manifest, sorted by image; the same rows give the same bytes."""
    files.write_table(paths.manifest, _table(rows))


def _table(rows: Iterable[Row]) -> pd.DataFrame:
    import pandas as pd

    ordered = sorted(rows, key=lambda row: str(row["image"]))
    columns: dict[str, Any] = {
        name: pd.Series([row[name] for row in ordered], dtype=_NUMBERS.get(name, "str")) for name in MANIFEST
    }
    return pd.DataFrame(columns)


def write_flow(set_aside: Mapping[str, str], images: int, paths: Paths) -> None:
    """Write what became of all files that ever came in (`Paths.flow`).

    Args:
        set_aside: reason code by keyed pseudonym of a file's content, so that none is counted twice.
        images: images of the data set.
    """
    reasons = dict(sorted(Counter(set_aside.values()).items()))
    flow = {
        "found": images + len(set_aside),
        "images": images,
        "not_dicom": reasons.get("not_dicom", 0),
        "quarantined": {reason: count for reason, count in reasons.items() if reason != "not_dicom"},
        "set_aside": reasons,
        "set_aside_files": dict(set_aside),
    }
    files.write_json(paths.flow, flow)


def read_set_aside(paths: Paths) -> dict[str, str]:
    """`set_aside` of the latest `write_flow`, empty if there was none."""
    if not paths.flow.is_file():
        return {}
    return dict(files.read_json(paths.flow, made_by="ingest").get("set_aside_files", {}))
