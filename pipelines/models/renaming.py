"""The user's own word on the names of a checkpoint: what is taken off or renamed before its layout is looked for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.errors import WeightsError
from pipelines.models.checkpoints import listed

if TYPE_CHECKING:
    from torch import Tensor

Renames = tuple[tuple[str, str | None], ...]  # regular expressions and replacements, one after the other; None leaves out


def rename(name: str, renames: Renames) -> str | None:
    """The name that a tensor gets; None for one that is left out."""
    for pattern, replacement in renames:
        if replacement is None and re.search(pattern, name):
            return None
        if replacement is not None:
            name = re.sub(pattern, replacement, name)
    return name


def renamed(state: Mapping[str, Tensor], renames: Renames) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of `state` by their new names, and the old names of those that are left out.

    Raises:
        WeightsError: two tensors would get one name, or none is left.
    """
    named: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for key, tensor in state.items():
        name = rename(key, renames)
        if name is None:
            continue
        if name in origin:
            raise WeightsError(
                f"renaming: expected a name of its own for each tensor, {origin[name]} and {key} both become {name}"
            )
        named[name], origin[name] = tensor, key
    if not named:
        raise WeightsError(f"renaming: expected tensors that are kept, got none of {listed(state)}")
    kept = set(origin.values())
    return named, tuple(key for key in state if key not in kept)


def parsed(pairs: Sequence[Any]) -> Renames:
    """The renames that a passport holds as lists.

    Raises:
        ValueError: not pairs of a regular expression and its replacement, or null.
    """
    try:
        made = tuple((str(pattern), None if replacement is None else str(replacement)) for pattern, replacement in pairs)
        for pattern, replacement in made:
            re.sub(pattern, replacement or "", "")
    except (TypeError, ValueError, IndexError, re.error) as error:
        raise ValueError(f"renames: expected [[pattern, replacement or null], …] of regular expressions: {error}") from error
    return made
