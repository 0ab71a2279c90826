"""`--prefix` and `--key-map` of `radtransfer weights add`: from what the user says of the names to what a passport keeps."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pipelines.errors import ConfigurationError, WeightsError
from pipelines.models.checkpoints import PARALLEL, listed
from pipelines.models.renaming import Renames, parsed, rename


def renames(names: Iterable[str], prefix: str | None, key_map: Path | None) -> Renames:
    """What to do to the names of a checkpoint, each part of which has a use.

    Names that do not begin with `prefix` are left out, and it is taken off the others. Then each entry of the map follows, in
    the order of the file.

    Raises:
        WeightsError: the prefix, or an entry of the map, is of no tensor.
        ConfigurationError: the file cannot be read, or is no such map.
    """
    known = list(names)
    made = _under(known, prefix) if prefix else ()
    for theirs, ours in (_read(key_map) if key_map else {}).items():
        now = [name for name in (rename(name, made) for name in known) if name is not None]
        pattern = rf"^{re.escape(theirs)}$" if theirs in now else theirs
        if not any(re.search(pattern, name) for name in now):
            raise WeightsError(
                f"--key-map: expected names of tensors, or regular expressions that find some; {theirs!r} is of none "
                f"of {listed(now)}"
            )
        made = (*made, (pattern, ours))
    return made


def _under(names: list[str], prefix: str) -> Renames:
    asked = prefix if prefix.endswith(".") else f"{prefix}."
    for start in (asked, re.sub(PARALLEL, "", asked)):  # what several devices put before the names is off already
        if not start:
            return ()
        if any(name.startswith(start) for name in names):
            return (rf"^(?!{re.escape(start)})", None), (rf"^{re.escape(start)}", "")
    raise WeightsError(f"--prefix: expected what names of tensors begin with, got {prefix!r}; they are {listed(names)}")


def _read(path: Path) -> dict[str, str | None]:
    """The map of a YAML or JSON file: names or regular expressions, and what to put in their place; null leaves out."""
    import yaml

    expected = "expected a file of `THEIRS: OURS` in YAML or JSON: names or regular expressions, and texts, or null to leave out"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"--key-map {path.name}: {expected}; cannot read it ({type(error).__name__})") from error
    if not isinstance(values, dict) or not values:
        raise ConfigurationError(f"--key-map {path.name}: {expected}, got {type(values).__name__}")
    if wrong := [repr(key) for key, value in values.items() if not isinstance(key, str) or not isinstance(value, str | None)]:
        raise ConfigurationError(f"--key-map {path.name}: {expected}, got others at {listed(wrong)}")
    try:
        parsed(list(values.items()))
    except ValueError as error:
        raise ConfigurationError(f"--key-map {path.name}: {error}") from error
    return values
