"""The fold of the first convolution: the same outputs, edges included, the same gradients, the same weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.models.backbones import build
from pipelines.models.first_layer import FoldedConv2d, folds, one_channel
from pipelines.models.provenance import Normalisation

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
EQUAL = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# kernel, stride, padding, dilation: ResNet's, MobileNet's, VGG's, a transformer's, Inception's, and odd ones
SHAPES = [(7, 2, 3, 1), (3, 2, 1, 1), (3, 1, 1, 1), (16, 16, 0, 1), (3, 2, 0, 1), (5, 3, 4, 1), (3, 1, 2, 2)]
SIZES = [(32, 32), (33, 47), (17, 16)]


def three_channels(layer: nn.Conv2d, images: Tensor, normalisation: Normalisation) -> Tensor:
    """The definition: three equal channels, normalised one by one, padded with zeros after that."""
    mean, std = (torch.tensor(values, dtype=images.dtype).view(1, -1, 1, 1) for values in (normalisation.mean, normalisation.std))
    given = (images.expand(-1, layer.in_channels, -1, -1) - mean) / std
    return functional.conv2d(given, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation)


@pytest.mark.parametrize("normalisation", [IMAGENET, EQUAL], ids=["uneven", "equal"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_one_channel_gives_what_three_equal_ones_do(
    shape: tuple[int, int, int, int], size: tuple[int, int], normalisation: Normalisation
) -> None:
    kernel, stride, padding, dilation = shape
    if kernel > min(size):
        size = (32, 32)
    torch.manual_seed(1)
    layer = nn.Conv2d(3, 8, kernel, stride, padding, dilation)
    images = torch.rand(3, 1, *size)
    expected = three_channels(layer, images, normalisation)
    folded = FoldedConv2d.of(layer, normalisation)
    for given in (images, images.expand(-1, 3, -1, -1)):
        assert (folded(given) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_edges_need_their_correction() -> None:
    """Without it, what sees the padding is wrong where the means differ: the comparison above can fail."""
    torch.manual_seed(1)
    layer, images = nn.Conv2d(3, 8, 7, 2, 3), torch.rand(1, 1, 32, 32)
    folded = FoldedConv2d.of(layer, IMAGENET)
    assert folded.edges == (2, 2)
    folded.edges = (0, 0)
    wrong = (folded(images) - three_channels(layer, images, IMAGENET)).abs().amax(dim=(0, 1)) > 1e-4
    assert wrong[2:-2, 2:-2].sum() == 0
    assert wrong[0].all()
    assert wrong[:, 0].all()


def test_gradients_are_those_of_three_channels() -> None:
    """So that training takes the same steps, and a published recipe keeps its meaning."""
    torch.manual_seed(1)
    layer = nn.Conv2d(3, 8, 7, 2, 3)
    folded, images = FoldedConv2d.of(copy.deepcopy(layer), IMAGENET), torch.rand(2, 1, 32, 40)
    pull = torch.randn(2, 8, 16, 20)
    (three_channels(layer, images, IMAGENET) * pull).sum().backward()
    (folded(images) * pull).sum().backward()
    torch.testing.assert_close(folded.weight.grad, layer.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(folded.bias.grad, layer.bias.grad, rtol=1e-4, atol=1e-4)
    assert torch.autograd.gradcheck(
        lambda weight: _edges_only(folded, weight, images[:, :, :9, :9].double()), layer.weight.detach().double().requires_grad_()
    )


def _edges_only(folded: FoldedConv2d, weight: Tensor, images: Tensor) -> Tensor:
    layer = FoldedConv2d.of(nn.Conv2d(3, 8, 7, 2, 3, bias=False).double(), IMAGENET)
    return torch.func.functional_call(layer, {"weight": weight}, (images,))[:, :2]


def test_ten_steps_of_training_end_at_the_same_weights() -> None:
    torch.manual_seed(1)
    one = build("resnet10", outputs=1, dropout=0.0, normalisation=IMAGENET).double().train()
    three, images = copy.deepcopy(one), torch.rand(4, 1, 32, 32, dtype=torch.float64)
    for network, given in ((one, images), (three, images.expand(-1, 3, -1, -1))):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        for _ in range(10):
            optimizer.zero_grad()
            network(given).square().sum().backward()
            optimizer.step()
    for key, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, three.state_dict()[key], rtol=1e-6, atol=1e-8)


def test_the_published_weights_stay_in_the_state() -> None:
    torch.manual_seed(1)
    layer = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
    folded = FoldedConv2d.of(layer, IMAGENET)
    assert list(folded.state_dict()) == ["weight"]
    assert folded.weight is layer.weight
    assert build("resnet18", outputs=1, dropout=0, normalisation=IMAGENET).trunk.state_dict()["conv1.weight"].shape == (
        64,
        3,
        7,
        7,
    )


@pytest.mark.parametrize("channels", [3, 1])
def test_what_follows_stays_channels_last(channels: int) -> None:
    """A map of one channel does not say by itself how it lies; the layers behind would all run in the slower order."""
    layer = FoldedConv2d.of(nn.Conv2d(channels, 8, 7, 2, 3), Normalisation(IMAGENET.mean[:channels], IMAGENET.std[:channels]))
    layer.to(memory_format=torch.channels_last)
    assert layer(torch.rand(2, 1, 32, 32)).is_contiguous(memory_format=torch.channels_last)


def test_a_copy_folds_for_itself() -> None:
    network = build("resnet10", outputs=1, dropout=0, normalisation=IMAGENET).eval()
    twin, image = copy.deepcopy(network), torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(image), twin(image))
        twin.trunk.get_submodule("conv1").weight.mul_(2)
        assert not torch.equal(network(image), twin(image))


@pytest.mark.parametrize("name", ["resnet10", "mobilenet_v2", "vit_b16", "timm:test_convnext"])
def test_weights_of_one_channel_make_a_network_of_one_channel(name: str) -> None:
    grey = Normalisation((0.5,), (1 / 2048,))
    network = build(name, outputs=1, dropout=0, normalisation=grey).eval()
    layer = network.trunk.get_submodule(str(network.backbone.first))
    images = torch.rand(1, 1, 64, 64)
    assert layer.in_channels == 1
    expected = functional.conv2d((images * 2 - 1) * 1024, layer.weight, layer.bias, layer.stride, layer.padding)
    assert (layer(images) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert network.normalisation.mean == (0.5,)
    assert network.features(images).shape == (1, network.width)


def test_weights_of_one_channel_need_a_first_layer_that_takes_them() -> None:
    with pytest.raises(ValueError, match="cannot take the weights of one channel"):
        build("timm:tf_efficientnet_lite0", outputs=1, dropout=0, normalisation=Normalisation((0.5,), (0.5,)))


def test_summed_weights_answer_to_one_channel_as_to_three() -> None:
    layer, image = nn.Conv2d(3, 4, 3, padding=1), torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(one_channel(layer)(image), layer(image.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(3, 4, 3), True),
        (nn.Conv2d(3, 4, 3, padding="same"), False),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), False),
        (nn.Conv2d(3, 6, 3, groups=3), False),
        (nn.Linear(3, 4), False),
    ],
)
def test_only_a_plain_convolution_is_folded(layer: nn.Module, expected: bool) -> None:
    assert folds(layer) == expected
