from __future__ import annotations

import numpy as np
import pytest

from pipelines.transfer.solvers import SOLVERS, Linear

NAN = float("nan")


def blobs(outputs: int = 1, images: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Four features of other scales; each output is one of them above its mean."""
    generator = np.random.default_rng(2)
    features = generator.normal(size=(images, 4)) * [1, 10, 0.1, 100] + [0, 50, 1, -300]
    labels = (features > features.mean(axis=0)).astype(float)[:, :outputs]
    return features, labels


@pytest.mark.parametrize("kind", SOLVERS)
def test_the_answers_are_those_of_scikit_learn_on_standardised_features(kind: str) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    features, labels = blobs()
    models = {
        "logistic_regression": LogisticRegression(C=0.1, tol=1e-6, max_iter=5000),
        "linear_svm": LinearSVC(C=0.1, dual="auto", random_state=0, intercept_scaling=10.0, max_iter=5000),
    }
    standard = StandardScaler().fit(features)
    model = models[kind].fit(standard.transform(features), labels[:, 0])
    found = SOLVERS[kind].fit(features, labels, None, 10.0, exclusive=False)
    assert found.logits(features)[:, 0] == pytest.approx(model.decision_function(standard.transform(features)), abs=1e-5)


@pytest.mark.parametrize("kind", SOLVERS)
def test_an_unknown_label_leaves_the_image_out_for_that_output_only(kind: str) -> None:
    features, labels = blobs(outputs=2)
    holed = labels.copy()
    holed[:20, 1] = NAN
    whole, found = (SOLVERS[kind].fit(features, own, None, 1.0, exclusive=False) for own in (labels, holed))
    apart = SOLVERS[kind].fit(features[20:], labels[20:, 1:], None, 1.0, exclusive=False)
    assert found.weight[0] == pytest.approx(whole.weight[0])
    assert found.weight[1] == pytest.approx(apart.weight[0])


def test_a_positive_of_weight_three_counts_like_three_images() -> None:
    features, labels = blobs()
    thrice = np.repeat(np.arange(60), np.where(labels[:, 0] == 1, 3, 1))
    solver = SOLVERS["logistic_regression"]
    # standardised alike, so that the regularisation means the same
    mean, scale = features.mean(axis=0), features.std(axis=0)
    standard = (features - mean) / scale
    repeated = solver.several(standard[thrice], labels[thrice, 0], np.ones(len(thrice)), 1.0)
    weighted = solver.several(standard, labels[:, 0], np.where(labels[:, 0] == 1, 3.0, 1.0), 1.0)
    assert weighted[0] == pytest.approx(repeated[0], abs=1e-3)
    folded = solver.fit(features, labels, np.array([3.0]), 1.0, exclusive=False).weight
    assert folded * scale == pytest.approx(weighted[0], abs=1e-6)


@pytest.mark.parametrize("kind", SOLVERS)
@pytest.mark.parametrize("classes", [2, 3])
def test_exclusive_classes_are_told_apart(kind: str, classes: int) -> None:
    generator = np.random.default_rng(5)
    truth = generator.integers(0, classes, 90)
    features = generator.normal(size=(90, 3)) * 0.3 + np.eye(3)[truth]
    labels = np.eye(classes)[truth]
    labels[::9] = NAN
    found = SOLVERS[kind].fit(features, labels, np.ones(classes), 1.0, exclusive=True)
    assert found.weight.shape == (classes, 3)
    assert (found.logits(features).argmax(axis=1) == truth).mean() > 0.9


def test_raising_adds_the_logarithm_of_the_weights() -> None:
    raised = Linear(np.ones((2, 1)), np.zeros(2)).raised(np.array([1.0, np.e]))
    assert raised.bias == pytest.approx([0, 1])
