"""Reading checkpoints of others without running anything that they hold."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

LISTED = 8
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "backbone", "encoder")


def read(path: Path) -> bytes:
    """The bytes of a checkpoint.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: expected a checkpoint, cannot read it: {error.strerror}") from error


def tensors(content: bytes, path: Path, within: str = "") -> dict[str, Tensor]:
    """Names and tensors of a checkpoint; `within` is the key under which its state dict lies, if under any.

    Raises:
        WeightsError: it is neither safetensors nor a state dict, or would run code.
    """
    values = _unpacked(content, path)
    if within:
        values = values.get(within) if isinstance(values, Mapping) else None
    if not _is_state(values):
        what = f"keys {listed(map(str, values))}" if isinstance(values, Mapping) else type(values).__name__
        raise WeightsError(f"{path}: expected names and tensors, got {what}; save the state dict alone")
    return dict(values)


def wrapper(content: bytes, path: Path) -> str:
    """The key under which the state dict of a training's checkpoint lies; nothing for a plain state dict."""
    values = _unpacked(content, path)
    if _is_state(values) or not isinstance(values, Mapping):
        return ""
    return next((key for key in WRAPPERS if _is_state(values.get(key))), "")


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more if names else "none"


def _is_state(values: Any) -> bool:
    import torch

    return isinstance(values, Mapping) and bool(values) and all(isinstance(value, torch.Tensor) for value in values.values())


def _unpacked(content: bytes, path: Path) -> Any:
    import safetensors
    import safetensors.torch
    import torch

    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(content)
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(
            f"{path}: expected safetensors, or a state dict that torch.save wrote: {_first_line(error)}; a whole pickled model "
            "(as torchxrayvision publishes) is code: save its state_dict() where you trust it, and add that"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
