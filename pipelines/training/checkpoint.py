"""Where an interrupted training goes on: one file per training, replaced atomically after each epoch.

Everything random in an epoch follows from the seed and the epoch's number, so that the state of a training is its
tensors, its position and its history. The file is safetensors with a JSON header; no pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pipelines import files

FORMAT = 1


@dataclass(frozen=True)
class Saved:
    """Named tensors and JSON facts, as they go into one file."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """The files of one training, kept while its `fingerprint` is the one that asks for them.

    Attributes:
        folder: made when first written to.
        fingerprint: of everything that decides the result; see `fingerprint`.
    """

    folder: Path
    fingerprint: str

    def write(self, name: str, saved: Saved) -> None:
        """Put `saved` in the place of what was under `name`, in one atomic step."""
        facts = {"format": FORMAT, "fingerprint": self.fingerprint, **saved.facts}
        header = {"facts": json.dumps(facts, sort_keys=True)}
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in saved.tensors.items()}
        files.write_bytes(self._file(name), save(tensors, header))

    def read(self, name: str) -> Saved | None:
        """What was written under `name` for the same fingerprint; None if there is nothing, or it is of another training."""
        file = self._file(name)
        if not file.is_file():
            return None
        try:
            with safe_open(file, "pt") as opened:
                facts = json.loads((opened.metadata() or {}).get("facts", "{}"))
                if (facts.get("format"), facts.get("fingerprint")) != (FORMAT, self.fingerprint):
                    return None
                return Saved({key: opened.get_tensor(key) for key in opened.keys()}, facts)  # noqa: SIM118 it is no mapping
        except (SafetensorError, json.JSONDecodeError):
            return None

    def exists(self, name: str) -> bool:
        """Whether there is a file, of this training or another."""
        return self._file(name).is_file()

    def remove(self) -> None:
        """Remove every file of the training, and the folder if nothing else is in it."""
        if not self.folder.is_dir():
            return
        for file in self.folder.glob("*.safetensors"):
            file.unlink(missing_ok=True)
        for file in self.folder.glob(".*.safetensors.*.tmp"):
            file.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def fingerprint(facts: Mapping[str, Any]) -> str:
    """SHA-256 of facts (JSON) that decide a training's result: configuration and hashes of data and weights."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()
