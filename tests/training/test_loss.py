from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipelines.errors import TrainingError
from pipelines.records import Task
from pipelines.training.loss import Loss, loss_for, probabilities

NAN = float("nan")
BINARY = Task("binary", ("opacity",))
MULTILABEL = Task("multilabel", ("opacity", "effusion"))
MULTICLASS = Task("multiclass", ("finding",), ("none", "bacterial", "viral"))


def test_a_positive_weighs_negatives_over_positives() -> None:
    labels = np.array([[1, 0], [0, 0], [0, NAN], [0, 1], [NAN, 1]], np.float32)
    weights = loss_for(MULTILABEL, labels, "balanced").weights
    assert weights is not None
    assert weights.tolist() == [3.0, 1.0]


def test_a_class_weighs_images_over_classes_times_its_images() -> None:
    labels = np.array([[1, 0, 0]] * 6 + [[0, 1, 0]] * 2 + [[0, 0, 1]] + [[NAN] * 3], np.float32)
    weights = loss_for(MULTICLASS, labels, "balanced").weights
    assert weights is not None
    assert weights.tolist() == pytest.approx([9 / 18, 9 / 6, 9 / 3])


@pytest.mark.parametrize("task", [BINARY, MULTICLASS], ids=["binary", "multiclass"])
def test_shifted_back_logits_that_minimise_the_weighted_loss_are_those_of_the_prevalence(task: Task) -> None:
    """Of images that all look alike, 10 in 60 are of the first class, 20 of the second, 30 of the third."""
    hot = np.repeat(np.eye(3, dtype=np.float32), (10, 20, 30), axis=0)
    labels = torch.from_numpy(hot if task.kind == "multiclass" else hot[:, :1])
    loss = loss_for(task, labels.numpy(), "balanced")
    logits = torch.zeros(labels.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], lr=1, max_iter=200, tolerance_grad=1e-9)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(logits.expand_as(labels), labels)
        value.backward()
        return value

    optimizer.step(closure)
    assert loss.shift is not None
    found = probabilities((logits - loss.shift).detach()[None], exclusive=loss.exclusive)[0]
    assert found.tolist() == pytest.approx([1 / 6, 1 / 3, 1 / 2][: labels.shape[1]], abs=1e-3)


def test_without_class_weighting_all_weigh_alike() -> None:
    assert loss_for(BINARY, np.array([[1], [0], [0]], np.float32), "none").weights is None


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        (BINARY, [[0], [0]], "train part, output opacity: expected images with and without it, got 0 with and 2 without"),
        (BINARY, [[1], [NAN]], "output opacity: .* got 1 with and 0 without"),
        (MULTILABEL, [[1, 0], [0, 0]], "output effusion: .* got 0 with and 2 without"),
        (MULTICLASS, [[1, 0, 0], [0, 1, 0]], "output viral: .* got 0 with and 2 without"),
    ],
)
def test_an_output_with_one_class_only_is_refused(task: Task, labels: list[list[float]], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        loss_for(task, np.array(labels, np.float32), "balanced")


def test_the_weighted_binary_loss_by_hand() -> None:
    logits, labels = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [0.0]])
    expected = (3 * math.log(2) + math.log(1 + math.exp(2))) / 2
    assert Loss(exclusive=False, weights=torch.tensor([3.0]))(logits, labels).item() == pytest.approx(expected, rel=1e-6)


def test_the_weighted_class_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    expected = (1 * math.log(4) + 3 * math.log(2)) / 4
    assert Loss(exclusive=True, weights=torch.tensor([1.0, 3.0]))(logits, labels).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("exclusive", [False, True])
def test_an_unknown_label_changes_neither_loss_nor_gradient(exclusive: bool) -> None:
    logits = torch.tensor([[0.3, -1.0], [0.5, 2.0], [9.0, -9.0]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [NAN, NAN]])
    loss = Loss(exclusive)(logits, labels)
    assert loss.item() == pytest.approx(Loss(exclusive)(logits[:2], labels[:2]).item())
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[2].tolist() == [0.0, 0.0]
    assert gradient[:2].abs().min() > 0


def test_one_unknown_label_of_several_leaves_the_others_in() -> None:
    logits = torch.tensor([[0.0, 5.0]])
    assert Loss(exclusive=False)(logits, torch.tensor([[1.0, NAN]])).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_batch_without_any_label_has_no_loss_and_can_be_learnt_from(exclusive: bool) -> None:
    logits = torch.ones((2, 2), requires_grad=True)
    loss = Loss(exclusive)(logits, torch.full((2, 2), NAN))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_probabilities_of_classes_sum_to_one_and_of_findings_need_not() -> None:
    logits = torch.tensor([[0.0, 0.0]])
    assert probabilities(logits, exclusive=True).tolist() == [[0.5, 0.5]]
    assert probabilities(logits + 20, exclusive=False).sum() > 1.99


def test_smoothed_labels_by_hand() -> None:
    """A positive of 0.9 + 0.05: with logit 2 the loss is log(1 + e²) − 0.95 · 2."""
    loss = Loss(exclusive=False, smoothing=0.1)(torch.tensor([[2.0], [5.0]]), torch.tensor([[1.0], [NAN]]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(2)) - 1.9, rel=1e-6)


def test_smoothed_classes_by_hand() -> None:
    """Of three classes the true one has 0.7 + 0.1, the others 0.1 each; logits 0, 0, log 2 are shares ¼, ¼, ½."""
    loss = Loss(exclusive=True, smoothing=0.3)(torch.tensor([[0.0, 0.0, math.log(2)]]), torch.tensor([[0.0, 0.0, 1.0]]))
    assert loss.item() == pytest.approx(-0.2 * math.log(0.25) - 0.8 * math.log(0.5), rel=1e-6)


@pytest.mark.parametrize("exclusive", [False, True])
def test_soft_labels_that_are_hard_have_the_same_loss(exclusive: bool) -> None:
    logits, labels = torch.tensor([[0.3, -1.0], [0.5, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    weights = torch.tensor([3.0, 0.5])
    hard, soft = (Loss(exclusive, weights, soft=soft)(logits, labels) for soft in (False, True))
    assert soft.item() == pytest.approx(hard.item(), rel=1e-6)


def test_what_is_judged_has_labels_as_they_are() -> None:
    loss = loss_for(BINARY, np.array([[1], [0], [0]], np.float32), "balanced", smoothing=0.2, soft=True)
    assert (loss.smoothing, loss.soft) == (0.2, True)
    assert (loss.judging.smoothing, loss.judging.soft) == (0.0, False)
    assert loss.judging.weights is loss.weights
