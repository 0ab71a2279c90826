"""Where everything lies in a workspace."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The folders and files of one workspace; nothing is made by asking for a path."""

    workspace: Path

    @property
    def repository(self) -> Path:
        """The git repository that the workspace is or lies in, else the workspace: nothing identified may be within."""
        workspace = self.workspace.resolve()
        return next((folder for folder in (workspace, *workspace.parents) if (folder / ".git").exists()), workspace)

    @property
    def params(self) -> Path:
        return self.workspace / "params.yaml"

    @property
    def pipeline(self) -> Path:
        return self.workspace / "dvc.yaml"

    @property
    def lock(self) -> Path:
        return self.workspace / "dvc.lock"

    @property
    def code(self) -> Path:
        """Fingerprints of the installed code by stage, so that DVC sees an upgrade (absent where the code itself is)."""
        return self.workspace / "code.json"

    @property
    def policy(self) -> Path:
        return self.workspace / "mlflow" / "policy.yaml"

    @property
    def data(self) -> Path:
        """The de-identified data set, versioned by `data.dvc`."""
        return self.workspace / "data"

    @property
    def data_dvc(self) -> Path:
        return self.workspace / "data.dvc"

    @property
    def dicom(self) -> Path:
        return self.data / "dicom"

    @property
    def manifest(self) -> Path:
        return self.data / "manifest.parquet"

    @property
    def labels(self) -> Path:
        return self.data / "labels.parquet"

    @property
    def flow(self) -> Path:
        """How many files came in and what became of them: counts over all ingests (no identified data)."""
        return self.data / "flow.json"

    @property
    def deidentification(self) -> Path:
        """What was removed, replaced and kept of how many headers, and by which method (no identified data)."""
        return self.data / "deidentification.json"

    @property
    def artifacts(self) -> Path:
        return self.workspace / "artifacts"

    @property
    def lr_find(self) -> Path:
        """The picture of the last range test of the learning rate; not an output of any stage."""
        return self.artifacts / "lr_find.png"

    @property
    def ingest_summary(self) -> Path:
        """Counts of the latest ingest: what came in, what was set aside and why (no identified data)."""
        return self.artifacts / "ingest.json"

    @property
    def prepared(self) -> Path:
        return self.artifacts / "prepared"

    @property
    def index(self) -> Path:
        return self.prepared / "index.parquet"

    @property
    def quality(self) -> Path:
        return self.artifacts / "quality"

    @property
    def quality_result(self) -> Path:
        return self.quality / "result.json"

    @property
    def data_docs(self) -> Path:
        return self.quality / "docs" / "index.html"

    @property
    def split(self) -> Path:
        return self.artifacts / "split.parquet"

    @property
    def leakage(self) -> Path:
        """The leakage certificate."""
        return self.artifacts / "leakage.json"

    @property
    def shortcuts(self) -> Path:
        """What the shortcut audit found."""
        return self.artifacts / "shortcuts" / "shortcuts.json"

    @property
    def shortcut_scores(self) -> Path:
        """What each shortcut says of the images of the test part."""
        return self.artifacts / "shortcuts" / "scores.parquet"

    @property
    def ranking(self) -> Path:
        """Networks and weights compared before training, with the features of each; not an output of any stage."""
        return self.artifacts / "ranking"

    @property
    def comparison(self) -> Path:
        """Ways to transfer compared by training, with the result of each run; not an output of any stage."""
        return self.artifacts / "compare"

    @property
    def model(self) -> Path:
        return self.artifacts / "model"

    @property
    def checkpoint(self) -> Path:
        """Where an interrupted training goes on; not an output of any stage."""
        return self.artifacts / "checkpoint"

    @property
    def pretraining(self) -> Path:
        """Where an interrupted pretraining goes on, whatever is trained in between; not an output of any stage."""
        return self.artifacts / "pretraining"

    @property
    def evaluation(self) -> Path:
        return self.artifacts / "evaluation"

    @property
    def metrics(self) -> Path:
        return self.evaluation / "metrics.json"

    @property
    def packet(self) -> Path:
        return self.evaluation / "packet.html"

    @property
    def mlflow(self) -> Path:
        """The local MLflow home: `mlflow.db` and `artifacts/`."""
        return self.workspace / ".mlflow"

    @property
    def prefect(self) -> Path:
        """The local Prefect home."""
        return self.workspace / ".prefect"

    @property
    def quarantine(self) -> Path:
        """Where files that cannot be used are set aside: outside every workspace, since they are still identified.

        `RADTRANSFER_QUARANTINE` if set, else the user's data folder; one folder for each workspace.
        """
        return self._private("RADTRANSFER_QUARANTINE", "quarantine")

    @property
    def unchanged(self) -> Path:
        """What became of the files of source folders, so that unchanged ones are not opened again: keyed pseudonyms only."""
        return self.quarantine / "unchanged.sqlite"

    @property
    def inbox(self) -> Path:
        """Where what comes over a network waits, still identified, until it is taken in: outside every workspace.

        `RADTRANSFER_INBOX` if set, else the user's data folder; one folder for each workspace.
        """
        return self._private("RADTRANSFER_INBOX", "inbox")

    @property
    def seen(self) -> Path:
        """What servers were asked for and need not be again: keyed pseudonyms only."""
        return self.inbox / "seen.sqlite"

    def _private(self, variable: str, name: str) -> Path:
        """A folder of this workspace's own in the user's data folder, or where an environment variable says."""
        home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
        root = Path(os.environ.get(variable) or home / "radtransfer" / name)
        where = hashlib.sha256(str(self.workspace.resolve()).encode()).hexdigest()[:8]
        return root / f"{self.workspace.resolve().name}-{where}"


def weights_folder() -> Path:
    """The folder in which pretrained checkpoints are looked for: `RADTRANSFER_WEIGHTS`, default the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("RADTRANSFER_WEIGHTS") or cache / "radtransfer" / "weights")
