"""What a weight passport says, and the table of those of published checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from pipelines.errors import WeightsError
from pipelines.models.keymaps import KEY_MAPS, KeyMap

Triple = tuple[float, float, float]

FORMAT = "radtransfer-passport/1"


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation by which an image in 0…1 is normalised, one for each of the three channels."""

    mean: Triple
    std: Triple


@dataclass(frozen=True)
class Passport:
    """Where pretrained weights come from, and all that is needed to use them as their publisher did.

    Attributes:
        name: what `train.weights` may name.
        backbone: the entry of `BACKBONES` that they fit.
        source: what they come from in one word; `train.weights` may name that too (`imagenet`).
        architecture: the publisher's network, for the reader.
        file: the file's name in the weights folder.
        sha256: of the file, 64 hexadecimal digits, or the first 8 or more that the publisher gives.
        licence: of the weights, with what limits their use.
        key_map: an entry of `KEY_MAPS`, or a map of its own.
        trained_on: the images that they learned from.
        url: where the file is downloaded from (https), or None.
        channels: the order of `mean` and `std`, RGB or BGR; the three channels of a radiograph are equal.
        input_range: the range that an image had before `mean` and `std` were applied.
        mean: per channel, in units of `input_range`.
        std: per channel, in units of `input_range`.
        input_size: rows and columns during training.
        reduction: the factor by which the publisher's network shrinks an image to its last feature map; equal names and
            shapes can hide another stride.
        golden: fingerprint of the publisher's network with these weights (`Network.probe`), or () where unknown.
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
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    input_size: int = 224
    reduction: int = 32
    golden: tuple[float, ...] = ()
    notes: str = ""

    @property
    def normalisation(self) -> Normalisation:
        """`mean` and `std` for an image in 0…1, whatever `input_range` they were given for."""
        low, high = self.input_range
        mean = tuple((value - low) / (high - low) for value in self.mean)
        std = tuple(value / (high - low) for value in self.std)
        return Normalisation((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))

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
            passport = Passport(**{**given, **tuples})
        except (TypeError, ValueError) as error:
            raise WeightsError(f"{where}: {error}") from error
        _check(passport, where)
        return passport


_NUMBERS = ("input_range", "mean", "std", "golden")
_TEXTS = ("name", "backbone", "source", "architecture", "file", "sha256", "licence", "trained_on", "channels", "notes")


def _check(passport: Passport, where: str) -> None:
    """Refuse what would be misread, or would reach outside the weights folder."""
    rules = {
        "texts": all(isinstance(getattr(passport, name), str) for name in _TEXTS),
        "name: at least one character": bool(passport.name),
        "file: a plain file name": re.fullmatch(r"[\w][\w.+-]*", str(passport.file)) is not None,
        "sha256: 8 to 64 hexadecimal digits": re.fullmatch(r"[0-9a-f]{8,64}", str(passport.sha256)) is not None,
        "url: https or null": passport.url is None or str(passport.url).startswith("https://"),
        "key_map: an object, or one of " + ", ".join(KEY_MAPS): isinstance(passport.key_map, KeyMap)
        or passport.key_map in KEY_MAPS,
        "channels: RGB or BGR": passport.channels in ("RGB", "BGR"),
        "input_range: two numbers, low < high": len(passport.input_range) == 2
        and passport.input_range[0] < passport.input_range[1],
        "mean: three numbers": len(passport.mean) == 3,
        "std: three numbers > 0": len(passport.std) == 3 and min(passport.std, default=0) > 0,
        "input_size: a whole number > 0": isinstance(passport.input_size, int) and passport.input_size > 0,
        "golden: eight numbers or none": len(passport.golden) in (0, 8),
        "reduction: a whole number > 0": isinstance(passport.reduction, int) and passport.reduction > 0,
    }
    if broken := [rule for rule, kept in rules.items() if not kept]:
        raise WeightsError(f"{where}: expected {'; '.join(broken)}")


_torchvision = partial(
    Passport,
    source="imagenet",
    licence="BSD-3-Clause (torchvision); ImageNet's own terms allow research and education only, so check before other use",
    trained_on="ImageNet-1k, 1.28 million photographs, 1000 classes",
)


def _url(file: str) -> str:
    return f"https://download.pytorch.org/models/{file}"


PASSPORTS: tuple[Passport, ...] = (
    _torchvision(
        name="torchvision-resnet18-v1",
        backbone="resnet18",
        architecture="torchvision resnet18, IMAGENET1K_V1",
        file="resnet18-f37072fd.pth",
        sha256="f37072fd",
        key_map="torchvision-resnet",
        url=_url("resnet18-f37072fd.pth"),
    ),
    _torchvision(
        name="torchvision-resnet50-v1",
        backbone="resnet50",
        architecture="torchvision resnet50, IMAGENET1K_V1",
        file="resnet50-0676ba61.pth",
        sha256="0676ba61",
        key_map="torchvision-resnet",
        url=_url("resnet50-0676ba61.pth"),
    ),
    _torchvision(
        name="torchvision-resnet50-v2",
        backbone="resnet50",
        architecture="torchvision resnet50, IMAGENET1K_V2",
        file="resnet50-11ad3fa6.pth",
        sha256="11ad3fa6",
        key_map="torchvision-resnet",
        url=_url("resnet50-11ad3fa6.pth"),
    ),
    _torchvision(
        name="torchvision-densenet121-v1",
        backbone="densenet121",
        architecture="torchvision densenet121, IMAGENET1K_V1",
        file="densenet121-a639ec97.pth",
        sha256="a639ec97",
        key_map="torchvision-densenet",
        url=_url("densenet121-a639ec97.pth"),
    ),
    _torchvision(
        name="torchvision-efficientnet_b0-v1",
        backbone="efficientnet_b0",
        architecture="torchvision efficientnet_b0, IMAGENET1K_V1",
        file="efficientnet_b0_rwightman-7f5810bc.pth",
        sha256="7f5810bc",
        key_map="torchvision-efficientnet_b0",
        url=_url("efficientnet_b0_rwightman-7f5810bc.pth"),
        notes="trained by Ross Wightman (timm, Apache-2.0), ported by torchvision",
    ),
    _torchvision(
        name="torchvision-mobilenet_v2-v1",
        backbone="mobilenet_v2",
        architecture="torchvision mobilenet_v2, IMAGENET1K_V1",
        file="mobilenet_v2-b0353104.pth",
        sha256="b0353104",
        key_map="torchvision-mobilenet_v2",
        url=_url("mobilenet_v2-b0353104.pth"),
    ),
    _torchvision(
        name="torchvision-mobilenet_v2-v2",
        backbone="mobilenet_v2",
        architecture="torchvision mobilenet_v2, IMAGENET1K_V2",
        file="mobilenet_v2-7ebf99e0.pth",
        sha256="7ebf99e0",
        key_map="torchvision-mobilenet_v2",
        url=_url("mobilenet_v2-7ebf99e0.pth"),
    ),
    Passport(
        name="mobilenet_v2-imagenet1k",
        backbone="mobilenet_v2",
        source="imagenet",
        architecture="mobilenet_v2 in torchvision's layout, width 1.0, 1000 classes",
        file="mobilenet_v2-imagenet1k.safetensors",
        sha256="ce1d501696f7ca82ed55dda84b70e34ad5eac0315f6cf240c6d70cb0de446c91",
        licence="Apache-2.0 (google-coral/test_data); ImageNet's own terms allow research and education only",
        key_map="torchvision-mobilenet_v2",
        trained_on="ImageNet-1k, 1.28 million photographs, 1000 classes",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        golden=(0.383033, 0.303865, 0.317720, 0.376578, 0.250223, 0.252219, 0.283112, 0.400261),
        notes="tf2_mobilenet_v2_1.0_224_ptq.tflite, dequantised from int8, batch-norm statistics re-estimated; "
        "not measured on the ImageNet validation set",
    ),
)
