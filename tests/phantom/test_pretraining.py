"""The task that stands in for ImageNet: pictures of shapes, and a network that learns them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from pipelines.models import passports
from pipelines.models.backbones import build
from pipelines.phantom import pretraining
from pipelines.phantom.pretraining import NAME, NORMALISATION, SHAPES, images, pretrain

GOLDEN = "a764e967352e4428d228022dc4ad94905d2a00bdf87e6863d165ed669794fb6d"


def test_the_pictures_are_always_the_same_and_hold_every_shape_equally_often() -> None:
    arrays, labels = images(3 * len(SHAPES), 48, 1)
    again, _ = images(3 * len(SHAPES), 48, 1)
    assert arrays.shape == (3 * len(SHAPES), 48, 48)
    assert arrays.dtype == np.uint8
    assert np.array_equal(arrays, again)
    assert np.bincount(labels).tolist() == [3] * len(SHAPES)
    assert hashlib.sha256(arrays.tobytes()).hexdigest() == GOLDEN


def test_more_pictures_begin_with_the_same_ones() -> None:
    assert np.array_equal(images(16, 32, 1)[0], images(24, 32, 1)[0][:16])


def test_pretraining_writes_weights_that_load_by_name_and_say_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "HELD_OUT", 16)
    made = pretrain(tmp_path, count=128, size=32, epochs=1)
    again = pretrain(tmp_path / "again", count=128, size=32, epochs=1)
    assert made.path.read_bytes() == again.path.read_bytes()
    assert made.passport == again.passport
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path))
    found = passports.find(NAME, "resnet10")
    assert found.passport.trained_on == "phantom shapes (generated), not ImageNet"
    assert "accuracy on 16 others" in found.passport.notes
    network = build("resnet10", outputs=2, dropout=0.0, normalisation=NORMALISATION)
    report = passports.load(network, found)
    assert report.matched == len(network.trunk.state_dict())


def test_the_network_learns_to_tell_shapes_apart() -> None:
    import torch

    arrays, labels = images(320, 40, 5)
    torch.manual_seed(0)
    network = build("resnet10", outputs=len(SHAPES), dropout=0.0, normalisation=NORMALISATION)
    with pretraining._one_thread():
        pretraining._train(network, torch.from_numpy(arrays[:256]), torch.from_numpy(labels[:256]), 12)
        accuracy = pretraining._accuracy(network, torch.from_numpy(arrays[256:]), torch.from_numpy(labels[256:]))
    assert accuracy > 2 / len(SHAPES)
