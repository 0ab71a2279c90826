"""split: put each patient into train, validation or test, and certify that nothing leaks between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines import files
from pipelines.errors import MissingInputError, QualityError
from pipelines.quality import leakage
from pipelines.quality.partition import partition
from pipelines.quality.tables import usable
from pipelines.records import PARTS, SPLIT

if TYPE_CHECKING:
    from pipelines.config import Config
    from pipelines.paths import Paths


@dataclass(frozen=True)
class SplitSummary:
    """How the images were divided.

    Attributes:
        images: images in the split.
        patients: their patients.
        parts: for each part its images, patients, studies and classes, as in the certificate.
        near_duplicate_pairs: pairs of images in different parts that look almost alike (a warning).
        split_sha256: fingerprint of the split's content.
    """

    images: int
    patients: int
    parts: dict[str, dict[str, Any]]
    near_duplicate_pairs: int
    split_sha256: str

    def describe(self) -> str:
        from rich.markup import escape

        lines = [f"{self.images:,} images of {self.patients:,} patients; no patient, study or identical image spans two parts"]
        for name in PARTS:
            part = self.parts[name]
            classes = ", ".join(f"{escape(output)} {counts['positive']:,}" for output, counts in part["classes"].items())
            lines.append(f"  {name:<11}{part['images']:>7,} images {part['patients']:>7,} patients   with {classes}")
        if self.near_duplicate_pairs:
            lines.append(
                f"[yellow]{self.near_duplicate_pairs:,} pairs of images in different parts look almost alike[/yellow] "
                "(artifacts/leakage.json lists the first ones)"
            )
        return "\n".join(lines)


def run(config: Config, paths: Paths) -> SplitSummary:
    """Write artifacts/split.parquet and its certificate, artifacts/leakage.json.

    Raises:
        MissingInputError: an earlier stage has not run, or `check` ran on other data.
        QualityError: `check` did not pass.
        LeakageError: there are too few patients of a class, or the certificate is refused.
    """
    task = config.task.declared()
    _require_quality(paths)
    index = files.read_table(paths.index, made_by="prepare")
    labels = files.read_table(paths.labels, made_by="ingest")
    images, matrix = usable(index, labels, task)
    split = images.assign(part=partition(images, matrix, task, config.split))[[*SPLIT]]
    certificate = leakage.certify(split, index, labels, task)
    files.write_table(paths.split, split)
    files.write_json(paths.leakage, certificate.to_dict())
    return SplitSummary(
        images=len(split),
        patients=int(split["patient"].nunique()),
        parts=certificate.parts,
        near_duplicate_pairs=certificate.checks["near_duplicate_pairs_across_parts"],
        split_sha256=certificate.split_sha256,
    )


def _require_quality(paths: Paths) -> None:
    """Only data that passed `check`, as they are now, are split."""
    result = files.read_json(paths.quality_result, made_by="check")
    if not result["passed"]:
        failed = [item["name"] for item in result["expectations"] if not item["passed"] and item["severity"] == "error"]
        raise QualityError(f"split: check did not pass ({', '.join(failed)}); correct the data, then run `radtransfer check`")
    for name, path in (("index", paths.index), ("labels", paths.labels)):
        if not path.is_file() or result["inputs"][name] != files.sha256(path):
            raise MissingInputError(f"split: check ran on another version of {path.name}; run `radtransfer check` again")
