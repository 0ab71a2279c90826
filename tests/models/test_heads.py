from __future__ import annotations

import math

import pytest
import torch
from tiny_networks import resnet, same, state
from torch import nn

from pipelines.errors import WeightsError
from pipelines.models import heads
from pipelines.models.heads import Neighbours, build, describe

NAN = float("nan")


def bank(labels: list[list[float]], neighbours: int, *, exclusive: bool = False) -> Neighbours:
    """Features at 0°, 90°, 180° and 270° of a circle, which standardisation leaves there."""
    corners = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])[: len(labels)]
    head = Neighbours(len(labels), 2, len(labels[0]), neighbours=neighbours, exclusive=exclusive)
    return head.remember(corners, torch.tensor(labels))


def test_the_nearest_neighbour_and_the_prevalence_vote_by_halves() -> None:
    """At 0° the first of four is nearest with a vote of 1; the prevalence 1/2 has a vote of 1 too."""
    head = bank([[1.0], [0.0], [1.0], [0.0]], neighbours=1)
    found = head(torch.tensor([[5.0, 0.0], [0.0, 2.0]])).sigmoid()
    assert found[:, 0].tolist() == pytest.approx([(1 + 0.5) / 2, (0 + 0.5) / 2], abs=1e-5)


def test_a_vote_falls_with_the_cosine_by_the_temperature() -> None:
    """At 0° the cosines are 1, 0, −1, 0: the two at 90° have votes of exp(−1 / 0.07), which is nothing."""
    head = bank([[1.0], [0.0], [1.0], [0.0]], neighbours=3)
    near = math.exp(-1 / heads.TEMPERATURE)
    expected = (1 + 0.5) / (1 + 2 * near + 1)
    assert head(torch.tensor([[1.0, 0.0]])).sigmoid().item() == pytest.approx(expected, abs=1e-6)


def test_an_unknown_label_has_no_vote() -> None:
    """The image at 0° says nothing of the second finding; the nearest that does are at 90°, both with it."""
    head = bank([[1.0, NAN], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], neighbours=1)
    found = head(torch.tensor([[1.0, 0.0]])).sigmoid()[0]
    assert found.tolist() == pytest.approx([0.75, (1 + 2 / 3) / 2], abs=1e-5)


def test_the_shares_of_exclusive_classes_sum_to_one() -> None:
    head = bank([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], neighbours=3, exclusive=True)
    logits = head(torch.randn(5, 2))
    assert torch.allclose(logits.exp().sum(dim=1), torch.ones(5), atol=1e-5)
    assert torch.allclose(logits.softmax(dim=1), logits.exp(), atol=1e-5)


@pytest.mark.parametrize(
    ("head", "description"),
    [
        (heads.linear(2, 1, 0.1), {"kind": "linear"}),
        (build({"kind": "mlp", "hidden": 7}, 2, 1, 0.1), {"kind": "mlp", "hidden": 7}),
        (
            bank([[1.0], [0.0], [1.0], [NAN]], neighbours=2),
            {"kind": "knn", "images": 4, "neighbours": 2, "exclusive": False},
        ),
    ],
    ids=["linear", "mlp", "knn"],
)
def test_a_head_is_built_again_from_its_description_and_its_state(head: nn.Module, description: dict[str, object]) -> None:
    assert describe(head) == description
    again = build(description, 2, 1, 0.1)
    again.load_state_dict(head.state_dict())
    features = torch.randn(3, 2)
    assert torch.equal(again.eval()(features), head.eval()(features))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(WeightsError, match="head: expected linear, mlp or knn, got 'forest'; a later radtransfer"):
        build({"kind": "forest"}, 2, 1, 0.1)


def test_standardisation_is_folded_into_the_first_layer() -> None:
    head, mean, scale = (
        build({"kind": "mlp", "hidden": 7}, 3, 2, 0.0),
        torch.tensor([1.0, 2.0, 3.0]),
        torch.tensor([2.0, 4.0, 0.5]),
    )
    features = torch.randn(5, 3)
    before = head((features - mean) / scale)
    heads.standardise(head, mean, scale)
    assert torch.allclose(head(features), before, atol=1e-5)


@pytest.mark.parametrize(("seed", "alike"), [(1, True), (2, False)])
def test_a_perceptron_follows_from_its_seed_and_is_as_large_as_said(seed: int, alike: bool) -> None:
    network = resnet(outputs=2)
    one, other = heads.perceptron(network, 9, 1), heads.perceptron(network, 9, seed)
    assert same(state(one), state(other)) == alike
    assert sum(parameter.numel() for parameter in one.parameters()) == heads.perceptron_size(network, 9)


def test_the_votes_follow_the_features_smoothly_so_that_saliency_has_a_gradient() -> None:
    head = bank([[1.0], [0.0], [1.0], [0.0]], neighbours=3)
    features = torch.tensor([[1.0, 0.4]], requires_grad=True)
    (gradient,) = torch.autograd.grad(head(features).sum(), features)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("exclusive", [False, True])
def test_neighbours_are_looked_for_a_few_images_at_a_time(monkeypatch: pytest.MonkeyPatch, exclusive: bool) -> None:
    head, features = bank([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], neighbours=3, exclusive=exclusive), torch.randn(10, 2)
    whole, looked = head(features), []
    monkeypatch.setattr(heads, "AT_ONCE", 4)
    monkeypatch.setattr(head, "_shares", lambda some, own=head._shares: looked.append(len(some)) or own(some))
    torch.testing.assert_close(head(features), whole)
    assert looked == [4, 4, 2]
    assert head(features[:0]).shape == (0, 2)


def test_half_precision_around_it_leaves_the_votes_as_they_are() -> None:
    head, features = bank([[1.0], [0.0], [1.0], [0.0]], neighbours=3), torch.randn(5, 2)
    with torch.autocast("cpu", torch.bfloat16):
        cast = head(features)
    assert torch.equal(cast, head(features))


def test_a_feature_that_was_silent_in_every_remembered_image_does_not_drown_the_others() -> None:
    """Nine features know the label; a tenth speaks for the first time, a little, and all sixteen images vote."""
    labels = (torch.arange(16) % 2).float()[:, None]
    features = torch.cat([labels.repeat(1, 9) + 0.1 * torch.rand(16, 9), torch.zeros(16, 1)], dim=1)
    head = Neighbours(16, 10, 1, neighbours=16, exclusive=False).remember(features, labels)
    asked = features.clone()
    asked[:, 9] = 0.05 * torch.rand(16)
    assert torch.equal(head(asked) > 0, labels == 1)
    assert (head(asked) - head(features)).abs().max() < 0.1


def test_features_are_standardised_by_a_tenth_of_a_usual_deviation_at_least() -> None:
    features = torch.tensor([[3.0, 4.0, 0.01, 7.0], [-3.0, -4.0, -0.01, 7.0]])
    least = 0.1 * (25.0001 / 4) ** 0.5
    assert heads.spread(features).tolist() == pytest.approx([3.0, 4.0, least, least])
    assert heads.spread(torch.ones(3, 2)).min() > 0
