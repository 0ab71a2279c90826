"""A MONAI bundle: what its metadata and its network definition say of the weights in models/model.pt.

Source: MONAI Bundle Specification (docs/source/mb_specification.rst of MONAI).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import WeightsError
from pipelines.models.backbones import BACKBONES

METADATA = Path("configs/metadata.json")
WEIGHTS = Path("models/model.pt")
CONFIGS = ("inference.json", "train.json", "evaluate.json")
# what builds a network of the same computation as ours, by class or by torchvision's name
NETWORKS = {
    **{f"DenseNet{size}": f"densenet{size}" for size in (121, 169, 201)},
    **{f"resnet{size}": f"resnet{size}" for size in (18, 34, 50, 101)},
    "SEResNet50": "seresnet50",
    "inception_v3": "inception_v3",
    "mobilenet_v2": "mobilenet_v2",
    "vgg16": "vgg16",
}


@dataclass(frozen=True)
class Bundle:
    """What a bundle says of its weights; None where it does not say.

    Attributes:
        backbone: ours that computes the same.
        channels: RGB or grey.
        input_range: of the images it expects.
        input_size: rows and columns, if they are fixed.
        licence: of the bundle.
        trained_on: as its metadata names the data.
        architecture: its name, version and network.
    """

    weights: Path
    name: str
    backbone: str | None
    channels: str
    input_range: tuple[float, float] | None
    input_size: int | None
    licence: str
    trained_on: str
    architecture: str


def is_bundle(path: Path) -> bool:
    """Whether a folder is a MONAI bundle."""
    return (path / METADATA).is_file()


def read(folder: Path) -> Bundle:
    """What the bundle in `folder` says.

    Raises:
        WeightsError: it is incomplete, is not for 2D images of one or three channels, or its network computes something else.
    """
    metadata = _json(folder / METADATA)
    if not (folder / WEIGHTS).is_file():
        raise WeightsError(
            f"{folder}: expected {WEIGHTS} beside {METADATA}, as in a MONAI bundle; it may have to be fetched apart"
        )
    name = str(metadata.get("name") or folder.name)
    image = _image(metadata, name)
    definition = _definition(folder)
    network = str(definition.get("_target_", "")).rpartition(".")[2] or "a network that it does not name"
    values = image.get("value_range") or []
    shape = [side for side in image.get("spatial_shape") or [] if isinstance(side, int)]
    return Bundle(
        weights=folder / WEIGHTS,
        name=name,
        backbone=_backbone(network, definition, name),
        channels="grey" if image["num_channels"] == 1 else "RGB",
        input_range=(float(values[0]), float(values[1])) if len(values) == 2 else None,
        input_size=shape[0] if len(shape) == 2 else None,
        licence=_licence(folder, metadata),
        trained_on=str(metadata.get("data_source") or metadata.get("description") or ""),
        architecture=f"MONAI bundle {name} {metadata.get('version', '')}: {network}",
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: expected JSON, as a MONAI bundle has: {error}") from error
    return values if isinstance(values, dict) else {}


def _image(metadata: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inputs = (metadata.get("network_data_format") or {}).get("inputs") or {}
    image: Mapping[str, Any] = inputs.get("image") or next(iter(inputs.values()), {})
    shape = image.get("spatial_shape") or [None, None]
    if image.get("num_channels") not in (1, 3) or len(shape) != 2:
        raise WeightsError(
            f"bundle {name}: expected a network for 2D images of one or three channels, got {image.get('num_channels')} channels "
            f"and {len(shape)} dimensions"
        )
    return image


def _definition(folder: Path) -> Mapping[str, Any]:
    for config in CONFIGS:
        path = folder / "configs" / config
        found = _json(path).get("network_def") if path.is_file() else None
        if isinstance(found, dict):
            return found
    return {}


def _backbone(network: str, definition: Mapping[str, Any], name: str) -> str | None:
    """Ours for the network that the bundle defines; one that takes the same weights and computes something else is refused."""
    called = str(definition.get("model_name", network)) if network == "TorchVisionFCModel" else network
    if called.startswith("EfficientNet"):
        raise WeightsError(f"bundle {name}: expected another network; MONAI's own EfficientNet pads otherwise than ours")
    backbone = NETWORKS.get(called)
    if backbone and called.startswith("resnet") and network != "TorchVisionFCModel" and definition.get("conv1_t_stride", 1) != 2:
        raise WeightsError(
            f"bundle {name}: expected conv1_t_stride 2 in its network_def, got {definition.get('conv1_t_stride', 1)}: the same "
            f"weights in our {backbone} would compute something else"
        )
    return backbone if backbone in BACKBONES else None


def _licence(folder: Path, metadata: Mapping[str, Any]) -> str:
    if metadata.get("license"):
        return str(metadata["license"])
    files = [path for name in ("LICENSE", "docs/license.txt", "docs/data_license.txt") if (path := folder / name).is_file()]
    first = next((line.strip() for line in files[0].read_text().splitlines() if line.strip()), "") if files else ""
    return first and f"{first} (see the bundle's {files[0].name})"
