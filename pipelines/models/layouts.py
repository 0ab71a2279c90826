"""How publishers lay their checkpoints out, for files whose hash nobody publishes: what a passport of one will say.

A layout knows the names of the tensors for each backbone, the preprocessing, the licence and what the weights learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.errors import WeightsError
from pipelines.models.checkpoints import listed
from pipelines.models.families import timm_nets as timm
from pipelines.models.keymaps import KEY_MAPS, KeyMap
from pipelines.models.published import HALF

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.models.network import Network

ANY = "*"  # every backbone of the table


@dataclass(frozen=True)
class Layout:
    """One publisher's way.

    Attributes:
        describes: for a person.
        maps: the key maps by which a file may fit each backbone; `*` stands for any.
        source: what `train.weights` may call them, in one word.
        licence: with what limits their use; nothing where only the user can know.
        trained_on: likewise.
        channels: order of mean and std, or grey.
        input_range: that an image has before `mean` and `std`.
        mean: in units of `input_range`; None where only the user can know.
        std: likewise.
        sizes: rows and columns during training, where they are not the backbone's.
        multi_label: the publisher's classifier says several things of an image, each by a sigmoid.
        positional: names are positions, which anybody's network has that is put together likewise: whose the file is, and under
            which licence, only the user can say.
    """

    describes: str
    maps: Mapping[str, tuple[str, ...]]
    source: str
    licence: str = ""
    trained_on: str = ""
    channels: str = "RGB"
    input_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] | None = (0.485, 0.456, 0.406)
    std: tuple[float, ...] | None = (0.229, 0.224, 0.225)
    sizes: Mapping[str, int] = field(default_factory=dict)
    notes: str = ""
    multi_label: bool = False
    positional: bool = False


_TORCHVISION = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101"), ("torchvision-resnet",)),
    **dict.fromkeys(("densenet121", "densenet169", "densenet201"), ("torchvision-densenet",)),
    **{name: (f"torchvision-{name}",) for name in (*(f"efficientnet_b{size}" for size in range(5)), "mobilenet_v2", "vgg16")},
    "vit_b16": ("torchvision-vit",),
    "inception_v3": ("torchvision-inception_v3",),
}

LAYOUTS: dict[str, Layout] = {
    "torchvision": Layout(
        "torchvision's classification networks",
        _TORCHVISION,
        source="medical",  # torchvision's own files are known by their hashes: this one is somebody else's
    ),
    "timm": Layout(
        "timm's encoders; mean, deviation and licence are those that timm names",
        {"vit_b16": ("timm-vit",), "seresnet50": ("timm-seresnet50",)},
        source="imagenet",
        licence="not stated by timm: ask its publishers",
    ),
    "radimagenet": Layout(
        "RadImageNet's PyTorch files: backbone.i is the i-th of torchvision's named children",
        {
            "resnet50": ("radimagenet-resnet50",),
            "densenet121": ("radimagenet-densenet121",),
            "inception_v3": ("radimagenet-inception_v3", "radimagenet-inception_v3-aux"),
        },
        source="radimagenet",
        licence="RadImageNet's own terms: ask its publishers before any use, research included",
        trained_on="RadImageNet, 1.35 million CT, MR and ultrasound images, 165 classes; no radiographs",
        mean=HALF,
        std=HALF,
        sizes={"inception_v3": 224},
        notes="preprocessing -1 to 1 as in the publishers' PyTorch example; other descriptions of theirs differ",
        positional=True,
    ),
    "torchxrayvision": Layout(
        "torchxrayvision's networks: one channel, -1024 to 1024; save its state_dict() first",
        {"densenet121": ("torchxrayvision-densenet121",), "resnet50": ("torchxrayvision-resnet50",)},
        source="medical",
        licence="Apache-2.0 (torchxrayvision); the terms of its training sets apply",
        trained_on="public chest radiographs (see torchxrayvision for this file)",
        channels="grey",
        input_range=(-1024.0, 1024.0),
        mean=(0.0,),
        std=(1.0,),
        sizes={"resnet50": 512},
        multi_label=True,
    ),
    "monai": Layout("MONAI's networks, as in a bundle", {ANY: ("monai",)}, source="medical", mean=None, std=None),
    "radtransfer": Layout("our own names", {ANY: ("radtransfer",)}, source="medical", mean=None, std=None),
}


def maps(layout: str, backbone: str) -> tuple[str | KeyMap, ...]:
    """The key maps by which a file of `layout` may fit `backbone`.

    Raises:
        WeightsError: there is no such layout, or it has no such network.
    """
    if layout not in LAYOUTS:
        raise WeightsError(f"--layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
    if layout == "timm" and backbone.startswith(timm.PREFIX):
        return (timm.key_map(backbone.removeprefix(timm.PREFIX)),)
    known = LAYOUTS[layout].maps
    if ANY not in known and backbone not in known:
        raise WeightsError(f"--layout {layout}: expected --backbone of {', '.join(known)}, got {backbone}")
    return known.get(backbone, known.get(ANY, ()))


def fitting(network: Network, state: Mapping[str, Tensor]) -> list[tuple[str, str | KeyMap]]:
    """The layouts and key maps by which the tensors of `state` are those of the backbone, none missing and none left over."""
    candidates = []
    for name, layout in LAYOUTS.items():
        if ANY in layout.maps or network.name in layout.maps or (name == "timm" and network.name.startswith(timm.PREFIX)):
            candidates += [(name, key_map) for key_map in maps(name, network.name)]
    return [(name, key_map) for name, key_map in candidates if fits(network, state, key_map)]


def fits(network: Network, state: Mapping[str, Tensor], key_map: str | KeyMap) -> bool:
    """Whether a key map brings the tensors of `state` to the names and shapes of the backbone."""
    keys = key_map if isinstance(key_map, KeyMap) else KEY_MAPS[key_map]
    named = {keys.rename(key): tensor for key, tensor in state.items() if not keys.drops(key)}
    shapes = {name: tensor.shape for name, tensor in keys.reshaped(named).items()}
    wanted = {name: tensor.shape for name, tensor in network.trunk.state_dict().items()}
    counters = {name for name in wanted if name.endswith(".num_batches_tracked")}
    return {name: shape for name, shape in wanted.items() if name in shapes or name not in counters} == shapes


def unrecognised(network: Network, state: Mapping[str, Tensor], where: str) -> WeightsError:
    """What to say of a file that no layout explains."""
    return WeightsError(
        f"{where}: no layout known for {network.name} explains it; its tensors begin {listed(list(state)[:4])}, the "
        f"network's {listed(list(network.trunk.state_dict())[:4])}; name the --layout to see what is missing and what is left "
        "over, --prefix to take off what a wrapper put before them, or --key-map to rename them"
    )


def unclaimed(layout: str, where: str) -> str:
    """What to say of a file whose names are a publisher's, and could be anybody's."""
    return (
        f"{where}: its names are positions, in the layout that {layout} publishes, and anybody's network has them that is put "
        f"together likewise; say --layout {layout} if the file is theirs, and if it is not, --licence and --trained-on (and "
        "--mean and --std of its own)"
    )
