import json
import re
from dataclasses import replace
from typing import Any

import pytest

from pipelines.errors import WeightsError
from pipelines.models.backbones import BACKBONES
from pipelines.models.keymaps import KEY_MAPS, KeyMap
from pipelines.models.provenance import Passport
from pipelines.models.published import PASSPORTS

OWN = KeyMap(replace=((r"^backbone\.", ""),), drop=(r"^head\.",))


@pytest.mark.parametrize("passport", PASSPORTS, ids=lambda passport: passport.name)
def test_a_passport_survives_json(passport: Passport) -> None:
    for written in (passport, replace(passport, key_map=OWN)):
        assert Passport.from_dict(json.loads(json.dumps(written.to_dict()))) == written


@pytest.mark.parametrize("passport", PASSPORTS, ids=lambda passport: passport.name)
def test_a_published_passport_fits_the_tables(passport: Passport) -> None:
    assert passport.backbone in BACKBONES
    assert passport.key_map in KEY_MAPS
    assert len({other.name for other in PASSPORTS}) == len({other.file for other in PASSPORTS}) == len(PASSPORTS)
    if passport.url:
        assert passport.url.endswith(f"/{passport.file}")
        assert re.search(r"-([0-9a-f]{8})\.pth$", passport.file)[1] == passport.sha256


def test_the_normalisation_is_for_an_image_in_0_to_1() -> None:
    """(255 x − 51) / 102 = (x − 0.2) / 0.4 and (2 x − 1 − 0.5) / 0.25 = (x − 0.75) / 0.125."""
    bytes_in = replace(PASSPORTS[0], input_range=(0, 255), mean=(51, 51, 51), std=(102, 102, 102)).normalisation
    assert bytes_in.mean == pytest.approx((0.2, 0.2, 0.2))
    assert bytes_in.std == pytest.approx((0.4, 0.4, 0.4))
    signed = replace(PASSPORTS[0], input_range=(-1, 1), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)).normalisation
    assert signed.mean == pytest.approx((0.75, 0.75, 0.75))
    assert signed.std == pytest.approx((0.125, 0.125, 0.125))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", "radtransfer-passport/2", "expected a passport with format"),
        ("colour", "red", "unknown fields colour"),
        ("file", "../weights.pth", "file: a plain file name"),
        ("sha256", "abc", "sha256: 8 to 64 hexadecimal digits"),
        ("url", "http://example.org/weights.pth", "url: https or null"),
        ("key_map", "torchvision-vgg", "key_map: an object, or one of radtransfer"),
        ("key_map", {"replace": [["(", ""]]}, "of regular expressions"),
        ("key_map", {"replace": 3}, "of regular expressions"),
        ("channels", "CMYK", "channels: RGB, BGR or grey"),
        ("channels", "grey", "mean: three numbers, or one for grey"),
        ("within", 3, "texts"),
        ("key_map", {"steps": ["transpose"]}, "expected steps of class_position"),
        ("key_map", {"replace": [["^a", "\\2"]]}, "of regular expressions: invalid group reference"),
        ("key_map", ["torchvision-resnet"], "key_map: an object, or one of"),
        ("channels", ["RGB"], "texts; channels: RGB, BGR or grey"),
        ("std", [1, 1, float("inf")], "input_range, mean, std and golden: finite"),
        ("mean", [0.5], "mean: three numbers"),
        ("mean", "grey", "could not convert"),
        ("std", [1, 1, 0], "std: three numbers > 0"),
        ("input_range", [1, 0], "input_range: two numbers, low < high"),
        ("input_size", "224", "input_size: a whole number > 0"),
        ("reduction", 0, "reduction: a whole number > 0"),
        ("golden", [1.0, 2.0], "golden: eight numbers or none"),
        ("name", "", "name: at least one character"),
        ("name", 7, "texts"),
    ],
)
def test_a_passport_that_is_not_valid_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        Passport.from_dict({**PASSPORTS[0].to_dict(), field: value})


def test_a_passport_without_a_needed_field_is_refused() -> None:
    values = PASSPORTS[0].to_dict()
    del values["licence"]
    with pytest.raises(WeightsError, match=r"theirs\.json: .*licence"):
        Passport.from_dict(values, "theirs.json")


@pytest.mark.parametrize(
    ("key_map", "key", "expected"),
    [
        ("torchvision-resnet", "layer1.0.downsample.1.bias", "layer1.0.downsample.1.bias"),
        (
            "torchvision-densenet",
            "features.denseblock1.denselayer1.norm.1.weight",
            "features.denseblock1.denselayer1.layers.norm1.weight",
        ),
        (
            "torchvision-densenet",
            "features.denseblock4.denselayer16.conv2.weight",
            "features.denseblock4.denselayer16.layers.conv2.weight",
        ),
        ("torchvision-densenet", "features.transition1.norm.weight", "features.transition1.norm.weight"),
        ("torchvision-efficientnet_b0", "features.0.1.running_mean", "_bn0.running_mean"),
        ("torchvision-efficientnet_b0", "features.1.0.block.0.0.weight", "_blocks.0.0._depthwise_conv.weight"),
        ("torchvision-efficientnet_b0", "features.6.3.block.2.fc2.bias", "_blocks.5.14._se_expand.bias"),
        ("torchvision-efficientnet_b0", "features.7.0.block.3.1.weight", "_blocks.6.15._bn2.weight"),
        ("torchvision-mobilenet_v2", "features.18.0.weight", "features.features.18.0.weight"),
    ],
)
def test_names_are_mapped_to_ours(key_map: str, key: str, expected: str) -> None:
    assert KEY_MAPS[key_map].rename(key) == expected
