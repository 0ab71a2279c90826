"""The images that the packet shows: a model's worst mistakes, beside where it looked."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.imaging.store import ArrayStore
from pipelines.inference import Model
from pipelines.metrics.mistakes import Mistake
from pipelines.metrics.saliency import grad_cam, overlay
from pipelines.metrics.subgroups import UNKNOWN, attributes
from pipelines.packet import Case
from pipelines.tested import Tested
from pipelines.training.batches import as_tensor, scaled

LARGEST = 320  # rows and columns of an image in the packet


def cases(mistakes: Sequence[Mistake], model: Model, store: ArrayStore, test: Tested, thresholds: Sequence[float]) -> list[Case]:
    groups = attributes(test.rows)
    return [_case(mistake, model, store, test, groups, thresholds[mistake.output]) for mistake in mistakes]


def _case(
    mistake: Mistake, model: Model, store: ArrayStore, test: Tested, groups: dict[str, list[str]], threshold: float
) -> Case:
    row = test.rows.iloc[mistake.row]
    stored = store.take(np.array([row["shard"]]), np.array([row["row"]]))
    tensor = scaled(as_tensor(stored).to(model.device))
    evidence = _fitted(grad_cam(model.network, model.network.saliency_layer, tensor, mistake.output, model.network.maps)[0])
    image = _fitted(tensor[0, 0].to(torch.float32).cpu().numpy())
    gray = np.rint(255 * image).astype(np.uint8)
    facts = [groups[attribute][mistake.row] for attribute in ("View", "Sex", "Age", "Site")]
    if facts[2] != UNKNOWN:
        facts[2] += " years"
    return Case(
        image=row["image"],
        who=" · ".join(fact for fact in facts if fact != UNKNOWN),
        output=model.card.task.outputs[mistake.output],
        probability=mistake.probability,
        threshold=threshold,
        picture=_png(gray),
        evidence=_png(overlay(gray, evidence)[..., ::-1]),
    )


def _fitted(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most `LARGEST` rows and columns."""
    if len(image) <= LARGEST:
        return image
    return cv2.resize(image, (LARGEST, LARGEST), interpolation=cv2.INTER_AREA).astype(np.float32)


def _png(image: NDArray[np.uint8]) -> bytes:
    """PNG of a gray image or of one in OpenCV's order of colours (blue, green, red)."""
    return bytes(cv2.imencode(".png", np.ascontiguousarray(image), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1])
