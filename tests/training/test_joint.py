"""Several tasks on one network: what each adds to the loss, what it leaves alone, and how much it counts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.errors import ConfigurationError, TrainingError
from pipelines.metrics.discrimination import auroc
from pipelines.metrics.numbers import concordance
from pipelines.records import Head, Task
from pipelines.training.answers import above, likeliest, tell
from pipelines.training.batches import Examples
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.joint import Joint, Regression, apart, loss_of, require_judgeable, scales
from pipelines.training.judging import judge
from pipelines.training.learn import learn
from pipelines.training.listener import Silence
from pipelines.training.loop import Fitted
from pipelines.training.loss import Loss, loss_for
from pipelines.training.material import Features
from pipelines.training.rate_finder import sweep
from pipelines.transfer.strategies import plan

Make = Callable[..., Any]
NAN = float("nan")
GRADES = ("none", "mild", "severe")
HEADS = {
    "binary": Head("binary", ("fracture",), name="fracture"),
    "multilabel": Head("multilabel", ("effusion", "oedema"), name="fluid"),
    "multiclass": Head("multiclass", ("view",), ("PA", "AP", "LL"), name="view"),
    "ordinal": Head("ordinal", ("grade",), GRADES, name="severity"),
    "regression": Head("regression", ("years",), name="age", unit="years"),
}
TASK = Task("binary", ("opacity",), also=tuple(HEADS.values()))
RANDOM = np.random.default_rng(2)
IMAGES = 24


def labels(images: int = IMAGES, seed: int = 2) -> pd.DataFrame:
    """Every label is known, and every class is there."""
    random, number = np.random.default_rng(seed), np.arange(images)
    return pd.DataFrame(
        {
            "opacity": number % 2.0,
            "fracture": number // 2 % 2.0,
            "effusion": number // 3 % 2.0,
            "oedema": (number + 1) % 2.0,
            "view": np.array(["PA", "AP", "LL"])[random.permutation(number) % 3],
            "grade": np.array(GRADES)[random.permutation(number) % 3],
            "years": random.normal(50, 10, images),
        }
    )


def only(kind: str, **changes: Any) -> Task:
    return Task("binary", ("opacity",), also=(HEADS[kind],), **changes)


def loss(task: Task, known: NDArray[np.float32], **options: Any) -> Joint:
    found = loss_of(task, known, "balanced", **options)
    assert isinstance(found, Joint)
    return found


def test_each_task_owns_columns_one_after_the_other() -> None:
    assert TASK.width == 1 + 1 + 2 + 3 + 2 + 1 == TASK.everything(labels()).shape[1]
    assert [own.shape[1] for own in apart(TASK, TASK.everything(labels()))] == [1, 1, 2, 3, 2, 1]


def test_an_ordinal_label_says_of_each_step_whether_it_is_taken_once_the_one_before_is() -> None:
    matrix = HEADS["ordinal"].matrix(pd.DataFrame({"grade": ["none", "mild", "severe", None, "unheard of"]}))
    assert np.array_equal(matrix, [[0, NAN], [1, 0], [1, 1], [NAN, NAN], [NAN, NAN]], equal_nan=True)


def test_a_single_task_has_the_loss_that_it_always_had() -> None:
    single, matrix = Task("binary", ("opacity",)), TASK.everything(labels())[:, :1]
    found, expected = loss_of(single, matrix, "balanced"), loss_for(single, matrix, "balanced")
    assert isinstance(found, Loss)
    assert torch.equal(found.weights, expected.weights)  # type: ignore[arg-type]


def single(head: Head, known: NDArray[np.float32], **options: Any) -> Loss | Regression:
    if head.kind != "regression":
        return loss_for(head, known, "balanced", **options)
    return Regression(float(known.mean(dtype=np.float64)), float(known.std(dtype=np.float64)))


@pytest.mark.parametrize("options", [{}, {"smoothing": 0.1}, {"soft": True}], ids=["hard", "smoothed", "soft"])
def test_the_loss_is_the_sum_of_those_of_the_single_tasks_by_their_weights(options: dict[str, Any]) -> None:
    weights = (1.0, 0.5, 2.0, 0.25, 3.0, 0.1)
    heads = [dataclasses.replace(head, weight=weight) for head, weight in zip(TASK.also, weights[1:], strict=True)]
    task = dataclasses.replace(TASK, also=tuple(heads))
    known, logits = TASK.everything(labels()), torch.randn(IMAGES, TASK.width)
    expected = sum(
        weight * single(head, own, **options)(said, torch.from_numpy(own))
        for weight, head, own, said in zip(
            weights, task.heads, apart(task, known), logits.split([len(head.columns) for head in task.heads], 1), strict=True
        )
    )
    assert loss(task, known, **options)(logits, torch.from_numpy(known)).item() == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
@pytest.mark.parametrize("kind", HEADS)
def test_gradients_come_from_known_labels_only(kind: str, weighting: str) -> None:
    task = only(kind, weighting=weighting)
    known = task.everything(labels())
    found = loss(task, known)
    holed = known.copy()
    holed[::2, 1:] = NAN
    holed[1::2, 0] = NAN
    logits = torch.randn(IMAGES, task.width, requires_grad=True)
    (gradient,) = torch.autograd.grad(found(logits, torch.from_numpy(holed)), logits)
    assert torch.equal(gradient != 0, torch.from_numpy(~np.isnan(holed)))


@pytest.mark.parametrize("kind", HEADS)
def test_a_task_without_a_known_label_in_a_batch_counts_for_nothing_there(kind: str) -> None:
    task = only(kind, weighting="uncertainty")
    known = task.everything(labels())
    found = loss(task, known)
    blind = known.copy()
    blind[:, 1:] = NAN
    logits = torch.randn(IMAGES, task.width, requires_grad=True)
    value = found(logits, torch.from_numpy(blind))
    alone = loss_for(Task("binary", ("opacity",)), known[:, :1], "balanced")(logits[:, :1], torch.from_numpy(known[:, :1]))
    assert value.item() == pytest.approx(alone.item(), rel=1e-6)
    assert found.log_variances is not None
    gradient, learned = torch.autograd.grad(value, (logits, found.log_variances))
    assert gradient.isfinite().all()
    assert gradient[:, 1:].abs().max() == 0
    assert learned[1] == 0
    nothing = found(logits, torch.full((IMAGES, task.width), NAN))
    assert nothing.item() == 0
    assert torch.autograd.grad(nothing, logits)[0].abs().max() == 0


def test_the_squared_error_is_in_deviations_of_the_training_part() -> None:
    assert Regression(50, 10)(torch.tensor([[0.5], [9.0]]), torch.tensor([[70.0], [NAN]])).item() == pytest.approx(2.25)


def test_the_uncertainty_weighted_loss_by_hand() -> None:
    """Kendall, Gal and Cipolla (2018), section 3.2: L/σ² + log σ of the classification, L/(2 σ²) + log σ of the regression."""
    task = only("regression", weighting="uncertainty")
    found = loss(task, task.everything(labels()))
    assert found.log_variances is not None
    found.log_variances.data = torch.tensor([0.3, -0.4])
    logits, known = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 50.0]])
    regression = found.losses[1]
    assert isinstance(regression, Regression)
    squared = (1.0 - (50 - regression.mean) / regression.sd) ** 2
    expected = math.log(2) / math.exp(0.3) + 0.15 + squared / (2 * math.exp(-0.4)) - 0.2
    assert found(logits, known).item() == pytest.approx(expected, rel=1e-5)
    assert found.judging(logits, known).item() == pytest.approx(math.log(2) + squared, rel=1e-5)
    assert found.weights([0.3, -0.4])["age"]["weight"] == pytest.approx(0.5 / math.exp(-0.4))


def test_learned_variances_settle_where_the_losses_are() -> None:
    """The minimum of L/σ² + log σ is at σ² = 2 L, that of L/(2 σ²) + log σ at σ² = L."""
    task = only("regression", weighting="uncertainty")
    known = torch.from_numpy(task.everything(labels()))
    found, logits = loss(task, known.numpy()), torch.randn(IMAGES, 2)
    assert found.log_variances is not None
    optimizer = torch.optim.LBFGS([found.log_variances], max_iter=100, tolerance_grad=1e-9)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = found(logits, known)
        value.backward()
        return value

    optimizer.step(closure)
    binary, squares = (own(logits[:, k : k + 1], known[:, k : k + 1]).item() for k, own in enumerate(found.losses))
    assert found.log_variances.exp().tolist() == pytest.approx([2 * binary, squares], rel=1e-3)


def test_the_ordinal_loss_by_hand() -> None:
    """CORN: the first step of every image, the second of those beyond the first, one mean over all of these."""
    known = torch.from_numpy(HEADS["ordinal"].matrix(pd.DataFrame({"grade": ["none", "mild", "severe"]})))
    logits = torch.tensor([[1.0, 9.0], [0.5, -2.0], [-1.0, 3.0]])

    def cross_entropy(logit: float, taken: bool) -> float:
        return math.log1p(math.exp(-logit if taken else logit))

    terms = [(1.0, False), (0.5, True), (-1.0, True), (-2.0, False), (3.0, True)]
    expected = sum(cross_entropy(logit, taken) for logit, taken in terms) / 5
    assert loss_for(HEADS["ordinal"], known.numpy(), "none")(logits, known).item() == pytest.approx(expected, rel=1e-6)
    chances = above(logits)[2].tolist()
    assert chances == pytest.approx([1 / (1 + math.e), 1 / (1 + math.e) / (1 + math.exp(-3))])


def test_ordinal_chances_never_rise_from_step_to_step_whatever_the_logits() -> None:
    logits = 8 * torch.randn(200, 4)
    chances = above(logits)
    assert (chances[:, 1:] <= chances[:, :-1]).all()
    task = Task("binary", ("opacity",), also=(Head("ordinal", ("g",), tuple("abcde"), name="g"),))
    told = tell(task, torch.cat([logits[:, :1], logits], dim=1), {})[:, 1:]
    assert (told >= 0).all()
    assert told.sum(dim=1).tolist() == pytest.approx([1.0] * 200, abs=1e-5)


def test_the_class_of_an_ordinal_answer_is_the_median_and_of_another_the_likeliest() -> None:
    answers = np.array([[0.4, 0.3, 0.3], [0.2, 0.2, 0.6], [0.6, 0.0, 0.4]])
    assert likeliest(HEADS["ordinal"], answers).tolist() == [1, 2, 0]
    assert likeliest(HEADS["multiclass"], answers).tolist() == [0, 2, 0]


def test_values_are_told_in_their_unit() -> None:
    task = only("regression")
    assert tell(task, torch.tensor([[0.0, 1.5]]), {"age": (40.0, 10.0)}).tolist() == [[0.5, 55.0]]


def test_scales_are_of_the_known_values() -> None:
    task, known = only("regression"), labels()
    known.loc[::3, "years"] = NAN
    mean, sd = scales(task, task.everything(known))["age"]
    assert (mean, sd) == pytest.approx((known["years"].mean(), known["years"].std(ddof=0)), rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "column", "value", "message"),
    [
        ("binary", "fracture", 0.0, "train part, output fracture: expected images with and without it, got 0 with"),
        ("multiclass", "view", "PA", "train part, output view_PA: .* got 24 with and 0 without"),
        ("ordinal", "grade", "none", "train part, output severity > none: .* got 0 with and 24 without"),
        ("regression", "years", 50.0, "train part, task age: expected at least two different values, got 24 .* of 1 kinds"),
        ("regression", "years", NAN, "task age: expected at least two different values, got 0 known"),
    ],
)
def test_a_task_that_nothing_can_be_learnt_of_is_refused(kind: str, column: str, value: Any, message: str) -> None:
    task = only(kind)
    with pytest.raises(TrainingError, match=message):
        loss_of(task, task.everything(labels().assign(**{column: value})), "balanced")


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [
        ("binary", "fracture", 1.0),
        ("multilabel", "oedema", NAN),
        ("multiclass", "view", "PA"),
        ("ordinal", "grade", "none"),
        ("regression", "years", 50.0),
    ],
)
def test_a_task_that_cannot_be_judged_is_refused_before_anything_is_learnt(kind: str, column: str, value: Any) -> None:
    task = only(kind)
    require_judgeable(task, task.everything(labels()))
    with pytest.raises(TrainingError, match=f"validation part, task {HEADS[kind].name}: expected images that differ"):
        require_judgeable(task, task.everything(labels().assign(**{column: value})))


def test_an_ordinal_task_can_be_judged_by_any_two_of_its_classes() -> None:
    task, known = only("ordinal"), labels()
    known["grade"] = np.where(known["grade"] == "none", "mild", known["grade"])
    require_judgeable(task, task.everything(known))


def test_an_epoch_is_judged_by_the_mean_over_the_tasks_of_how_well_each_tells_high_from_low() -> None:
    heads = (dataclasses.replace(HEADS["regression"], weight=0.5), HEADS["ordinal"])
    task = Task("binary", ("opacity",), also=heads)
    table = labels()
    table.loc[::5, ["grade", "years"]] = [None, NAN]
    known, logits = task.everything(table), torch.randn(IMAGES, 4)
    module = torch.nn.Linear(4, 4)
    torch.nn.init.eye_(module.weight)
    torch.nn.init.zeros_(module.bias)
    found = loss(task, known)
    value, score = judge(module, Features(logits, torch.from_numpy(known)), found, 8, "fp32")
    ordinal = found.losses[2]
    assert isinstance(ordinal, Loss)
    ranks, said = task.also[1].ranks(table), above(ordinal.unweighted(logits[:, 2:])).numpy()
    there = ~np.isnan(ranks)
    steps = [auroc((ranks > k)[there], said[there, k]) for k in (0, 1)]
    parts = [auroc(known[:, 0], logits[:, 0].numpy()), concordance(known[:, 1], logits[:, 1].numpy()), np.mean(steps)]
    assert score == pytest.approx(np.average(parts, weights=[1, 0.5, 1]))
    assert value == pytest.approx(found.judging(logits, torch.from_numpy(known)).item())


LEARNT = Task("binary", ("opacity",), also=(HEADS["regression"], HEADS["ordinal"]), weighting="uncertainty")


@pytest.fixture
def several(examples: Make) -> tuple[Examples, Examples]:
    """Images with a blob where the label is 1; the years go with it, and some labels are unknown."""

    def part(count: int, seed: int) -> Examples:
        table = labels(count, seed)
        table["years"] = 40 + 20 * table["opacity"] + np.random.default_rng(seed).normal(0, 1, count)
        table.loc[::7, "opacity"] = NAN
        table.loc[::4, "years"] = NAN
        images = examples(table[["opacity"]].to_numpy(np.float32), count)
        return dataclasses.replace(images, labels=LEARNT.everything(table))

    return part(24, 1), part(20, 2)


def train(network: Any, parts: Any, settings: Any, task: Task = LEARNT, checkpoint: Any = None, listener: Any = None) -> Fitted:
    return learn(network, plan(network, settings.strategy), task, *parts, settings, listener or Silence(), checkpoint)


@pytest.mark.parametrize("strategy", ["differential", "feature_extraction", "gradual", "auto_rgn", "l2_sp", "scratch"])
def test_every_strategy_in_steps_learns_several_tasks(strategy: str, several: Any, network: Make, settings: Make) -> None:
    asked = settings(strategy, epochs=2, mixup=0.2, label_smoothing=0.1, ema=0.9)
    fitted = train(network(LEARNT.width), several, asked)
    assert 0 < fitted.validation_auroc < 1
    learned = fitted.details["task_weights"]
    assert set(learned) == {"opacity", "age", "severity"}
    assert all(entry["log_variance"] != 0 for entry in learned.values())


def test_what_is_learnt_is_every_task(several: Any, network: Make, settings: Make) -> None:
    net = network(LEARNT.width)
    train(net, several, settings(epochs=12, strategy_settings={"learning_rate": 0.01}))
    part = several[0]
    with torch.no_grad():
        said = torch.cat([net.eval()(images) for images in part.images([np.arange(24)], torch.device("cpu"))]).numpy()
    assert auroc(part.labels[:, 0], said[:, 0]) > 0.95
    assert concordance(part.labels[:, 1], said[:, 1]) > 0.65  # half of it is noise within the two groups


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
def test_a_killed_training_of_several_tasks_goes_on_to_the_bit(
    weighting: str, several: Any, network: Make, settings: Make, recorder: Make, tmp_path: Path
) -> None:
    task = dataclasses.replace(LEARNT, weighting=weighting)
    asked, checkpoint = settings(epochs=4), Checkpoint(tmp_path, "same")
    whole, interrupted, resumed = (network(LEARNT.width) for _ in range(3))
    expected = train(whole, several, asked, task)
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, several, asked, task, checkpoint, recorder(stop_in_epoch=3))
    found = train(resumed, several, asked, task, checkpoint)
    assert found.resumed_from == 2
    assert found.history == expected.history
    assert found.details == expected.details
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("strategy", "own", "remedy"),
    [
        ("feature_extraction", {"classifier": "logistic_regression"}, "choose train.strategy.classifier: linear or mlp"),
        ("feature_extraction", {"classifier": "knn"}, "choose train.strategy.classifier: linear or mlp"),
        ("lp_ft", {}, "choose another strategy, e.g. differential"),
    ],
)
def test_what_a_solver_finds_is_refused_for_several_tasks(
    strategy: str, own: dict[str, Any], remedy: str, several: Any, network: Make, settings: Make
) -> None:
    with pytest.raises(ConfigurationError, match=f"expected one that learns in steps .* {remedy}"):
        train(network(LEARNT.width), several, settings(strategy, strategy_settings=own))


def test_the_rate_finder_leaves_the_weights_of_tasks_alone(several: Any, network: Make, settings: Make) -> None:
    net, asked = network(LEARNT.width), settings("feature_extraction")
    known = torch.from_numpy(several[0].labels)
    joint = loss(LEARNT, several[0].labels)
    features = Features(torch.randn(len(known), net.width), known)
    found = sweep(net, plan(net, asked.strategy), features, joint, asked, steps=40)
    assert (found.losses > 0).all()
    assert joint.log_variances is not None
    assert joint.log_variances.tolist() == [0, 0, 0]
