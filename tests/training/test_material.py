"""What is learnt from is changed at random; what is judged on is not."""

from __future__ import annotations

import numpy as np
import torch

from pipelines.config import AugmentSection
from pipelines.training.batches import Examples, in_order
from pipelines.training.material import Images

CPU = torch.device("cpu")


def test_images_are_judged_in_order_and_unchanged(parts: tuple[Examples, Examples]) -> None:
    part = parts[1]
    batches = list(Images(part, AugmentSection(), CPU).judging(5))
    images, labels = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    stored = part.store.take(part.shards, part.rows)
    np.testing.assert_allclose(images[:, 0].numpy(), stored / 255, atol=1e-6)
    np.testing.assert_array_equal(labels.numpy(), part.labels)


def test_images_are_learnt_from_with_changes_that_the_generator_decides(parts: tuple[Examples, Examples]) -> None:
    part, order = parts[0], in_order(24, 24)
    material = Images(part, AugmentSection(), CPU)
    (one,), (again,), (other,) = (list(material.learning(order, torch.Generator().manual_seed(seed))) for seed in (1, 1, 2))
    assert torch.equal(one[0], again[0])
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[0], next(iter(material.judging(24)))[0])
    np.testing.assert_array_equal(one[1].numpy(), part.labels)
