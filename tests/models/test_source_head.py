"""The classifier of published checkpoints, found among what loading leaves out."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from pipelines.models.keymaps import KeyMap
from pipelines.models.passports import Found, Passport
from pipelines.models.source_head import source_head


def found(folder: Path, tensors: dict[str, torch.Tensor]) -> Found:
    content = save(tensors)
    (folder / "net.safetensors").write_bytes(content)
    passport = Passport(
        name="net",
        backbone="resnet10",
        source="test",
        architecture="none",
        file="net.safetensors",
        sha256=hashlib.sha256(content).hexdigest(),
        licence="Apache-2.0",
        key_map=KeyMap(drop=(r"^fc\.", r"^aux\.")),
        trained_on="nothing",
    )
    return Found(passport, folder / "net.safetensors")


def test_the_linear_classifier_is_found_by_its_width(tmp_path: Path) -> None:
    weight, bias = torch.rand(5, 8), torch.rand(5)
    tensors = {"fc.weight": weight, "fc.bias": bias, "aux.weight": torch.rand(5, 3), "conv.weight": torch.rand(8, 8)}
    head = source_head(found(tmp_path, tensors), 8)
    assert head is not None
    assert torch.equal(torch.from_numpy(head[0]).float(), weight)
    assert torch.equal(torch.from_numpy(head[1]).float(), bias)


def test_the_classifier_of_a_file_with_other_names_is_found_by_what_they_are_renamed_to(tmp_path: Path) -> None:
    weight, bias = torch.rand(5, 8), torch.rand(5)
    theirs = found(tmp_path, {"net.fc.weight": weight, "net.fc.bias": bias, "fc.weight": torch.rand(6, 8)})
    assert source_head(theirs, 8) is None
    head = source_head(replace(theirs, passport=replace(theirs.passport, renames=((r"^(?!net\.)", None), (r"^net\.", "")))), 8)
    assert head is not None
    assert torch.equal(torch.from_numpy(head[0]).float(), weight)


@pytest.mark.parametrize(
    "tensors",
    [
        {"conv.weight": torch.rand(8, 8)},
        {"fc.weight": torch.rand(5, 7), "fc.bias": torch.rand(5)},
        {"fc.weight": torch.rand(5, 8)},
        {"fc.weight": torch.rand(5, 8), "fc.bias": torch.rand(4)},
        {"fc.weight": torch.rand(5, 8), "fc.bias": torch.rand(5), "aux.weight": torch.rand(6, 8), "aux.bias": torch.rand(6)},
    ],
    ids=["no classifier", "another width", "no bias", "a bias of another length", "two classifiers"],
)
def test_where_there_is_no_such_classifier_there_is_none(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    assert source_head(found(tmp_path, tensors), 8) is None
