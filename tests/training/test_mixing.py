from __future__ import annotations

import math

import pytest
import torch

from pipelines.training.loss import Loss
from pipelines.training.mixing import blend, mixed

NAN = float("nan")


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [
        (torch.arange(4.0)[:, None, None, None] + 10 * number, torch.tensor([[0.0], [1.0], [NAN], [1.0]])) for number in (0, 1)
    ]


def test_a_mixture_is_so_much_of_one_and_the_rest_of_the_other() -> None:
    assert blend(torch.tensor([4.0]), torch.tensor([8.0]), 0.75).item() == 5.0


def test_images_and_labels_are_mixed_in_the_same_pairs_and_shares() -> None:
    inputs, labels = torch.arange(64.0)[:, None], torch.arange(64.0)[:, None]
    ((images, mixture),) = mixed([(inputs, labels)], 1.0, (1, 2))
    assert torch.equal(images, mixture)
    assert not torch.equal(images, inputs)
    assert images.mean().item() == pytest.approx(inputs.mean().item())


def test_the_seed_decides_and_without_an_alpha_nothing_is_mixed() -> None:
    def images(alpha: float, *seed: int) -> torch.Tensor:
        return torch.cat([inputs for inputs, _ in mixed(batches(), alpha, seed)])

    assert torch.equal(images(0.4, 1), images(0.4, 1))
    assert not torch.equal(images(0.4, 1), images(0.4, 2))
    assert torch.equal(images(0.0, 1), torch.cat([inputs for inputs, _ in batches()]))


def test_a_label_that_is_unknown_in_one_of_a_pair_is_unknown_in_the_mixture() -> None:
    labels = blend(torch.tensor([[1.0, NAN], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [NAN, 0.0]]), 0.25)
    assert labels[0, 0].item() == 0.25
    assert labels[1, 1].item() == 0.25
    assert labels.isnan().tolist() == [[False, True], [True, False]]


def test_the_loss_of_a_mixture_by_hand_counts_what_is_known_in_both() -> None:
    """Logit 0 has the loss log 2 whatever the label; logit 1 with the label ¼ has log(1 + e) − ¼."""
    labels = blend(torch.tensor([[1.0], [1.0], [NAN]]), torch.tensor([[1.0], [0.0], [1.0]]), 0.25)
    logits = torch.tensor([[0.0], [1.0], [50.0]])
    expected = (math.log(2) + math.log(1 + math.e) - 0.25) / 2
    assert Loss(exclusive=False, soft=True)(logits, labels).item() == pytest.approx(expected, rel=1e-6)


def test_the_loss_of_mixed_classes_by_hand() -> None:
    """Softmax of (0, log 3) is (¼, ¾): −¼ log ¼ − ¾ log ¾ for the label (¼, ¾); the unknown row does not count."""
    labels = blend(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [NAN, NAN]]), 0.25)
    logits = torch.tensor([[0.0, math.log(3)], [9.0, -9.0]])
    expected = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    assert Loss(exclusive=True, soft=True)(logits, labels).item() == pytest.approx(expected, rel=1e-6)
