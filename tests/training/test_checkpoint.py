from __future__ import annotations

from pathlib import Path

import torch

from pipelines.training.checkpoint import Checkpoint, Saved, fingerprint

SAVED = Saved({"a/b": torch.tensor([1.5, -0.0]), "steps": torch.tensor(7)}, {"epoch": 3, "loss": 0.1 + 0.2})


def test_what_was_written_is_read_to_the_bit(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", "same")
    checkpoint.write("training", SAVED)
    read = checkpoint.read("training")
    assert read is not None
    assert read.facts["loss"] == 0.1 + 0.2
    assert torch.equal(read.tensors["a/b"].view(torch.int32), SAVED.tensors["a/b"].view(torch.int32))
    assert read.tensors["steps"].item() == 7


def test_a_checkpoint_of_another_training_is_not_read(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "one").write("training", SAVED)
    other = Checkpoint(tmp_path, "other")
    assert other.exists("training")
    assert other.read("training") is None


def test_half_a_checkpoint_is_not_read(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "same")
    checkpoint.write("training", SAVED)
    file = tmp_path / "training.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    assert checkpoint.read("training") is None


def test_nothing_written_is_nothing_read(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path, "same").read("training") is None


def test_removing_takes_the_remains_of_killed_writes_along_and_nothing_else(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", "same")
    checkpoint.remove()
    checkpoint.write("training", SAVED)
    (checkpoint.folder / ".training.safetensors.x1.tmp").write_bytes(b"half")
    checkpoint.remove()
    assert not checkpoint.folder.exists()
    checkpoint.write("training", SAVED)
    (checkpoint.folder / "notes.txt").write_text("mine")
    checkpoint.remove()
    assert [file.name for file in checkpoint.folder.iterdir()] == ["notes.txt"]


def test_a_fingerprint_changes_with_any_fact_and_not_with_their_order() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
