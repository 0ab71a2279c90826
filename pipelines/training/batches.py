"""Batches of prepared images: gathered from the memory map by one background thread, never decoded.

There are no worker processes, so that training runs unchanged inside an orchestrator's daemonic process.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

AHEAD = 3  # batches gathered before they are asked for


class Store(Protocol):
    """Where prepared images lie; `imaging.store.ArrayStore` is one."""

    def take(self, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[Any]:
        """The images (images, rows, columns), uint8 or uint16, at these places."""


@dataclass(frozen=True)
class Examples:
    """Images of one part of the split, by their place in the store, with their labels (images, outputs) of 0, 1 or NaN.

    `patients` numbers whose images they are (images,), those of a shared study or identical pixels being taken for one
    patient's; None takes each image for a patient of its own.
    """

    store: Store
    shards: NDArray[np.int64]
    rows: NDArray[np.int64]
    labels: NDArray[np.float32]
    patients: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def labelled(self) -> Examples:
        """Only the images with at least one known label."""
        return self.take(np.flatnonzero(~np.isnan(self.labels).all(axis=1)))

    def take(self, some: NDArray[np.int64]) -> Examples:
        """Only the images at these positions."""
        patients = None if self.patients is None else self.patients[some]
        return Examples(self.store, self.shards[some], self.rows[some], self.labels[some], patients)

    def grouped(self) -> NDArray[np.int64]:
        """The number of the patient of each image (images,)."""
        return np.arange(len(self)) if self.patients is None else self.patients

    def images(self, order: Sequence[NDArray[np.int64]], device: torch.device) -> Iterator[Tensor]:
        """Batches of images (images, 1, rows, columns), float 0…1 on the device, at the positions that `order` lists."""
        gathered = ahead(self._gathered(positions, device) for positions in order)
        return (scaled(batch.to(device, non_blocking=True)) for batch in gathered)

    def _gathered(self, positions: NDArray[np.int64], device: torch.device) -> Tensor:
        array = self.store.take(self.shards[positions], self.rows[positions])
        batch = as_tensor(array)
        return batch.pin_memory() if device.type == "cuda" else batch


def as_tensor(array: NDArray[Any]) -> Tensor:
    """uint8 stays, uint16 becomes int32, for which every device has kernels; negative values cannot occur."""
    return torch.from_numpy(np.ascontiguousarray(array if array.dtype == np.uint8 else array.astype(np.int32)))


def scaled(images: Tensor) -> Tensor:
    """Grey levels of `as_tensor` (images, rows, columns) as float (images, 1, rows, columns) in 0…1."""
    white = 255.0 if images.dtype == torch.uint8 else 65535.0
    return images.unsqueeze(1).to(torch.float32).div_(white)


def in_order(images: int, batch_size: int) -> list[NDArray[np.int64]]:
    """Positions 0…images in batches of `batch_size`, for passes that do not learn."""
    return [np.arange(start, min(start + batch_size, images)) for start in range(0, images, batch_size)]


def even(images: int, batch_size: int) -> list[NDArray[np.int64]]:
    """Positions 0…images in order, in batches of at most `batch_size` that differ in size by one at most."""
    return np.array_split(np.arange(images), -(-images // batch_size))


def shuffled(images: int, batch_size: int, *, least_steps: int, seed: Sequence[int]) -> list[NDArray[np.int64]]:
    """The positions of one epoch in random batches: whole passes, as many as it takes for `least_steps` batches.

    The batches of a pass differ in size by one at most, none is larger than `batch_size`, and none is dropped.
    """
    generator = np.random.default_rng(seed)
    batches = -(-images // batch_size)
    passes = -(-least_steps // batches)
    return [batch for _ in range(passes) for batch in np.array_split(generator.permutation(images), batches)]


def ahead(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Draw from `batches` in one background thread, a few in advance; what it raises is raised here.

    The thread ends when the iterator is exhausted or closed.
    """
    waiting: queue.Queue[Tensor | BaseException | None] = queue.Queue(maxsize=AHEAD)
    closed = threading.Event()
    thread = threading.Thread(target=_fill, args=(waiting, closed, batches), name="batches", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        thread.join()


def _fill(waiting: queue.Queue[Any], closed: threading.Event, batches: Iterable[Tensor]) -> None:
    last: BaseException | None = None
    try:
        for batch in batches:
            if not _put(waiting, closed, batch):
                return
    except BaseException as error:
        last = error  # raised in the thread that trains
    _put(waiting, closed, last)


def _put(waiting: queue.Queue[Any], closed: threading.Event, item: object) -> bool:
    while not closed.is_set():
        try:
            waiting.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False
