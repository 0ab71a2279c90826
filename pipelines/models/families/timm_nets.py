"""Any encoder of timm's by name: what it says of itself becomes an entry like those of the table.

timm's models carry their own layer grouping (`group_matcher`), width (`head_hidden_size`), stages (`feature_info`) and
constants (`default_cfg`). The model is first built without storage, on torch's meta device, to read them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipelines.errors import ConfigurationError
from pipelines.models.architecture import Backbone, Groups, Layout
from pipelines.models.keymaps import KeyMap

PREFIX = "timm:"
MODEL = "model."  # where the adapter keeps timm's network
SUITED = ("convnext_tiny", "efficientnetv2_rw_t", "regnety_016", "swin_tiny_patch4_window7_224", "deit_small_patch16_224")
SIZES = (32, 64, 96, 224)
OPTIONS: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})  # the first that it takes


class Encoder(nn.Module):
    """A timm model without its classifier, with a place to see its last feature map."""

    model: Any

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        super().__init__()
        import timm

        self.model = timm.create_model(name, pretrained=False, num_classes=0, **options)
        self.map = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Features (images, width) of normalised images (images, channels, rows, columns)."""
        maps = self.map(self.model.forward_features(images))
        return cast(Tensor, self.model.forward_head(maps, pre_logits=True))


@lru_cache
def entry(name: str) -> Backbone:
    """The entry of the timm model `name`, with or without the tag of its weights (`convnext_tiny.in12k`).

    Raises:
        ConfigurationError: timm has no such model, or it does not say how its layers are grouped or where its maps are.
    """
    model, asked = _without_storage(name)
    try:
        return _described(name, model, asked)
    except (AttributeError, LookupError, AssertionError, TypeError) as error:  # a model unlike timm's others
        raise _unsuited(name, "it is built unlike timm's others") from error


def _described(name: str, model: Encoder, asked: dict[str, Any]) -> Backbone:
    settings = model.model.default_cfg
    size = int(settings["input_size"][-1])
    sizes = [side for side in SIZES if side < size and _maps(model, side) is not None]
    first = settings.get("first_conv")
    output = _maps(model, size)
    if not hasattr(model.model, "group_matcher"):
        raise _unsuited(name, "timm does not say how its layers are grouped (group_matcher)")
    if output is None:
        raise _unsuited(name, f"it gives no feature map of an image of {size} × {size}")
    saliency, layout, prefix = _saliency(model, output, size)
    return Backbone(
        partial(Encoder, name, asked),
        int(model(torch.zeros(1, 3, size, size, device="meta")).shape[-1]),
        _groups(model.model),
        saliency=saliency,
        first=f"{MODEL}{first}" if isinstance(first, str) and _sees_the_image(model, first, size) else None,
        input_size=size,
        least_size=min(sizes, default=size),
        fixed_size=not sizes,
        layout=layout,
        prefix_tokens=prefix,
    )


def constants(name: str) -> dict[str, Any]:
    """What timm says of the weights of `name`: mean, std, licence, address, classifier."""
    import timm

    return dict(timm.get_pretrained_cfg(name, allow_unregistered=True).to_dict())  # type: ignore[union-attr]


def options(name: str) -> dict[str, Any]:
    """What timm is asked for besides the name, so that the model takes images of any size if it can."""
    return _without_storage(name)[1]


def key_map(name: str) -> KeyMap:
    """From timm's names to those of the adapter; the classifier that timm names for the model is dropped."""
    classifier = constants(name).get("classifier") or ()
    paths = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return KeyMap(((r"^", MODEL),), tuple(rf"^{re.escape(path)}\." for path in paths))


def _without_storage(name: str) -> tuple[Encoder, dict[str, Any]]:
    import timm

    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(PREFIX + match for match in close)}?" if close else "see timm.list_models()"
        raise ConfigurationError(f"timm has no model {architecture!r}; {hint}")
    for asked in OPTIONS:
        try:
            with torch.device("meta"):
                return Encoder(name, asked).eval(), asked
        except TypeError:
            continue
        except RuntimeError as error:
            raise ConfigurationError(f"timm cannot build {name}: {error}") from error
    raise _unsuited(name, "it cannot be built without a classifier")


def _unsuited(name: str, why: str) -> ConfigurationError:
    known = ", ".join(PREFIX + suited for suited in SUITED)
    return ConfigurationError(f"timm's {name} cannot be used as a backbone: {why}; take another one, e.g. {known}")


@torch.no_grad()
def _maps(model: Encoder, side: int) -> Tensor | None:
    """The last feature map of an image of `side`, without storage; None if the model cannot take that size."""
    try:
        return cast(Tensor, model.model.forward_features(torch.zeros(1, 3, side, side, device="meta")))
    except (AssertionError, RuntimeError, ValueError):
        return None


def _sees_the_image(model: Encoder, first: str, side: int) -> bool:
    """Whether the first convolution gets the image as it is."""
    seen: list[Tensor] = []
    hook = model.model.get_submodule(first).register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    image = torch.zeros(1, 3, side, side, device="meta")
    try:
        with torch.no_grad():
            model(image)
    finally:
        hook.remove()
    return len(seen) == 1 and seen[0] is image


def _saliency(model: Encoder, output: Tensor, side: int) -> tuple[str, Layout, int]:
    """Where Grad-CAM looks: at the map that is pooled, or at the tokens that the last attention mixes into one."""
    if output.ndim == 4:
        return "map", "maps" if output.shape[1] == model.model.num_features else "maps_last", 0
    last = model.model.feature_info[-1]
    path = MODEL + last["module"]
    if "norm1" in dict(model.get_submodule(path).named_children()):
        path += ".norm1"
    tokens: list[int] = []
    hook = model.get_submodule(path).register_forward_hook(lambda _module, _inputs, out: tokens.append(out.shape[1]))
    try:
        _maps(model, side)
    finally:
        hook.remove()
    return path, "tokens", tokens[0] - (side // last["reduction"]) ** 2


def _groups(model: Any) -> Groups:
    """Timm's layer groups, joined into stages."""
    from timm.models import group_parameters

    units = list(group_parameters(model, model.group_matcher(coarse=True)).values())
    stages = _stages(units, model.feature_info)
    names = ("stem", *(f"stage{number}" for number in range(1, len(stages))))
    return tuple((name, _paths(model, set(stage))) for name, stage in zip(names, stages, strict=True))


def _stages(units: Sequence[Sequence[str]], levels: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Join units of parameters, from stem to head, into five: by halvings of the resolution, else a stem and four equal parts.

    What follows the last level (a final norm) belongs to it, and blocks at the resolution of the stem belong to the stem.
    """
    rest = units[1:]
    reductions = [level["reduction"] for level in levels]
    if len(set(reductions)) == len(reductions) > 1:
        ends = [next((i for i, unit in enumerate(rest) if _holds(unit, level["module"])), -1) for level in levels]
        cuts = sorted({end + 1 for end in ends[:-1]} - {0})
    else:
        cuts = sorted({round(len(rest) * part / 4) for part in (1, 2, 3)} - {0})
    bounds = zip([0, *cuts], [*cuts, len(rest)], strict=True)
    stages = [list(units[0]), *([name for unit in rest[start:end] for name in unit] for start, end in bounds if start < end)]
    joined = max(0, len(stages) - 5)
    return [[name for stage in stages[: joined + 1] for name in stage], *stages[joined + 1 :]]


def _holds(unit: Iterable[str], module: str) -> bool:
    return any(name.startswith(f"{module}.") for name in unit)


def _paths(model: nn.Module, names: set[str]) -> tuple[str, ...]:
    """The fewest modules, and the parameters, that hold exactly the parameters `names`, in order."""

    def inside(module: nn.Module, path: str) -> list[str]:
        own = [name for name, _ in module.named_parameters(path.rstrip("."))]
        if not own or names.isdisjoint(own):
            return []
        if names.issuperset(own) and path:
            return [path.rstrip(".")]
        direct = [f"{path}{name}" for name, _ in module.named_parameters(recurse=False) if f"{path}{name}" in names]
        return direct + [found for name, child in module.named_children() for found in inside(child, f"{path}{name}.")]

    return tuple(f"{MODEL}{path}" for path in inside(model, ""))
