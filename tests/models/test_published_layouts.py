"""Every published layout, proven on a checkpoint built from torchvision's or timm's own network: the features are the same."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from published_files import PUBLISHERS, Publisher, State, of_torchvision, randomised
from torch import Tensor, nn

from pipelines.errors import WeightsError
from pipelines.models import references
from pipelines.models.backbones import BACKBONES, Network, build
from pipelines.models.families import timm_nets
from pipelines.models.families.monai_nets import VisionTransformer
from pipelines.models.keymaps import KEY_MAPS, KeyMap
from pipelines.models.passports import Found, LoadReport, load, load_state
from pipelines.models.provenance import Passport
from pipelines.models.published import PASSPORTS

# uneven, and exact in single precision: the networks here are random, and some of them amplify rounding 10000 times
OWN_RANGE = {"grey": ((-1024.0, 1024.0), (0.0,), (1.0,)), "RGB": ((0.0, 1.0), (0.5, 0.4375, 0.40625), (0.25, 0.21875, 0.28125))}


def passport_of(publisher: Publisher, file: Path) -> Passport:
    channels = "grey" if publisher.channels == 1 else "RGB"
    input_range, mean, std = OWN_RANGE[channels]
    reduction = {"inception_v3": 64, "vit_b16": 16}.get(publisher.backbone, 32)
    return Passport(
        name="theirs",
        backbone=publisher.backbone,
        source="test",
        architecture="theirs",
        file=file.name,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        licence="none",
        key_map=publisher.key_map,
        trained_on="nothing",
        channels=channels,
        input_range=input_range,
        mean=mean,
        std=std,
        reduction=reduction,
    )


def theirs(images: Tensor, passport: Passport) -> Tensor:
    """Images as their publisher gives them to the network: in its range, in its channels, normalised by its numbers."""
    low, high = passport.input_range
    ranged = (images * (high - low) + low).expand(-1, len(passport.mean), -1, -1)
    return torchvision.transforms.functional.normalize(ranged, list(passport.mean), list(passport.std))


@dataclass(frozen=True)
class Pair:
    publisher: Publisher
    passport: Passport
    path: Path
    state: State
    images: Tensor
    expected: Tensor
    network: Network
    report: LoadReport


LARGE = ("vgg16", "vit_b16", "timm vit_b16")  # names and shapes of these are checked every day, their outputs at night
PARAMETERS = [pytest.param(name, marks=pytest.mark.nightly) if name in LARGE else name for name in PUBLISHERS]


@pytest.fixture(scope="module", params=PARAMETERS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A publisher's features in double precision, and the same file through its passport; one at a time, the file goes."""
    publisher = PUBLISHERS[request.param]
    reference = publisher.network()
    path = tmp_path_factory.mktemp("theirs") / "theirs.pth"
    state = publisher.write(reference, path)
    passport = passport_of(publisher, path)
    images = torch.rand(2, 1, publisher.size, publisher.size, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = publisher.features(reference).double()(theirs(images.double(), passport))
    del reference
    network = build(publisher.backbone, outputs=3, dropout=0.2, normalisation=passport.normalisation).eval()
    report = load(network, Found(passport, path))
    path.unlink()
    yield Pair(publisher, passport, path, state, images, expected, network, report)
    del network, state, expected
    gc.collect()


def test_features_are_those_of_the_publishers_network(pair: Pair) -> None:
    with torch.no_grad():
        actual = pair.network.double().features(pair.images.double())
    pair.network.float()
    scale = pair.expected.abs().max()
    assert (pair.expected[0] - pair.expected[1]).abs().max() > 0.01 * scale
    assert (actual - pair.expected).abs().max() <= 1e-4 * scale


def test_every_tensor_is_matched_and_only_the_classifier_left_over(pair: Pair) -> None:
    wanted = pair.network.trunk.state_dict()
    counters = [name for name in wanted if name.endswith("num_batches_tracked")]
    assert pair.report.matched + len(pair.report.missing) == len(wanted)
    assert list(pair.report.missing) == (counters if pair.publisher.key_map == "torchvision-densenet" else [])
    assert len(pair.report.left_over) == len([key for key in pair.state if key.startswith(pair.publisher.left_over or ("-",))])
    assert pair.report.matched + len(pair.report.left_over) == len(pair.state)


def exchanged(pair: Pair) -> KeyMap:
    """The publisher's key map with two equally shaped layers of ours in each other's place."""
    own, shapes = KEY_MAPS[pair.publisher.key_map], {}
    for name, tensor in pair.network.trunk.state_dict().items():
        if name.endswith(".weight") and tensor.ndim in (2, 4) and tensor.numel() < 3_000_000:
            shapes.setdefault(tuple(tensor.shape), []).append(name)
    one, other = next(names for names in shapes.values() if len(names) > 1)[:2]
    swap = ((rf"^{one}$", "\0"), (rf"^{other}$", one), ("^\0$", other))
    return replace(own, replace=(*own.replace, *swap))


def test_one_layer_in_anothers_place_is_caught_by_golden_features_and_by_the_publishers_network(pair: Pair) -> None:
    """The negative control: names, shapes, and stride are right; exactly two layers are exchanged."""
    found = references.compare(pair.network, pair.passport, pair.state)
    assert found is not None
    assert found <= references.TOLERANCE
    golden, wrong = pair.network.probe().fingerprint, replace(pair.passport, key_map=exchanged(pair))
    try:
        load_state(pair.network, wrong, lambda: pair.state, "")
        with pytest.raises(WeightsError, match="the key map puts a layer in another's place"):
            references.compare(pair.network, pair.passport, pair.state)
        with pytest.raises(WeightsError, match="expected golden features"):
            load_state(pair.network, replace(wrong, golden=golden), lambda: pair.state, "")
    finally:
        load_state(pair.network, pair.passport, lambda: pair.state, "")


TABLE = {passport.backbone: passport for passport in PASSPORTS if str(passport.key_map).startswith("torchvision-")}


@pytest.mark.parametrize("backbone", TABLE)
def test_torchvisions_names_and_shapes_become_ours_at_every_depth(backbone: str) -> None:
    """Without storage, so that the deep ones cost nothing."""
    passport = TABLE[backbone]
    options = {"init_weights": False} if backbone in ("inception_v3", "vgg16") else {}
    with torch.device("meta"):
        published = of_torchvision({"vit_b16": "vit_b_16"}.get(backbone, backbone), **options)().state_dict()
        wanted = build(backbone, outputs=1, dropout=0, normalisation=passport.normalisation).trunk.state_dict()
    keys = passport.keys
    named = keys.reshaped({keys.rename(key): value for key, value in published.items() if not keys.drops(key)})
    assert {name: value.shape for name, value in named.items()} == {name: value.shape for name, value in wanted.items()}


def test_torchvisions_own_table_says_the_same() -> None:
    """Addresses, hashes, means, deviations and sizes are those that torchvision's weights declare."""
    ours = {passport.url: passport for passport in PASSPORTS if passport.url and "pytorch.org" in passport.url}
    found = 0
    for backbone in BACKBONES:
        name = {"vit_b16": "vit_b_16"}.get(backbone, backbone)
        if name not in torchvision.models.list_models():
            continue
        for weights in torchvision.models.get_model_weights(name):
            if weights.url not in ours:
                continue
            found, passport, theirs = found + 1, ours[weights.url], weights.transforms()
            assert passport.backbone == backbone
            assert passport.sha256 in weights.url
            assert passport.input_size == theirs.crop_size[0]
            if backbone != "inception_v3":  # whose transform_input undoes these for -1 to 1
                assert (list(passport.mean), list(passport.std)) == (theirs.mean, theirs.std)
    assert found == len(ours)


def test_a_timm_encoder_computes_what_timm_does(tmp_path: Path) -> None:
    torch.manual_seed(4)
    for name in ("test_convnext", "test_vit", "test_efficientnet"):
        reference = timm.create_model(name, pretrained=False, num_classes=7)
        state = reference.state_dict()
        file = tmp_path / f"{name}.pth"
        torch.save(state, file)
        backbone = f"timm:{name}"
        passport = replace(
            passport_of(PUBLISHERS["resnet18"], file),
            backbone=backbone,
            key_map=timm_nets.key_map(name),
            reduction=16 if "vit" in name else 32,
        )
        network = build(backbone, outputs=1, dropout=0, normalisation=passport.normalisation).eval()
        report = load(network, Found(passport, file))
        assert len(report.left_over) == 2
        images = torch.rand(1, 1, 160, 160)
        reference.reset_classifier(0)
        with torch.no_grad():
            expected = reference.eval()(theirs(images, passport))
            assert (network.features(images) - expected).abs().max() <= 1e-4 * expected.abs().max()
        assert references.compare(network, passport, state) <= references.TOLERANCE


def test_a_transformers_class_token_takes_its_position_with_it() -> None:
    token, positions = torch.full((1, 1, 4), 2.0), torch.arange(12.0).reshape(1, 3, 4)
    state = {"cls_token": token, "patch_embedding.position_embeddings": positions}
    moved = KeyMap(steps=("class_position",)).reshaped(state)
    assert moved["cls_token"].flatten().tolist() == [2.0, 3.0, 4.0, 5.0]
    assert moved["patch_embedding.position_embeddings"].flatten().tolist() == list(range(4, 12))
    assert isinstance(state["cls_token"], Tensor)
    assert torch.equal(state["cls_token"], token)


def test_a_step_that_is_not_known_is_refused() -> None:
    with pytest.raises(WeightsError, match="expected steps of class_position, dense_excitation, got transpose"):
        KeyMap.from_dict({"steps": ["transpose"]})
    assert KeyMap.from_dict(KEY_MAPS["timm-vit"].to_dict()) == KEY_MAPS["timm-vit"]


def small_of_torchvision() -> nn.Module:
    return torchvision.models.VisionTransformer(224, 16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64)


def small_of_timm() -> nn.Module:
    return timm.models.VisionTransformer(224, 16, embed_dim=32, depth=2, num_heads=2, mlp_ratio=2.0)


@pytest.mark.parametrize(
    ("key_map", "make", "classifier"), [("torchvision-vit", small_of_torchvision, "heads"), ("timm-vit", small_of_timm, "head")]
)
def test_a_transformer_of_either_layout_computes_what_its_publishers_does(
    key_map: str, make: Callable[[], nn.Module], classifier: str
) -> None:
    """On a small one; the large ones are compared at night."""
    torch.manual_seed(3)
    reference, ours = randomised(make()), VisionTransformer(width=32, hidden=64, layers=2, heads=2).eval()
    for parameter in reference.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    keys = KEY_MAPS[key_map]
    state = {keys.rename(key): value for key, value in reference.state_dict().items() if not keys.drops(key)}
    ours.load_state_dict(keys.reshaped(state))
    setattr(reference, classifier, nn.Identity())
    images = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        expected = reference(images)
        assert (ours(images) - expected).abs().max() <= 1e-4 * expected.abs().max()
        positions = state["patch_embedding.position_embeddings"][:, 1:]
        ours.load_state_dict({**state, "patch_embedding.position_embeddings": positions})  # position 0 forgotten
        assert (ours(images) - expected).abs().max() > 1e-2 * expected.abs().max()
