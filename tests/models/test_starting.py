from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.errors import ConfigurationError, WeightsError
from pipelines.models.backbones import build
from pipelines.models.passports import save_backbone
from pipelines.models.starting import SCRATCH, UNTRAINED, start

OPTIONS = {"outputs": 2, "dropout": 0.1, "seed": 5}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path))
    return tmp_path


def test_scratch_is_a_source_without_weights() -> None:
    begun = start("resnet10", SCRATCH, **OPTIONS)
    assert (begun.passport, begun.report) == (None, None)
    assert begun.network.normalisation.mean == pytest.approx(UNTRAINED.mean)


def test_the_seed_decides_what_is_random_and_nothing_else_moves() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one, other = start("resnet10", SCRATCH, **OPTIONS).network, start("resnet10", SCRATCH, **OPTIONS).network
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_source_fills_the_backbone_and_not_the_head(folder: Path) -> None:
    made = build("resnet10", outputs=1, dropout=0, normalisation=UNTRAINED)
    save_backbone(made, folder / "own.safetensors", name="own", source="medical", licence="none", trained_on="nothing")
    begun = start("resnet10", "medical", **OPTIONS)
    assert begun.passport is not None
    assert (begun.passport.name, begun.report and begun.report.missing) == ("own", ())
    assert torch.equal(begun.network.trunk.state_dict()["conv1.weight"], made.trunk.state_dict()["conv1.weight"])
    assert torch.equal(begun.network.head.linear.weight, start("resnet10", SCRATCH, **OPTIONS).network.head.linear.weight)


def test_what_is_not_there_is_said_before_anything_is_built(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"train\.backbone: expected one of"):
        start("vgg", SCRATCH, **OPTIONS)
    with pytest.raises(WeightsError, match=r"train\.weights: expected a passport for resnet10"):
        start("resnet10", "imagenet", **OPTIONS, download=False)
    with pytest.raises(WeightsError, match=r"^params\.yaml rank\.candidates: expected a passport for resnet10"):
        start("resnet10", "imagenet", **OPTIONS, download=False, key="params.yaml rank.candidates")
