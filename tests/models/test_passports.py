import hashlib
import io
import json
import re
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from published_files import randomised
from torch import Tensor, nn

from pipelines.errors import WeightsError
from pipelines.models import passports
from pipelines.models.backbones import BACKBONES, Network, build
from pipelines.models.layouts import LAYOUTS
from pipelines.models.passports import PASSPORTS, Found, Normalisation, find, load, save_backbone
from pipelines.models.published import SOURCES

HALF = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
TINY = {"source": "phantom", "licence": "Apache-2.0", "trained_on": "phantoms"}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def three_channels(images: Tensor, normalisation: Normalisation) -> Tensor:
    """Three equal channels, normalised as torchvision's transforms do."""
    return torchvision.transforms.functional.normalize(
        images.expand(-1, 3, -1, -1), list(normalisation.mean), list(normalisation.std)
    )


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 1, 64, 96, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No network; the addresses that were asked for."""
    asked: list[str] = []

    def refuse(url: str, timeout: float) -> Any:
        asked.append(url)
        raise OSError("network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


def tiny(normalisation: Normalisation = HALF) -> Network:
    torch.manual_seed(4)
    network = build("resnet10", outputs=1, dropout=0, normalisation=normalisation)
    randomised(network, channels=1)
    return network.train()


def fresh() -> Network:
    return build("resnet10", outputs=1, dropout=0, normalisation=HALF)


@pytest.fixture
def saved(folder: Path) -> Found:
    return save_backbone(tiny(), folder / "phantom-tiny.safetensors", name="phantom-tiny", **TINY)


def test_a_saved_backbone_is_found_by_name_or_source_and_comes_back_exactly(saved: Found, images: Tensor) -> None:
    network = fresh().eval()
    assert find("phantom-tiny", "resnet10") == find("phantom", "resnet10") == saved
    report = load(network, saved)
    assert (report.missing, report.left_over) == ((), ())
    with torch.no_grad():
        assert torch.equal(network.features(images), tiny().eval().features(images))


def named(folder: Path, *names: str, source: str = "ssl") -> None:
    for name in names:
        save_backbone(tiny(), folder / f"{name}.safetensors", name=name, **{**TINY, "source": source})


def test_a_name_goes_before_a_source_of_the_same_word(folder: Path) -> None:
    named(folder, "our-vic", "ssl")
    assert find("ssl", "resnet10").passport.name == "ssl"
    assert find("our-vic", "resnet10").passport.name == "our-vic"
    (folder / "ssl.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"weights ssl for resnet10: expected ssl\.safetensors"):
        find("ssl", "resnet10")


def test_a_source_of_which_several_files_are_here_stands_for_none_of_them(folder: Path) -> None:
    named(folder, "chests", "hands", source="medical")
    expected = (
        r"train\.weights: expected one checkpoint for resnet10 that medical stands for, "
        rf"found chests \(chests.safetensors\), hands \(hands.safetensors\) in {folder}; name"
    )
    with pytest.raises(WeightsError, match=expected):
        find("medical", "resnet10")
    (folder / "chests.safetensors").unlink()
    assert find("medical", "resnet10").passport.name == "hands"


def test_two_files_of_one_name_are_not_told_apart_by_their_order(folder: Path) -> None:
    named(folder, "chests", "hands", source="medical")
    path = folder / "hands.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": "chests"}))
    with pytest.raises(WeightsError, match=r"found chests \(chests.safetensors\), chests \(hands.safetensors\) .* change `name`"):
        find("chests", "resnet10")
    path.unlink()
    (folder / "chests-copied.json").write_text((folder / "chests.json").read_text())  # one file, told of twice
    assert find("chests", "resnet10").path == folder / "chests.safetensors"


def test_a_published_file_goes_before_added_ones_of_its_source(folder: Path) -> None:
    named(folder, "aardvark", "beetle", source="imagenet")
    for path in (folder / "aardvark.json", folder / "beetle.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "backbone": "resnet18"}))
    with pytest.raises(WeightsError, match=r"found aardvark \(.*\), beetle \(.*\) in"):
        find("imagenet", "resnet18", download=False)
    (folder / "resnet18-f37072fd.pth").write_bytes(b"")
    assert find("imagenet", "resnet18").passport.name == "torchvision-resnet18-v1"


def test_a_passport_by_the_name_of_another_source_is_not_taken_for_it(folder: Path) -> None:
    named(folder, "imagenet", "whole")
    with pytest.raises(WeightsError, match=r"imagenet\.json: expected a name that is no other source's, got .* of source ssl"):
        find("imagenet", "resnet18")
    assert list(passports.broken(folder)) == ["imagenet"]
    assert find("whole", "resnet10").passport.name == "whole"


@pytest.mark.parametrize("source", sorted({each.source for each in (*PASSPORTS, *LAYOUTS.values())}))
def test_every_source_is_among_the_words_that_name_no_checkpoint(source: str, folder: Path) -> None:
    assert source in SOURCES
    assert passports.taken(source, folder)


def test_saving_twice_gives_the_same_bytes(saved: Found, tmp_path: Path) -> None:
    again = save_backbone(tiny(), tmp_path / "again" / saved.path.name, name="phantom-tiny", **TINY)
    assert again.path.read_bytes() == saved.path.read_bytes()
    assert again.path.with_suffix(".json").read_bytes() == saved.path.with_suffix(".json").read_bytes()


def test_a_checkpoint_altered_in_one_byte_is_refused(saved: Found) -> None:
    content = bytearray(saved.path.read_bytes())
    content[-1] ^= 1
    saved.path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"phantom-tiny.safetensors: expected SHA-256 {saved.passport.sha256}, got .* delete"):
        load(fresh(), saved)


def test_the_hash_is_checked_before_the_file_is_read(saved: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors.torch, "load", lambda _content: pytest.fail("read before it was checked"))
    saved.path.write_bytes(b"anything")
    with pytest.raises(WeightsError, match="SHA-256"):
        load(fresh(), saved)


def test_a_pickle_that_would_run_code_is_refused(folder: Path, saved: Found) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
            return print, ("ran",)

    torch.save({"conv1.weight": Evil()}, folder / "evil.pth")
    found = Found(replace(saved.passport, file="evil.pth", sha256=sha256(folder / "evil.pth")), folder / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil\.pth: expected safetensors, or a state dict"):
        load(fresh(), found)


def rewritten(saved: Found, state: dict[str, Tensor]) -> Found:
    path = saved.path.with_name("rewritten.safetensors")
    safetensors.torch.save_file(state, path)
    return Found(replace(saved.passport, file=path.name, sha256=sha256(path)), path)


def test_a_missing_tensor_is_named(saved: Found) -> None:
    state = safetensors.torch.load_file(saved.path)
    del state["layer3.0.bn1.running_var"]
    with pytest.raises(
        WeightsError, match=r"does not fit resnet10.*: missing layer3\.0\.bn1\.running_var; of another shape none"
    ):
        load(fresh(), rewritten(saved, state))


def test_a_deeper_network_of_the_same_names_is_refused(saved: Found) -> None:
    """A resnet34's tensors hold all of a resnet18's, in equal shapes: only what is left over tells."""
    state = safetensors.torch.load_file(saved.path)
    state["layer1.1.conv1.weight"] = state["layer1.0.conv1.weight"].clone()
    with pytest.raises(WeightsError, match=r"missing none; of another shape none; left over layer1\.1\.conv1\.weight"):
        load(fresh(), rewritten(saved, state))


def test_a_wider_network_of_the_same_names_is_refused(saved: Found) -> None:
    state = safetensors.torch.load_file(saved.path)
    state["conv1.weight"] = torch.zeros(64, 3, 7, 7)
    with pytest.raises(WeightsError, match=re.escape("of another shape conv1.weight (64, 3, 7, 7) for (16, 3, 7, 7)")):
        load(fresh(), rewritten(saved, state))


def test_two_tensors_that_claim_one_place_are_refused(saved: Found) -> None:
    state = safetensors.torch.load_file(saved.path)
    state["module.bn1.weight"] = state["bn1.weight"].clone()
    found = rewritten(saved, state)
    both = replace(found.passport, key_map=passports.KeyMap(replace=((r"^module\.", ""),)))
    with pytest.raises(WeightsError, match=r"left over (module\.)?bn1\.weight"):
        load(fresh(), Found(both, found.path))


def test_a_training_checkpoint_around_the_state_is_explained(folder: Path, saved: Found) -> None:
    torch.save({"epoch": 3, "state_dict": {}}, folder / "training.pth")
    passport = replace(saved.passport, file="training.pth", sha256=sha256(folder / "training.pth"))
    with pytest.raises(WeightsError, match="expected names and tensors, got keys epoch, state_dict; save the state dict alone"):
        load(fresh(), Found(passport, folder / "training.pth"))


def test_the_wrong_stride_is_caught(saved: Found) -> None:
    network = fresh()
    network.trunk.get_submodule("conv1").stride = (1, 1)
    with pytest.raises(WeightsError, match="expected a network that shrinks an image 32 times, resnet10 shrinks it 16 times"):
        load(network, saved)


def average_instead_of_maximum(network: Network) -> None:
    network.trunk.maxpool = nn.AvgPool2d(3, 2, 1)


def one_activation_less(network: Network) -> None:
    network.trunk.get_submodule("layer3.0").act = nn.Identity()


def exchanged_statistics(network: Network) -> None:
    network.trunk.get_submodule("layer2.0.bn1").eps = 1.0


@pytest.mark.parametrize("spoil", [average_instead_of_maximum, one_activation_less, exchanged_statistics])
def test_golden_features_catch_one_wrong_layer(saved: Found, spoil: Callable[[Network], None]) -> None:
    """Names, shapes and strides are right in all of these."""
    network = fresh()
    spoil(network)
    with pytest.raises(WeightsError, match=r"expected golden features .* a layer of resnet10 differs"):
        load(network, saved)


def test_weights_that_are_not_numbers_are_refused_even_without_golden_features(saved: Found) -> None:
    state = safetensors.torch.load_file(saved.path)
    state["layer4.0.conv2.weight"][0] = torch.nan
    found = rewritten(saved, state)
    with pytest.raises(WeightsError, match="nan"):
        load(fresh(), Found(replace(found.passport, golden=()), found.path))


def test_another_normalisation_than_the_passports_is_refused(saved: Found) -> None:
    network = build("resnet10", outputs=1, dropout=0, normalisation=Normalisation((0, 0, 0), (1, 1, 1)))
    with pytest.raises(WeightsError, match="build it with the passport's normalisation"):
        load(network, saved)


def test_another_backbone_than_the_passports_is_refused(saved: Found) -> None:
    with pytest.raises(WeightsError, match="expected backbone resnet10, got resnet18"):
        load(fresh(), Found(replace(saved.passport, backbone="resnet18"), saved.path))


def test_the_first_passport_whose_file_is_there_is_found(folder: Path, offline: list[str]) -> None:
    for file in ("mobilenet_v2-imagenet1k.safetensors", "mobilenet_v2-7ebf99e0.pth"):
        (folder / file).write_bytes(b"")
        found = find("imagenet", "mobilenet_v2")
        assert (found.passport.file, found.path, offline) == (file, folder / file, [])


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("backbone", ["resnet34", "efficientnet_b4", "vit_b16", "seresnet50"])
def test_without_file_and_network_the_error_names_folder_file_address_and_remedy(
    backbone: str, folder: Path, offline: list[str]
) -> None:
    passport = next(passport for passport in PASSPORTS if passport.backbone == backbone)
    with pytest.raises(WeightsError) as caught:
        find("imagenet", backbone)
    assert offline == [passport.url]
    for part in (str(folder), passport.file, str(passport.url), "RADTRANSFER_WEIGHTS", "network is unreachable"):
        assert part in str(caught.value)


def test_nothing_is_downloaded_where_that_is_not_wanted(folder: Path, offline: list[str]) -> None:
    with pytest.raises(WeightsError, match=rf"expected resnet18-f37072fd\.pth in {folder}, found none"):
        find("imagenet", "resnet18", download=False)
    assert offline == []


@pytest.mark.parametrize("name", ["resnet10", "resnet18"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str, saved: Found) -> None:
    known = {"resnet10": "phantom, phantom-tiny", "resnet18": "imagenet, torchvision-resnet18-v1"}[name]
    with pytest.raises(WeightsError, match=rf"train\.weights: expected a passport for {name} \({known}\), got 'radimagenet'"):
        find("radimagenet", name)


def test_a_passport_of_another_backbone_is_named_as_such(saved: Found) -> None:
    with pytest.raises(WeightsError, match="got 'phantom-tiny'; it fits resnet10"):
        find("phantom-tiny", "resnet18")


def downloads(monkeypatch: pytest.MonkeyPatch, content: bytes, expected: bytes) -> None:
    """A publisher who serves `content` for a passport that expects `expected`."""
    digest = hashlib.sha256(expected).hexdigest()
    passport = replace(PASSPORTS[0], name="served", sha256=digest[:8], file="served.pth")
    monkeypatch.setattr(passports, "PASSPORTS", (passport,))
    monkeypatch.setattr(urllib.request, "urlopen", lambda _url, timeout: io.BytesIO(content))


def test_a_download_takes_its_place_in_the_weights_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads(monkeypatch, b"weights", b"weights")
    assert find("imagenet", "resnet18").path.read_bytes() == b"weights"
    assert [path.name for path in folder.iterdir()] == ["served.pth"]


def test_a_download_with_another_hash_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads(monkeypatch, b"weigh", b"weights")
    with pytest.raises(WeightsError, match=r"served\.pth: expected SHA-256"):
        find("imagenet", "resnet18")
    assert list(folder.iterdir()) == []


def test_json_files_of_others_are_ignored_unless_named(folder: Path, saved: Found) -> None:
    (folder / "theirs.json").write_text(json.dumps({"name": "theirs", "architecture": "unknown"}))
    (folder / "list.json").write_text("[1]")
    (folder / "broken.json").write_text("{")
    assert find("phantom", "resnet10") == saved
    with pytest.raises(WeightsError, match=rf"{folder}/theirs\.json is there, but its format is not radtransfer-passport/1"):
        find("theirs", "resnet10")


def test_a_passport_that_is_not_valid_matters_only_to_who_names_it(folder: Path, saved: Found) -> None:
    values = {**saved.passport.to_dict(), "name": "bad", "source": "bad", "file": "../../bad.pth"}
    (folder / "bad.json").write_text(json.dumps(values))
    assert find("phantom", "resnet10") == saved
    with pytest.raises(WeightsError, match=r"bad\.json: expected file: a plain file name"):
        find("bad", "resnet10")


@pytest.mark.parametrize("backbone", sorted(set(BACKBONES) - {"resnet10"}))
def test_every_published_backbone_has_an_imagenet_passport_with_an_address(backbone: str) -> None:
    assert [p for p in PASSPORTS if p.backbone == backbone and p.source == "imagenet" and p.url]


@pytest.mark.real
def test_the_real_mobilenet_computes_what_torchvisions_does(
    shared: Path, monkeypatch: pytest.MonkeyPatch, images: Tensor, offline: list[str]
) -> None:
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(shared / "weights"))
    found = find("imagenet", "mobilenet_v2")
    network = build("mobilenet_v2", outputs=1, dropout=0, normalisation=found.passport.normalisation).eval()
    report = load(network, found)
    reference = torchvision.models.mobilenet_v2(weights=None).eval()
    reference.load_state_dict(safetensors.torch.load_file(found.path))
    reference.classifier = nn.Identity()
    with torch.no_grad():
        expected = reference.double()(three_channels(images.double(), Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))))
        assert (network.double().features(images.double()) - expected).abs().max() <= 1e-5
    assert (report.matched, report.missing, len(report.left_over)) == (312, (), 2)
    assert report.sha256 == json.loads((shared / "weights" / "mobilenet_v2-imagenet1k.json").read_text())["sha256"]
    assert offline == []
