"""`radtransfer weights`: what is there, adding what others publish, verifying and fetching it."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn
from typer.testing import CliRunner

from pipelines import __main__
from pipelines.errors import ConfigurationError, WeightsError
from pipelines.models import passports
from pipelines.models.backbones import build
from pipelines.models.passports import find
from pipelines.models.renaming import rename
from pipelines.models.starting import start
from pipelines.weights import naming
from pipelines.weights.adding import Description, add, numbers
from pipelines.weights.cabinet import catalogue, fetch, verify

runner = CliRunner()
OWN = Description(backbone="resnet18", name="ours", licence="CC0", trained_on="our own radiographs")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "weights"
    made.mkdir()
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(made))
    return made


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def refuse(url: str, timeout: float) -> Any:
        asked.append(url)
        raise OSError("network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(3)
    return torchvision.models.resnet18(weights=None).eval()


def written(path: Path, state: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def served(monkeypatch: pytest.MonkeyPatch, content: bytes) -> list[str]:
    asked: list[str] = []

    def answer(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(content)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    return asked


def test_the_list_says_what_is_here_what_can_be_fetched_and_what_cannot(folder: Path) -> None:
    (folder / "resnet18-f37072fd.pth").write_bytes(b"")
    states = {entry.name: entry.state for entry in catalogue().passports}
    assert states["torchvision-resnet18-v1"] == "here"
    assert states["torchvision-vit_b16-v1"] == "absent"
    assert states["mobilenet_v2-imagenet1k"] == "wanted"
    assert catalogue().passports[0].name == "torchvision-resnet18-v1"
    assert {entry.backbone for entry in catalogue("vgg16").passports} == {"vgg16"}
    assert "1 of 2 in" in replace(catalogue(), passports=catalogue().passports[:2]).describe()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_state_dict_of_ones_own_becomes_a_source(tmp_path: Path, folder: Path, resnet: nn.Module, suffix: str) -> None:
    file = written(tmp_path / f"mine{suffix}", resnet.state_dict())
    done = add(file, replace(OWN, layout="torchvision", source="medical", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)))
    (checked,) = done.checkpoints
    assert (done.passed, checked.matched, checked.missing) == (True, 120, ())
    assert sorted(checked.left_over) == ["fc.bias", "fc.weight"]
    assert checked.difference is not None
    assert checked.difference <= 1e-4
    passport = find("medical", "resnet18").passport
    assert passport == find("ours", "resnet18").passport
    assert passport.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert len(passport.golden) == 8
    assert (passport.licence, passport.trained_on, passport.mean) == ("CC0", "our own radiographs", (0.5, 0.5, 0.5))
    begun = start("resnet18", "ours", outputs=1, dropout=0, seed=1)
    assert torch.equal(begun.network.trunk.state_dict()["conv1.weight"], resnet.state_dict()["conv1.weight"])
    assert verify(["ours"]).passed
    assert f"ours{suffix}" in {path.name for path in folder.iterdir()}


def test_the_state_within_a_trainings_checkpoint_is_found(tmp_path: Path, resnet: nn.Module) -> None:
    file = tmp_path / "training.ckpt"
    torch.save({"epoch": 3, "state_dict": resnet.state_dict()}, file)
    add(file, replace(OWN, layout="torchvision"))
    assert find("ours", "resnet18").passport.within == "state_dict"
    assert verify().passed


def test_a_file_that_two_publishers_could_have_written_needs_its_layout(tmp_path: Path) -> None:
    state = build(
        "resnet10", outputs=1, dropout=0, normalisation=passports.Normalisation((0.5,) * 3, (0.5,) * 3)
    ).trunk.state_dict()
    file = written(tmp_path / "either.pth", state)
    with pytest.raises(WeightsError, match=r"its names are those of monai, radtransfer, .*say --layout"):
        add(file, replace(OWN, backbone="resnet10"))


def test_what_only_the_user_can_know_is_asked_for(tmp_path: Path, resnet: nn.Module) -> None:
    file = written(tmp_path / "mine.pth", {key: value for key, value in resnet.state_dict().items() if not key.startswith("fc")})
    with pytest.raises(WeightsError, match="--licence, --trained-on, --mean, --std not said, and the layout monai cannot know"):
        add(file, Description(backbone="resnet18", layout="monai"))
    with pytest.raises(WeightsError, match="--licence, --trained-on not said, and the layout torchvision cannot know"):
        add(file, Description(backbone="resnet18", layout="torchvision"))
    with pytest.raises(WeightsError, match="expected --backbone, one of resnet10"):
        add(file, Description())


def test_a_partial_file_is_refused_with_what_is_missing_and_what_is_left_over(
    tmp_path: Path, folder: Path, resnet: nn.Module
) -> None:
    state = {key: value for key, value in resnet.state_dict().items() if not key.startswith("layer4.1.conv2")}
    file = written(tmp_path / "partial.pth", {**state, "neck.weight": torch.zeros(3)})
    expected = r"missing layer4\.1\.conv2\.weight; of another shape none; left over neck\.weight; dropped on purpose fc"
    with pytest.raises(WeightsError, match=expected):
        add(file, replace(OWN, layout="torchvision"))
    with pytest.raises(WeightsError, match=r"no layout known for resnet18 explains it; its tensors begin conv1\.weight.*prefix"):
        add(file, OWN)
    assert list(folder.iterdir()) == []


def test_what_is_left_over_is_said_with_how_to_rename_it_or_leave_it_out(tmp_path: Path, resnet: nn.Module) -> None:
    whole = resnet.state_dict()
    for state in ({**whole, "foo.bar": torch.zeros(3)}, {f"encoder_q.{name}": tensor for name, tensor in whole.items()}):
        with pytest.raises(WeightsError, match=r"left over (foo\.bar|encoder_q\.conv1\.weight).*--prefix takes off .*--key-map"):
            add(written(tmp_path / "theirs.pth", state), replace(OWN, layout="torchvision"))


@pytest.mark.parametrize("layout", ["torchvision", "monai"])
@pytest.mark.parametrize(("value", "reason"), [(0.0, "all equal"), (float("nan"), "not finite numbers")])
def test_a_file_that_makes_nothing_of_an_image_is_refused_as_that(
    tmp_path: Path, folder: Path, resnet: nn.Module, layout: str, value: float, reason: str
) -> None:
    kept = {name: tensor for name, tensor in resnet.state_dict().items() if not name.startswith("fc.")}
    spoiled = {name: torch.full_like(tensor, value) if tensor.is_floating_point() else tensor for name, tensor in kept.items()}
    said = replace(OWN, layout=layout, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(WeightsError, match=rf"features .* are {reason}"):
        add(written(tmp_path / "spoiled.pth", spoiled), said)
    assert list(folder.iterdir()) == []


def test_a_backbone_that_does_not_exist_is_refused(tmp_path: Path, resnet: nn.Module) -> None:
    file = written(tmp_path / "mine.pth", resnet.state_dict())
    with pytest.raises(ConfigurationError, match=r"^--backbone: expected one of resnet10, .*, got 'foo'"):
        add(file, replace(OWN, backbone="foo"))
    for backbone, reason in (("nosuch", "expected one of"), ("timm:nosuch", "timm has no model")):
        with pytest.raises(ConfigurationError, match=f"^--backbone: {reason}"):
            catalogue(backbone)
    assert catalogue("timm:test_convnext").passports == ()


def test_a_layout_that_does_not_have_the_network_is_refused(tmp_path: Path, resnet: nn.Module) -> None:
    file = written(tmp_path / "mine.pth", resnet.state_dict())
    with pytest.raises(WeightsError, match=r"--layout radimagenet: expected --backbone of resnet50, .*, got resnet18"):
        add(file, replace(OWN, layout="radimagenet"))
    with pytest.raises(WeightsError, match=r"--layout: expected one of torchvision, timm, radimagenet, .*, got 'keras'"):
        add(file, replace(OWN, layout="keras"))


def test_a_file_of_ones_own_never_stands_for_imagenets(tmp_path: Path, resnet: nn.Module) -> None:
    add(written(tmp_path / "mine.pth", resnet.state_dict()), replace(OWN, layout="torchvision"))
    assert find("medical", "resnet18").passport.name == "ours"
    with pytest.raises(WeightsError, match=r"expected resnet18-f37072fd\.pth"):
        find("imagenet", "resnet18", download=False)


def test_a_timm_model_of_other_images_is_not_called_imagenets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.models.families import timm_nets

    known = timm_nets.constants("test_convnext")
    monkeypatch.setattr(timm_nets, "constants", lambda name: {**known, "tag": "lvd142m", "license": None})
    file = written(tmp_path / "theirs.pth", timm.create_model("test_convnext", pretrained=False).state_dict())
    (checked,) = add(file, Description(backbone="timm:test_convnext")).checkpoints
    assert find("timm", "timm:test_convnext").passport.name == "theirs"
    assert checked.licence == "not stated by timm: ask its publishers"
    assert "trained on: see timm for test_convnext, tag lvd142m" in checked.describe()
    add(file, replace(OWN, backbone="timm:test_convnext"))
    assert find("medical", "timm:test_convnext").passport.name == "ours"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_several_devices_or_compiling_put_before_the_names_is_taken_off(
    tmp_path: Path, resnet: nn.Module, prefix: str
) -> None:
    file = written(tmp_path / "mine.pth", {prefix + key: value for key, value in resnet.state_dict().items()})
    (checked,) = add(file, replace(OWN, layout="torchvision")).checkpoints
    assert (checked.matched, checked.missing) == (120, ())


@pytest.mark.parametrize("name", ["../ours", "our chests", "ours/1"])
def test_a_name_that_would_reach_outside_the_folder_is_refused(
    tmp_path: Path, folder: Path, resnet: nn.Module, name: str
) -> None:
    file = written(tmp_path / "mine.pth", resnet.state_dict())
    with pytest.raises(WeightsError, match="--name: expected letters, digits, and "):
        add(file, replace(OWN, layout="torchvision", name=name))
    assert (list(folder.iterdir()), sorted(tmp_path.iterdir())) == ([], [file, folder])


@pytest.mark.parametrize(
    "changes",
    [
        *({"name": name} for name in ("scratch", "imagenet", "radimagenet", "medical", "ssl", "timm", "torchvision-resnet18-v1")),
        {"source": "scratch"},
    ],
)
def test_a_name_that_stands_for_other_weights_is_refused(tmp_path: Path, resnet: nn.Module, changes: dict[str, Any]) -> None:
    file = written(tmp_path / "mine.pth", resnet.state_dict())
    with pytest.raises(WeightsError, match="stands for other weights; take another --name"):
        add(file, replace(OWN, layout="torchvision", **changes))


def test_a_name_that_is_the_source_of_another_file_is_refused_and_ones_own_source_is_not(
    tmp_path: Path, resnet: nn.Module
) -> None:
    file = written(tmp_path / "mine.pth", resnet.state_dict())
    for _ in range(2):
        assert add(file, replace(OWN, layout="torchvision", name="vendor", source="vendor")).passed
    add(file, replace(OWN, layout="torchvision", name="chests", source="clinic"))
    with pytest.raises(WeightsError, match="clinic from vendor stands for other weights; take another --name"):
        add(file, replace(OWN, layout="torchvision", name="clinic", source="vendor"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_adding_another_file_under_a_name_in_use_is_refused_and_the_same_again_is_not(
    tmp_path: Path, folder: Path, resnet: nn.Module, suffix: str
) -> None:
    said = replace(OWN, layout="torchvision")
    first = written(tmp_path / "mine.pth", resnet.state_dict())
    add(first, said)
    assert add(first, replace(said, licence="CC-BY")).checkpoints[0].licence == "CC-BY"
    held = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = {key: value + 1 if key == "fc.bias" else value for key, value in resnet.state_dict().items()}
    with pytest.raises(WeightsError, match="ours is another file's in "):
        add(written(tmp_path / f"other{suffix}", other), said)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == held


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mean": (0.5, 0.5), "std": (0.5, 0.5)}, "mean: three numbers, or one for grey"),
        ({"std": (0.0, 0.0, 0.0)}, "std: three numbers > 0"),
        ({"mean": (float("nan"), 0.5, 0.5)}, "input_range, mean, std and golden: finite"),
        ({"input_range": (255.0,)}, "input_range: two numbers, low < high"),
        ({"mean": (123.7, 116.3, 103.5)}, r"--mean: expected .* range, 0 to 1, got 123.7,116.3,103.5; .* or --input-range"),
        ({"input_range": (-1024.0, 0.0), "mean": (0.5, 0.5, 0.5)}, "--mean: expected values within the input range, -1024 to 0"),
        ({"channels": "rgb"}, "channels: RGB, BGR or grey"),
        ({"input_size": -3}, "input_size: a whole number > 0"),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_anything_is_built(
    tmp_path: Path, folder: Path, resnet: nn.Module, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(WeightsError, match=reason):
        add(written(tmp_path / "mine.pth", resnet.state_dict()), replace(OWN, layout="torchvision", **changes))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello world\n",
        b"<!DOCTYPE html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"PK\x03\x04",
        b"12345678{",
        b"\x80\x02.",
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused_with_a_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wrong.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"download or copy it again|save its state_dict") as refused:
        add(tmp_path / "wrong.pth", OWN)
    assert "arbitrary code" not in str(refused.value)
    assert "weights_only" not in str(refused.value)


def test_a_pickle_that_would_run_code_is_not_run(tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"conv1.weight": Planted()}, tmp_path / "planted.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Planted(), protocol=2))
    (tmp_path / "newer.pth").write_bytes(pickle.dumps(Planted(), protocol=4))
    for name in ("planted.pth", "plain.pth", "newer.pth"):
        with pytest.raises(WeightsError, match="is code: save its") as refused:
            add(tmp_path / name, OWN)
        assert "weights_only" not in str(refused.value)
    assert not (tmp_path / "ran").exists()


def test_safetensors_are_known_by_their_bytes(tmp_path: Path, resnet: nn.Module) -> None:
    file = written(tmp_path / "mine.safetensors", resnet.state_dict()).rename(tmp_path / "mine.bin")
    assert add(file, replace(OWN, layout="torchvision")).passed


def test_a_pickled_model_is_refused_and_the_remedy_named(tmp_path: Path, resnet: nn.Module) -> None:
    torch.save(resnet, tmp_path / "whole.pt")
    with pytest.raises(WeightsError, match=r"a whole pickled model \(as torchxrayvision publishes\) is code: save"):
        add(tmp_path / "whole.pt", replace(OWN, layout="torchvision"))


@pytest.fixture(scope="module")
def radimagenet() -> dict[str, Tensor]:
    torch.manual_seed(5)
    wrapper = nn.Module()
    wrapper.backbone = nn.Sequential(*list(torchvision.models.resnet50(weights=None).children())[:-1])
    return wrapper.state_dict()


def test_radimagenets_file_needs_nothing_but_its_network_and_that_it_is_theirs(
    tmp_path: Path, radimagenet: dict[str, Tensor]
) -> None:
    file = written(tmp_path / "ResNet50.pt", radimagenet)
    (checked,) = add(file, Description(backbone="resnet50", layout="radimagenet")).checkpoints
    passport = find("radimagenet", "resnet50").passport
    assert (passport.key_map, passport.mean, passport.std) == ("radimagenet-resnet50", (0.5,) * 3, (0.5,) * 3)
    assert "no radiographs" in passport.trained_on
    assert "terms" in checked.licence
    assert checked.left_over == ()
    assumed = "source, licence, trained on, input range, mean, std as the layout radimagenet has it for resnet50"
    assert assumed in checked.describe()


def test_nobodys_own_file_is_taken_for_radimagenets(tmp_path: Path, folder: Path, radimagenet: dict[str, Tensor]) -> None:
    own = {name.removeprefix("backbone."): tensor for name, tensor in radimagenet.items()}
    for name, state in (("wrapped.pt", radimagenet), ("plain.pt", own)):
        with pytest.raises(WeightsError, match=r"names are positions, .* say --layout radimagenet if the file is theirs"):
            add(written(tmp_path / name, state), Description(backbone="resnet50"))
    file = tmp_path / "plain.pt"
    for layout in (None, "radimagenet"):
        with pytest.raises(WeightsError, match="--licence not said, and the layout radimagenet cannot know"):
            add(file, Description(backbone="resnet50", layout=layout, trained_on="our own radiographs"))
    assert list(folder.iterdir()) == []
    (checked,) = add(file, replace(OWN, backbone="resnet50")).checkpoints
    passport = find("ours", "resnet50").passport
    assert (passport.source, passport.licence, passport.trained_on, passport.notes) == ("medical", "CC0", OWN.trained_on, "")
    assert checked.assumed.startswith("input range, mean, std as the layout radimagenet has it for resnet50; if the file differs")
    assert "images: RGB in 0 to 1, mean 0.5,0.5,0.5, std 0.5,0.5,0.5" in checked.describe()


def test_what_is_assumed_of_a_transformers_images_is_said_with_how_to_say_otherwise() -> None:
    from pipelines.models.provenance import Passport
    from pipelines.weights.adding import _assumed

    half = (0.5, 0.5, 0.5)
    passport = Passport("v", "vit_b16", "imagenet", "timm vit_b16", "v.pth", "0" * 64, "x", "timm-vit", "x", mean=half, std=half)
    said = Description(licence="Apache-2.0", trained_on="ImageNet-1k")
    assert _assumed(passport, "timm", said) == (
        "input range, mean, std as the layout timm has it for vit_b16; if the file differs, add it again with --input-range, "
        "--mean, --std; timm has several networks with these names (DeiT's mean is ImageNet's): --backbone timm:NAME tells"
    )
    given = replace(said, mean=half, std=half)
    assert _assumed(passport, "timm", given).startswith("input range as the layout timm has it")
    assert not _assumed(passport, "timm", replace(given, input_range=(0.0, 1.0)))


# names that only the user knows


@pytest.mark.parametrize("prefix", ["module.encoder_q.", "encoder_q.", "encoder_q"])
def test_a_wrappers_prefix_is_taken_off_and_what_is_beside_it_left_out(tmp_path: Path, resnet: nn.Module, prefix: str) -> None:
    state = {f"module.encoder_q.{name}": tensor for name, tensor in resnet.state_dict().items()}
    beside = {"module.encoder_k.conv1.weight": torch.zeros(3), "module.queue": torch.zeros(5)}
    file = written(tmp_path / "moco.pth", {**state, **beside})
    (checked,) = add(file, replace(OWN, layout="torchvision", prefix=prefix)).checkpoints
    assert checked.matched == 120
    assert set(checked.left_over) == {"fc.weight", "fc.bias", "encoder_k.conv1.weight", "queue"}
    assert checked.difference is not None
    assert checked.difference <= 1e-4
    begun = start("resnet18", "ours", outputs=1, dropout=0, seed=1)
    assert torch.equal(begun.network.trunk.state_dict()["conv1.weight"], resnet.state_dict()["conv1.weight"])
    (again,) = verify(["ours"]).checkpoints
    assert (again.failure, again.left_over, again.difference) == ("", checked.left_over, checked.difference)


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_map_of_names_and_expressions_is_kept_in_the_passport(tmp_path: Path, resnet: nn.Module, suffix: str) -> None:
    theirs = {
        "net." + name.replace("layer", "stage").replace("conv1.weight", "convolution1.weight"): tensor
        for name, tensor in resnet.state_dict().items()
        if not name.startswith("fc.")
    }
    names = {r"^stage(\d)\.": r"layer\1.", r"convolution1\.weight$": "conv1.weight", "projector.weight": None}
    (tmp_path / f"map{suffix}").write_text(json.dumps(names))
    file = written(tmp_path / "theirs.pth", {**theirs, "net.projector.weight": torch.zeros(2)})
    said = replace(OWN, layout="torchvision", prefix="net.", key_map=tmp_path / f"map{suffix}")
    (checked,) = add(file, said).checkpoints
    assert (checked.matched, checked.left_over) == (120, ("net.projector.weight",))
    (tmp_path / f"map{suffix}").unlink()
    assert verify(["ours"]).passed
    assert find("ours", "resnet18").passport.renames[:2] == ((r"^(?!net\.)", None), (r"^net\.", ""))


def test_a_name_in_a_map_is_of_that_tensor_alone(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text("conv1.weight: stem.weight")
    names = ["conv1.weight", "layer1.0.conv1.weight"]
    made = naming.renames(names, None, tmp_path / "map.yaml")
    assert [rename(name, made) for name in names] == ["stem.weight", "layer1.0.conv1.weight"]


@pytest.mark.parametrize(
    ("prefix", "text", "reason"),
    [
        ("encoder.", None, r"--prefix: expected what names of tensors begin with, got 'encoder\.'; they are conv1\.weight"),
        (None, "stem.weight: conv1.weight", r"--key-map: expected names of tensors, or regular .* 'stem\.weight' is of none of"),
        (
            None,
            "conv1.weight: bn1.weight",
            r"expected a name of its own for each tensor, conv1\.weight and bn1\.weight both become",
        ),
        (None, "'.': null", "expected tensors that are kept, got none of conv1"),
        (None, "[conv1]", r"--key-map map\.yaml: expected a file of `THEIRS: OURS` .*, got list"),
        (None, "a: 3", r"--key-map map\.yaml: .*, got others at 'a'"),
        (None, "'(': x", r"--key-map map\.yaml: renames: expected .* of regular expressions"),
        (None, "a: [", r"--key-map map\.yaml: .*; cannot read it"),
    ],
)
def test_a_prefix_or_a_map_that_makes_no_sense_is_refused(
    tmp_path: Path, folder: Path, resnet: nn.Module, prefix: str | None, text: str | None, reason: str
) -> None:
    key_map = None if text is None else tmp_path / "map.yaml"
    if key_map:
        key_map.write_text(str(text))
    file = written(tmp_path / "mine.pth", resnet.state_dict())
    with pytest.raises((WeightsError, ConfigurationError), match=reason):
        add(file, replace(OWN, layout="torchvision", prefix=prefix, key_map=key_map))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("renames", [[["("]], [["(", "x"]], "abc", [["a", "\\9"]]])
def test_renames_that_are_none_are_refused_in_a_passport(added: Path, renames: Any) -> None:
    altered(added, "ours", renames=renames)
    with pytest.raises(WeightsError, match=r"renames: expected \[\[pattern, replacement or null\]"):
        find("ours", "resnet18")


def test_whether_a_classifier_says_several_things_is_the_layouts_or_the_users_word(tmp_path: Path, resnet: nn.Module) -> None:
    file = written(tmp_path / "mine.pth", resnet.state_dict())
    for said, expected in ((None, False), (True, True)):
        add(file, replace(OWN, layout="torchvision", multi_label=said))
        assert find("ours", "resnet18").passport.multi_label is expected


def one_channel(network: nn.Module, path: str) -> nn.Module:
    """With a first convolution of one channel instead of three."""
    parent, _, name = path.rpartition(".")
    layer = network.get_submodule(path)
    grey = nn.Conv2d(1, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, bias=layer.bias is not None)
    setattr(network.get_submodule(parent), name, grey)
    return network


GREY = replace(OWN, channels="grey", mean=(0.5,), std=(0.25,))


@pytest.mark.parametrize(
    ("backbone", "layout", "first"),
    [
        ("resnet18", "torchvision", "conv1"),
        ("mobilenet_v2", "torchvision", "features.0.0"),
        ("seresnet50", "timm", "layer0.conv1"),
        ("timm:test_convnext", "timm", "stem.0"),
    ],
)
def test_weights_of_one_channel_are_held_against_the_publishers_network_of_one(
    tmp_path: Path, backbone: str, layout: str, first: str
) -> None:
    torch.manual_seed(3)
    if layout == "timm":
        network: nn.Module = timm.create_model({"seresnet50": "legacy_seresnet50"}.get(backbone, "test_convnext"))
    else:
        network = torchvision.models.get_model(backbone, weights=None)
    file = written(tmp_path / "onechan.pt", one_channel(network, first).state_dict())
    (checked,) = add(file, replace(GREY, backbone=backbone, layout=layout)).checkpoints
    assert checked.difference is not None
    assert checked.difference <= 1e-4
    assert verify(["ours"]).passed
    assert start(backbone, "ours", outputs=1, dropout=0, seed=1).network.normalisation.mean == (0.5,)


def test_radimagenets_layout_takes_one_channel_too(tmp_path: Path) -> None:
    network = one_channel(torchvision.models.resnet50(weights=None), "conv1")
    file = written(tmp_path / "onechan.pt", nn.Sequential(*list(network.children())[:-1]).state_dict())
    (checked,) = add(file, replace(GREY, backbone="resnet50", layout="radimagenet")).checkpoints
    assert checked.difference is not None
    assert checked.difference <= 1e-4


def test_how_many_channels_a_file_has_is_said_where_the_options_say_otherwise(tmp_path: Path, resnet: nn.Module) -> None:
    said = replace(OWN, layout="torchvision")
    grey = written(tmp_path / "onechan.pt", one_channel(torchvision.models.resnet18(weights=None), "conv1").state_dict())
    for wrong in (said, replace(said, channels="RGB"), replace(said, channels="grey")):
        with pytest.raises(WeightsError, match=r"first convolution has one channel: give --channels grey --mean … --std …"):
            add(grey, wrong)
    with pytest.raises(WeightsError, match="first convolution has three channels: leave out --channels grey"):
        add(written(tmp_path / "mine.pt", resnet.state_dict()), replace(GREY, layout="torchvision"))


def test_torchxrayvisions_state_dict_takes_one_channel_in_its_own_range(tmp_path: Path) -> None:
    network = torchvision.models.densenet121(weights=None)
    network.features.conv0 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    file = written(tmp_path / "all.pt", {**network.state_dict(), "op_threshs": torch.zeros(18)})
    (checked,) = add(file, Description(backbone="densenet121", name="xrv-all")).checkpoints
    passport = find("medical", "densenet121").passport
    assert (passport.channels, passport.input_range, passport.normalisation.mean) == ("grey", (-1024.0, 1024.0), (0.5,))
    assert passport.multi_label
    assert checked.left_over == ("classifier.weight", "classifier.bias", "op_threshs")
    begun = start("densenet121", "medical", outputs=1, dropout=0, seed=1).network.eval()
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        expected = network.eval().features((2 * image - 1) * 1024).relu().mean((2, 3))
        assert (begun.features(image) - expected).abs().max() <= 1e-4 * expected.abs().max()


# a wrong passport, and the reason that is given


def altered(folder: Path, name: str, **changes: Any) -> None:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def added(tmp_path: Path, folder: Path, resnet: nn.Module) -> Path:
    add(written(tmp_path / "mine.pth", resnet.state_dict()), replace(OWN, layout="torchvision"))
    return folder


SWAP = [["^layer1.0.conv1.weight$", "-"], ["^layer1.0.conv2.weight$", "layer1.0.conv1.weight"], ["^-$", "layer1.0.conv2.weight"]]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sha256": "0" * 64}, "expected SHA-256 0000"),
        ({"key_map": "torchvision-densenet"}, "left over fc.weight, fc.bias"),
        ({"key_map": "radimagenet-resnet50"}, "left over fc.weight, fc.bias"),
        ({"key_map": {"replace": SWAP, "drop": ["^fc"]}}, "a layer of resnet18 differs from the publisher's"),
        (
            {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
            "they come out with ImageNet's mean and deviation: the passport's input_range, mean or std is not the publisher's",
        ),
        ({"input_range": [0, 255]}, "they come out with ImageNet's mean and deviation"),
        ({"reduction": 16}, "expected a network that shrinks an image 16 times, resnet18 shrinks it 32 times"),
        ({"backbone": "resnet34"}, "missing layer1.2.conv1.weight"),
    ],
)
def test_a_wrong_passport_fails_with_the_reason(added: Path, changes: dict[str, Any], reason: str) -> None:
    assert verify(["ours"]).passed
    altered(added, "ours", **changes)
    result = runner.invoke(__main__.app, ["weights", "verify", "ours", "--json"])
    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert told["passed"] is False
    assert reason in told["checkpoints"][0]["failure"]


def test_a_wrong_key_map_without_golden_features_is_caught_by_the_publishers_network(added: Path, resnet: nn.Module) -> None:
    from pipelines.models import references

    passport = replace(find("ours", "resnet18").passport, golden=())
    network = build("resnet18", outputs=1, dropout=0, normalisation=passport.normalisation)
    exchanged = {**resnet.state_dict(), "layer1.0.conv1.weight": resnet.state_dict()["layer1.0.conv2.weight"]}
    passports.load_state(network, passport, lambda: exchanged, "")
    with pytest.raises(WeightsError, match="the key map puts a layer in another's place"):
        references.compare(network, passport, resnet.state_dict())


@pytest.mark.parametrize(("value", "reason"), [(0.0, "all equal"), (float("nan"), "not finite numbers")])
def test_no_key_map_is_blamed_for_features_that_say_nothing(added: Path, resnet: nn.Module, value: float, reason: str) -> None:
    from pipelines.models import references

    passport = find("ours", "resnet18").passport
    network = build("resnet18", outputs=1, dropout=0, normalisation=passport.normalisation)
    whole = resnet.state_dict().items()
    spoiled = {name: torch.full_like(tensor, value) if tensor.is_floating_point() else tensor for name, tensor in whole}
    with pytest.raises(WeightsError, match=rf"those of ours\.pth are {reason}; its weights are damaged or were never trained"):
        references.compare(network, passport, spoiled)


@pytest.mark.parametrize("spoiled", [{"mean": "grey"}, {"key_map": ["torchvision-resnet"]}, {"golden": [float("nan")] * 8}, None])
def test_a_passport_that_cannot_be_read_is_listed_and_fails_the_verification(added: Path, spoiled: dict[str, Any] | None) -> None:
    if spoiled is None:
        (added / "ours.json").write_text('{"format": "radtransfer-passport/1", ')
    else:
        altered(added, "ours", **spoiled)
    done = verify()
    assert not done.passed
    assert [item.name for item in done.checkpoints] == ["ours"]
    reason, stray = catalogue().unusable
    assert "ours.json" in reason
    assert "ours.pth: no readable passport is about it; `radtransfer weights add" in stray
    assert stray in catalogue().describe()


def test_verifying_a_source_takes_its_files_that_are_here(added: Path) -> None:
    assert [item.name for item in verify(["medical"]).checkpoints] == ["ours"]
    with pytest.raises(WeightsError, match=r"no file of imagenet is in .*; see `radtransfer weights list`"):
        verify(["imagenet"])
    (checked,) = verify(["torchvision-resnet18-v1"]).checkpoints
    assert "resnet18-f37072fd.pth, it is not there; `radtransfer weights fetch torchvision-resnet18-v1`" in checked.failure


@pytest.mark.parametrize("names", [[], ["ours"], ["medical"]])
def test_a_file_that_is_gone_fails_the_verification_with_a_remedy(added: Path, names: list[str]) -> None:
    (added / "ours.pth").unlink()
    done = verify(names)
    assert not done.passed
    (checked,) = done.checkpoints
    assert checked.failure == f"expected {added / 'ours.pth'}, it is not there; copy it there, or delete ours.json beside it"


def test_a_passport_of_a_network_that_does_not_exist_is_said_to_be_wrong(added: Path) -> None:
    altered(added, "ours", backbone="foo")
    assert "passport ours: backbone: expected one of resnet10" in verify().checkpoints[0].failure


def test_a_name_goes_before_a_source_in_verifying_and_fetching(tmp_path: Path, folder: Path) -> None:
    for name, seed in (("our-vic", 1), ("ssl", 2), ("third", 3)):
        network = start("resnet10", "scratch", outputs=1, dropout=0, seed=seed).network
        facts = {"name": name, "source": "ssl", "licence": "none", "trained_on": "nothing"}
        passports.save_backbone(network, folder / f"{name}.safetensors", **facts)
    assert [item.name for item in verify(["ssl"]).checkpoints] == ["ssl"]
    assert [item.name for item in fetch("ssl").checkpoints] == ["ssl"]
    for path in folder.glob("ssl.*"):
        path.unlink()
    assert [item.name for item in verify(["ssl"]).checkpoints] == ["our-vic", "third"]
    with pytest.raises(
        WeightsError, match=r"^weights fetch ssl: expected one checkpoint for resnet10 .* found our-vic .*, third "
    ):
        fetch("ssl")


def test_verifying_what_is_not_known_is_refused() -> None:
    with pytest.raises(WeightsError, match="no passport is called nowhere; see `radtransfer weights list`"):
        verify(["nowhere"])
    assert "nothing to verify" in verify().describe()


def test_fetching_takes_the_file_whose_hash_is_known_and_verifies_it(
    folder: Path, resnet: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.BytesIO()
    torch.save(resnet.state_dict(), stream)
    content = stream.getvalue()
    known = replace(passports.PASSPORTS[0], sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(passports, "PASSPORTS", (known,))
    asked = served(monkeypatch, content)
    done = fetch("imagenet", "resnet18")
    assert asked == [known.url]
    assert (done.passed, done.checkpoints[0].missing) == (True, ())
    assert (folder / known.file).read_bytes() == content
    served(monkeypatch, content + b"altered")
    (folder / known.file).unlink()
    with pytest.raises(WeightsError, match="expected SHA-256"):
        fetch("imagenet", "resnet18")


@pytest.mark.parametrize(
    ("name", "backbone", "message"),
    [
        ("nothing", None, "no passport is called nothing"),
        ("imagenet", "resnet10", "no passport is called imagenet for resnet10"),
        ("imagenet", None, "several networks have it; name one with --backbone: resnet18"),
        ("torchvision-resnet18-v1", None, "network is unreachable"),
        ("timm:no_such", None, "timm has no model 'no_such'"),
    ],
)
def test_what_cannot_be_fetched_is_said(name: str, backbone: str | None, message: str) -> None:
    with pytest.raises((WeightsError, ConfigurationError), match=message):
        fetch(name, backbone)


def test_an_encoder_of_timms_is_fetched_and_its_hash_pinned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    state = timm.create_model("test_convnext", pretrained=False).state_dict()
    asked = served(monkeypatch, safetensors.torch.save({key: value.contiguous() for key, value in state.items()}))
    (checked,) = fetch("timm:test_convnext").checkpoints
    assert asked == ["https://huggingface.co/timm/test_convnext.r160_in1k/resolve/main/model.safetensors"]
    assert sorted(checked.left_over) == ["head.fc.bias", "head.fc.weight"]
    assert not checked.assumed
    passport = find("imagenet", "timm:test_convnext").passport
    assert (passport.input_size, passport.sha256) == (160, checked.sha256)
    assert "as it was first downloaded" in passport.notes
    assert "apache-2.0" in passport.licence
    (folder / passport.file).unlink()
    served(monkeypatch, b"another")
    with pytest.raises(WeightsError, match="expected SHA-256"):
        fetch("timm:test_convnext")
    (folder / passport.file).write_bytes(b"another")
    assert "expected SHA-256" in verify([passport.name]).checkpoints[0].failure
    assert "expected SHA-256" in fetch("timm:test_convnext").checkpoints[0].failure


def test_a_download_that_cannot_be_used_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content, reason in ((b"not a checkpoint", "cannot read it|got another file"), (_of_another_network(), "does not fit")):
        asked = served(monkeypatch, content)
        with pytest.raises(WeightsError, match=reason):
            fetch("timm:test_convnext")
        assert len(asked) == 1
        assert list(folder.iterdir()) == []


def _of_another_network() -> bytes:
    state = timm.create_model("test_convnext2", pretrained=False).state_dict()
    return safetensors.torch.save({key: value.contiguous() for key, value in state.items()})


Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """A MONAI bundle of a DenseNet-121 for one channel in 0…1, written as MONAI's specification says."""

    def make(
        network: dict[str, Any], *, name: str = "chest_bundle", channels: int = 1, state: dict[str, Tensor] | None = None
    ) -> Path:
        folder = tmp_path / name
        (folder / "configs").mkdir(parents=True)
        (folder / "models").mkdir()
        image = {"num_channels": channels, "spatial_shape": [256, 256], "value_range": [0, 1]}
        metadata = {"name": "Chest Bundle", "version": "0.2.1", "data_source": "a public chest set", "license": "Apache-2.0"}
        metadata["network_data_format"] = {"inputs": {"image": image}}  # type: ignore[assignment]
        (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
        (folder / "configs" / "inference.json").write_text(json.dumps({"network_def": network}))
        torch.save(state or {"a": torch.zeros(1)}, folder / "models" / "model.pt")
        return folder

    return make


def test_a_monai_bundle_says_itself_what_its_passport_needs(bundle: Callable[..., Path]) -> None:
    from monai.networks.nets.densenet import DenseNet121

    torch.manual_seed(2)
    network = DenseNet121(spatial_dims=2, in_channels=1, out_channels=4).eval()
    folder = bundle({"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 1}, state=network.state_dict())
    (checked,) = add(folder, Description()).checkpoints
    passport = find("medical", "densenet121").passport
    assert (passport.name, passport.channels, passport.input_size) == ("Chest-Bundle", "grey", 256)
    assert (passport.licence, passport.trained_on) == ("Apache-2.0", "a public chest set")
    assert checked.left_over == ("class_layers.out.weight", "class_layers.out.bias")
    image = torch.rand(1, 1, 64, 64)
    begun = start("densenet121", "Chest-Bundle", outputs=1, dropout=0, seed=1).network.eval()
    network.class_layers.out = nn.Identity()
    with torch.no_grad():
        expected = network(image)
        assert (begun.features(image) - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize(
    ("network", "channels", "reason"),
    [
        (
            {"_target_": "monai.networks.nets.resnet50", "spatial_dims": 2},
            3,
            "expected conv1_t_stride 2 in its network_def, got 1",
        ),
        ({"_target_": "EfficientNetBN", "model_name": "efficientnet-b0"}, 3, "MONAI's own EfficientNet pads otherwise"),
        ({"_target_": "DenseNet121"}, 2, "2D images of one or three channels, got 2 channels"),
        ({"_target_": "UNet"}, 1, "expected --backbone"),
    ],
)
def test_a_bundle_that_computes_something_else_is_refused(
    bundle: Callable[..., Path], network: dict[str, Any], channels: int, reason: str
) -> None:
    with pytest.raises(WeightsError, match=reason):
        add(bundle(network, channels=channels), Description())


def test_a_bundle_without_its_weights_is_refused(bundle: Callable[..., Path]) -> None:
    folder = bundle({"_target_": "DenseNet121"})
    (folder / "models" / "model.pt").unlink()
    with pytest.raises(WeightsError, match=r"expected models/model\.pt beside configs/metadata\.json"):
        add(folder, Description())


def test_the_commands_speak_in_words_and_in_json(tmp_path: Path, resnet: nn.Module) -> None:
    file = written(tmp_path / "mine.pth", resnet.state_dict())
    asked = ["weights", "add", str(file), "--backbone", "resnet18", "--layout", "torchvision", "--licence", "CC0"]
    result = runner.invoke(__main__.app, [*asked, "--trained-on", "ours", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"])
    assert result.exit_code == 0, result.output
    assert "✓ mine for resnet18" in result.stdout
    assert "120 tensors matched; missing none; left over fc.weight, fc.bias" in result.stdout
    assert "golden activations came out; the publisher's network's features within" in result.stdout
    listed = json.loads(runner.invoke(__main__.app, ["weights", "list", "--backbone", "resnet18", "--json"]).stdout)
    assert [entry["state"] for entry in listed["passports"] if entry["name"] == "mine"] == ["here"]
    failed = runner.invoke(__main__.app, ["weights", "fetch", "nothing", "--json"])
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["error"] == "WeightsError"


def test_numbers_are_read_from_the_command_line() -> None:
    assert numbers("0.485, 0.456,0.406", "--mean") == (0.485, 0.456, 0.406)
    assert numbers(None, "--mean") is None
    with pytest.raises(ConfigurationError, match="--mean: expected numbers with commas, got 'grey'"):
        numbers("grey", "--mean")


@pytest.mark.real
def test_the_real_mobilenet_agrees_with_its_golden_features_and_with_torchvision(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(shared / "weights"))
    (checked,) = verify(["mobilenet_v2-imagenet1k"]).checkpoints
    assert not checked.failure
    assert checked.golden
    assert checked.difference is not None
    assert checked.difference <= 1e-4
    assert catalogue("mobilenet_v2").passports[0].state == "here"
