"""The model next to the shortcuts: what it knows beyond the best of them, on the same test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines import files
from pipelines.errors import MissingInputError
from pipelines.metrics.intervals import Interval
from pipelines.metrics.paired import Gain, gains
from pipelines.paths import Paths
from pipelines.quality.shortcuts import SHORTCUTS
from pipelines.records import shortcut_column


@dataclass(frozen=True)
class Comparison:
    """The model's AUROC minus that of each shortcut.

    Attributes:
        audit: what shortcuts.json says.
        gains: by shortcut, with intervals over the same resampled patients.
    """

    audit: Mapping[str, Any]
    gains: Mapping[str, Gain]

    @property
    def alarms(self) -> dict[str, tuple[str, ...]]:
        """The shortcuts that cannot see findings but know the label, and of which outputs."""
        found = {
            name: tuple(output for output, known in shortcut["outputs"].items() if known["alarm"])
            for name, shortcut in self.audit["shortcuts"].items()
        }
        return {name: outputs for name, outputs in found.items() if outputs}

    def best(self, output: str | None = None) -> str | None:
        """The shortcut with the highest AUROC on the test part, of an output or on average; None where all are undefined."""
        areas = {name: _known(shortcut, output)["test"]["value"] for name, shortcut in self.audit["shortcuts"].items()}
        defined = {name: area for name, area in areas.items() if area is not None}
        return max(defined, key=defined.__getitem__) if defined else None

    def gain(self, output: str | None = None) -> Interval:
        """Over the best shortcut."""
        best = self.best(output)
        if best is None:
            return Interval(None, None, None)
        return self.gains[best].macro if output is None else self.gains[best].outputs[output]

    def to_dict(self) -> dict[str, Any]:
        """What metrics.json says of it."""
        outputs = next(iter(self.audit["shortcuts"].values()))["outputs"]
        return {
            "alarm": bool(self.alarms),
            "alarms": ", ".join(f"{name} ({', '.join(outputs)})" for name, outputs in self.alarms.items()) or "none",
            **self._beside(None),
            "outputs": {output: self._beside(output) for output in outputs},
        }

    def _beside(self, output: str | None) -> dict[str, Any]:
        best = self.best(output)
        area = _known(self.audit["shortcuts"][best], output)["test"] if best else Interval(None, None, None).to_dict()
        return {"best": best, "auroc": area, "gain": self.gain(output).to_dict()}


def _known(shortcut: Mapping[str, Any], output: str | None) -> Mapping[str, Any]:
    """What the audit says of a shortcut for an output, or on average."""
    known: Mapping[str, Any] = shortcut["macro"] if output is None else shortcut["outputs"][output]
    return known


def read(paths: Paths, split: str, outputs: Sequence[str]) -> tuple[dict[str, Any], pd.DataFrame]:
    """What the audit found, its shortcuts in the order of the table, and what each shortcut says of each image of the test part.

    Args:
        split: SHA-256 of the split in use.
        outputs: what the model tells.

    Raises:
        MissingInputError: the audit has not run, or ran on another split or for other outputs.
    """
    audit = files.read_json(paths.shortcuts, made_by="audit-shortcuts")
    if audit["split_sha256"] != split:
        raise MissingInputError(
            f"shortcuts.json: expected the audit of split {split[:12]}, got that of {audit['split_sha256'][:12]}; "
            "run `radtransfer audit-shortcuts`"
        )
    audited = {output for shortcut in audit["shortcuts"].values() for output in shortcut["outputs"]}
    if audited != set(outputs):
        raise MissingInputError(
            f"shortcuts.json: expected the audit of {', '.join(outputs)}, got that of {', '.join(sorted(audited))}; "
            "run `radtransfer audit-shortcuts`"
        )
    ordered = {name: audit["shortcuts"][name] for name in SHORTCUTS if name in audit["shortcuts"]}
    return {**audit, "shortcuts": ordered}, files.read_table(paths.shortcut_scores, made_by="audit-shortcuts")


def compare(
    audit: Mapping[str, Any],
    said: pd.DataFrame,
    images: pd.DataFrame,
    labels: NDArray[Any],
    scores: NDArray[Any],
    *,
    outputs: Sequence[str],
    resamples: int,
    seed: int,
) -> Comparison:
    """Compare the model with every shortcut of the audit.

    Args:
        audit: as `read` gives it, and `said` likewise.
        images: `image` and `patient` of the test part, in the order of the labels.
        labels: (images, outputs), 0, 1 or NaN (unknown).
        scores: what the model says, (images, outputs).
        outputs: their names.
        resamples: bootstrap resamples of patients.
        seed: of the bootstrap.
    """
    aligned = said.set_index("image").loc[images["image"]]
    rivals = {
        name: aligned[[shortcut_column(name, output) for output in outputs]].to_numpy(np.float64) for name in audit["shortcuts"]
    }
    patients = images["patient"].to_numpy()
    return Comparison(audit, gains(labels, scores, rivals, patients, outputs=outputs, resamples=resamples, seed=seed))
