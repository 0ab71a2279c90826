"""What the command line and the flows do to a workspace besides running stages: settings, ingest, versions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipelines import config, versioning, workspace
from pipelines.errors import MissingInputError
from pipelines.ingest_summary import IngestSummary
from pipelines.paths import Paths
from pipelines.stages import ingest


@dataclass(frozen=True)
class IngestOutcome:
    """What came in, and the version of `data/` that records it."""

    ingest: IngestSummary
    version: versioning.DataVersion

    def describe(self) -> str:
        return f"{self.ingest.describe()}\n{self.version.describe()}"


def keep(paths: Paths, settings: Iterable[str]) -> None:
    """Write `--set` settings into params.yaml, since later stages and later runs read them there."""
    settings = list(settings)
    if settings:
        workspace.set_params(paths, settings)


def ingest_source(paths: Paths, source: Path | None = None, labels: Path | None = None) -> IngestSummary:
    """De-identify a source into `data/`; targets that the label table declares by itself are kept in params.yaml.

    Raises:
        MissingInputError: `data.dvc` records images that are not here, so that adding to them would lose them.
    """
    if versioning.data_hash(paths) and not paths.manifest.is_file():
        raise MissingInputError(
            "data/: expected the images that data.dvc records, found none; run `dvc pull` (or `dvc checkout`) first, "
            "or begin a data set of your own with `radtransfer init DIR`"
        )
    summary = ingest.run(config.load(paths.params), paths, source, labels)
    if summary.declared:
        keep(paths, [f"task.{name}={json.dumps(value)}" for name, value in summary.declared.items()])
    return summary


def version(paths: Paths, summary: IngestSummary) -> versioning.DataVersion:
    """Version `data/` with a message that says how many studies came in."""
    return versioning.version_data(paths, f"Ingest {summary.new_studies} new studies ({summary.new} images)")


def ingest_and_version(paths: Paths, source: Path | None = None, labels: Path | None = None) -> IngestOutcome:
    """`ingest_source`, then `version`."""
    summary = ingest_source(paths, source, labels)
    return IngestOutcome(summary, version(paths, summary))
