"""What a weight passport says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

from pipelines.errors import WeightsError
from pipelines.models.keymaps import KEY_MAPS, KeyMap
from pipelines.models.renaming import Renames, parsed

Values = tuple[float, ...]

FORMAT = "radtransfer-passport/1"


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation by which an image in 0…1 is normalised, for each of three channels, or for one."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Passport:
    """Where pretrained weights come from, and all that is needed to use them as their publisher did.

    Attributes:
        name: what `train.weights` may name.
        backbone: the network that they fit, as `train.backbone` names it.
        source: what they come from in one word; `train.weights` may name that too (`imagenet`, `radimagenet`, `medical`).
        architecture: the publisher's network, for the reader.
        file: the file's name in the weights folder.
        sha256: of the file, 64 hexadecimal digits, or the first 8 or more that the publisher gives.
        licence: of the weights, with what limits their use.
        key_map: an entry of `KEY_MAPS`, or a map of its own.
        trained_on: the images that they learned from.
        url: where the file is downloaded from (https), or None.
        channels: the order of `mean` and `std`, RGB or BGR, since the three channels of a radiograph are equal; or grey, for
            weights that take one channel.
        input_range: the range that an image had before `mean` and `std` were applied.
        mean: per channel, in units of `input_range`.
        std: per channel, in units of `input_range`.
        input_size: rows and columns during training.
        reduction: the factor by which the publisher's network shrinks an image to its last feature map; equal names and
            shapes can hide another stride.
        golden: fingerprint of the publisher's network with these weights, preprocessing included (`Network.probe`), or ()
            where unknown.
        within: the key of the file under which its state dict lies, or nothing.
        renames: what the user says of the file's names, before the key map: see `renaming`.
        multi_label: the classifier that the weights came with says several things of an image, each by a sigmoid.
        notes: what else a reader of the packet should know.
    """

    name: str
    backbone: str
    source: str
    architecture: str
    file: str
    sha256: str
    licence: str
    key_map: str | KeyMap
    trained_on: str
    url: str | None = None
    channels: str = "RGB"
    input_range: tuple[float, float] = (0.0, 1.0)
    mean: Values = (0.485, 0.456, 0.406)
    std: Values = (0.229, 0.224, 0.225)
    input_size: int = 224
    reduction: int = 32
    golden: tuple[float, ...] = ()
    notes: str = ""
    within: str = ""
    renames: Renames = ()
    multi_label: bool = False

    @property
    def normalisation(self) -> Normalisation:
        """`mean` and `std` for an image in 0…1, whatever `input_range` they were given for."""
        low, high = self.input_range
        mean = tuple((value - low) / (high - low) for value in self.mean)
        std = tuple(value / (high - low) for value in self.std)
        return Normalisation(mean, std)

    @property
    def keys(self) -> KeyMap:
        """The key map itself."""
        return self.key_map if isinstance(self.key_map, KeyMap) else KEY_MAPS[self.key_map]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for model.json and for a passport file beside a checkpoint."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        if isinstance(self.key_map, KeyMap):
            plain["key_map"] = self.key_map.to_dict()
        return {"format": FORMAT, **plain}

    @staticmethod
    def from_dict(values: Mapping[str, Any], where: str = "passport") -> Passport:
        """The inverse of `to_dict`; `where` is what messages call it.

        Raises:
            WeightsError: a field is missing, unknown or not valid.
        """
        if values.get("format") != FORMAT:
            raise WeightsError(f"{where}: expected a passport with format {FORMAT!r}, got {values.get('format')!r}")
        given = {name: value for name, value in values.items() if name != "format"}
        known = {field.name for field in fields(Passport)}
        if unknown := sorted(set(given) - known):
            raise WeightsError(f"{where}: unknown fields {', '.join(unknown)}; expected {', '.join(sorted(known))}")
        if isinstance(given.get("key_map"), Mapping):
            given["key_map"] = KeyMap.from_dict(given["key_map"])
        try:
            tuples = {name: tuple(float(x) for x in given[name]) for name in _NUMBERS if name in given}
            passport = Passport(**{**given, **tuples, "renames": parsed(given.get("renames", ()))})
        except (TypeError, ValueError) as error:
            raise WeightsError(f"{where}: {error}") from error
        _check(passport, where)
        return passport


CHANNELS = {"RGB": 3, "BGR": 3, "grey": 1}
_NUMBERS = ("input_range", "mean", "std", "golden")
_TEXTS = ("name", "backbone", "source", "architecture", "file", "sha256", "licence", "trained_on", "channels", "notes", "within")


def _check(passport: Passport, where: str) -> None:
    """Refuse what would be misread, or would reach outside the weights folder."""
    rules = {
        "texts": all(isinstance(getattr(passport, name), str) for name in _TEXTS),
        "name: at least one character": bool(passport.name),
        "file: a plain file name": re.fullmatch(r"[\w][\w.+-]*", str(passport.file)) is not None,
        "sha256: 8 to 64 hexadecimal digits": re.fullmatch(r"[0-9a-f]{8,64}", str(passport.sha256)) is not None,
        "url: https or null": passport.url is None or str(passport.url).startswith("https://"),
        "key_map: an object, or one of " + ", ".join(KEY_MAPS): isinstance(passport.key_map, KeyMap)
        or (isinstance(passport.key_map, str) and passport.key_map in KEY_MAPS),
        "channels: RGB, BGR or grey": str(passport.channels) in CHANNELS,
        "input_range: two numbers, low < high": len(passport.input_range) == 2
        and passport.input_range[0] < passport.input_range[1],
        "mean: three numbers, or one for grey": len(passport.mean) == CHANNELS.get(str(passport.channels)),
        "std: three numbers > 0, or one for grey": len(passport.std) == len(passport.mean) and min(passport.std, default=0) > 0,
        "input_range, mean, std and golden: finite": all(isfinite(x) for name in _NUMBERS for x in getattr(passport, name)),
        "input_size: a whole number > 0": isinstance(passport.input_size, int) and passport.input_size > 0,
        "golden: eight numbers or none": len(passport.golden) in (0, 8),
        "multi_label: true or false": isinstance(passport.multi_label, bool),
        "reduction: a whole number > 0": isinstance(passport.reduction, int) and passport.reduction > 0,
    }
    if broken := [rule for rule, kept in rules.items() if not kept]:
        raise WeightsError(f"{where}: expected {'; '.join(broken)}")
