"""The classifier that pretrained weights came with: what it makes of an image tells how near the task is to the source's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.models.checkpoints import read, tensors
from pipelines.models.passports import Found
from pipelines.models.renaming import renamed

Linear = tuple[NDArray[np.float64], NDArray[np.float64]]


def source_head(found: Found, width: int) -> Linear | None:
    """Weight (classes, width) and bias (classes,) of the source's linear classifier; None where the file holds no such one.

    It is looked for among the tensors that the passport's key map leaves out on purpose: one matrix of the right width with
    a bias beside it.
    """
    held, _ = renamed(tensors(read(found.path), found.path, found.passport.within), found.passport.renames)
    dropped = {key: tensor for key, tensor in held.items() if found.passport.keys.drops(key)}
    matrices = [key for key, tensor in dropped.items() if tensor.ndim == 2 and tensor.shape[1] == width and len(tensor) > 1]
    if len(matrices) != 1:
        return None
    bias = dropped.get(matrices[0].removesuffix("weight") + "bias")
    if bias is None or bias.shape != dropped[matrices[0]].shape[:1]:
        return None
    weight = dropped[matrices[0]]
    return weight.double().numpy(), bias.double().numpy()
