"""Reading checkpoints of others without running anything that they hold."""

from __future__ import annotations

import io
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

LISTED = 8
UNREADABLE = (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)  # of torch's readers
PARALLEL = r"^(?:module\.|_orig_mod\.)+"  # before every name, where a training ran on several devices or was compiled
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

    Names are those of the network, without what `DistributedDataParallel` and `torch.compile` put before them.

    Raises:
        WeightsError: it is neither safetensors nor a state dict, or would run code.
    """
    values = _unpacked(content, path)
    if within:
        values = values.get(within) if isinstance(values, Mapping) else None
    if not _is_state(values):
        what = f"keys {listed(map(str, values))}" if isinstance(values, Mapping) else type(values).__name__
        raise WeightsError(f"{path}: expected names and tensors, got {what}; save the state dict alone")
    wrapped = all(re.match(PARALLEL, key) for key in values)
    return {re.sub(PARALLEL, "", key) if wrapped else key: tensor for key, tensor in values.items()}


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

    if not isinstance(values, Mapping) or not values:
        return False
    return all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in values.items())


def _unpacked(content: bytes, path: Path) -> Any:
    """What the file holds; its first bytes, not its name, tell safetensors from what torch.save wrote."""
    import safetensors
    import safetensors.torch
    import torch

    try:
        if content[8:9] == b"{":  # after eight bytes for its length, the header of safetensors
            return safetensors.torch.load(content)
        with warnings.catch_warnings(action="ignore"):  # that it is of another protocol, or TorchScript: refused below
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # whose text advises to run the file's code
        raise WeightsError(
            f"{path}: expected safetensors, or a state dict that torch.save wrote, got another file, or one that holds code; a "
            "whole pickled model (as torchxrayvision publishes) is code: save its state_dict() where you trust it, and add that"
        ) from error
    except (safetensors.SafetensorError, *UNREADABLE) as error:
        raise WeightsError(
            f"{path}: expected safetensors, or a state dict that torch.save wrote, cannot read it "
            f"({_first_sentence(error)}); it is incomplete or another file: download or copy it again"
        ) from error


def _first_sentence(error: Exception) -> str:
    text = re.split(r"\. |\n", str(error), maxsplit=1)[0]
    return text if " " in text else type(error).__name__
