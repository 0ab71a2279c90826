from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from pipelines.training.batches import Examples, ahead, as_tensor, in_order, scaled, shuffled

CPU = torch.device("cpu")


@pytest.mark.parametrize("batch_size", [2, 7, 10, 64])
def test_every_image_is_in_an_epoch_once_and_no_batch_is_a_remainder(batch_size: int) -> None:
    order = shuffled(23, batch_size, least_steps=1, seed=(1, 2))
    sizes = [len(batch) for batch in order]
    assert sorted(np.concatenate(order)) == list(range(23))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_short_passes_are_repeated_in_other_orders() -> None:
    order = shuffled(16, 8, least_steps=5, seed=(1, 2))
    assert len(order) == 6
    counts = np.bincount(np.concatenate(order))
    assert counts.tolist() == [3] * 16
    assert not np.array_equal(order[0], order[2])


def test_the_order_follows_from_the_seed() -> None:
    def first(*seed: int) -> list[int]:
        return shuffled(30, 30, least_steps=1, seed=seed)[0].tolist()

    assert first(5, 1) == first(5, 1)
    assert first(5, 1) != first(5, 2)
    assert first(5, 1) != first(6, 1)


def test_batches_in_order_cover_everything() -> None:
    assert [batch.tolist() for batch in in_order(5, 2)] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_black_is_zero_and_white_is_one_at_every_depth(dtype: type, white: int) -> None:
    images = scaled(as_tensor(np.array([[[0, white], [white // 5, 0]]], dtype)))
    assert images.shape == (1, 1, 2, 2)
    assert images.flatten().tolist() == pytest.approx([0, 1, 0.2, 0])


def test_images_come_in_the_order_asked_for(examples: Callable[..., Examples]) -> None:
    cohort = examples(np.zeros((6, 1), np.float32))
    order = [np.array([4, 0]), np.array([5, 5, 1])]
    batches = list(cohort.images(order, CPU))
    for positions, batch in zip(order, batches, strict=True):
        stored = cohort.store.take(cohort.shards[positions], cohort.rows[positions])
        assert torch.equal(batch[:, 0], torch.from_numpy(stored).float() / 255)


def test_images_without_any_known_label_are_left_out(examples: Callable[..., Examples]) -> None:
    nan = np.nan
    cohort = examples(np.array([[1, nan], [nan, nan], [0, 1]], np.float32)).labelled()
    assert cohort.rows.tolist() == [0, 2]
    assert len(cohort) == 2


def test_what_the_gathering_thread_raises_reaches_the_one_that_trains() -> None:
    def broken() -> Iterator[torch.Tensor]:
        yield torch.zeros(1)
        raise OSError("disk")

    batches = ahead(broken())
    next(batches)
    with pytest.raises(OSError, match="disk"):
        next(batches)


def test_the_gathering_thread_ends_when_training_stops_early() -> None:
    def endless() -> Iterator[torch.Tensor]:
        while True:
            yield torch.zeros(1)

    batches = ahead(endless())
    next(batches)
    batches.close()
    assert "batches" not in {thread.name for thread in threading.enumerate()}
