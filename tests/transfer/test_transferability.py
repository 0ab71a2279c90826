"""Scores against their definitions, and against what they are for: the better features score higher."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from pipelines.transfer.transferability import SCORES, h_score, leep, logme, nleep, source_probabilities


def clouds(separation: float, images: int = 120, width: int = 24, seed: int = 3):
    """Features whose first axis tells two classes apart by `separation` deviations, and the classes."""
    random = np.random.default_rng(seed)
    classes = np.arange(images) % 2
    features = random.normal(size=(images, width))
    features[:, 0] += separation * classes
    return features, classes


@pytest.mark.parametrize("images", [16, 60], ids=["fewer images than features", "more images than features"])
def test_logme_is_the_largest_evidence_of_the_gaussian_it_describes(images):
    features, classes = clouds(2.0, images=images)

    def shortfall(logarithms: np.ndarray, target: np.ndarray) -> float:
        alpha, beta = np.exp(logarithms)
        covariance = features @ features.T / alpha + np.eye(images) / beta
        return -multivariate_normal(np.zeros(images), covariance).logpdf(target) / images

    members = [(classes == value).astype(float) for value in (0, 1)]
    largest = [-minimize(shortfall, (2.0, 2.0), args=(target,), method="Nelder-Mead").fun for target in members]
    assert logme(features, classes) == pytest.approx(np.mean(largest), abs=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_features_that_tell_the_classes_apart_score_higher(name):
    scores = [SCORES[name].compute(*clouds(separation)) for separation in (0.0, 2.0, 6.0)]
    assert scores == sorted(scores)
    assert scores[2] - scores[0] > 0.1


@pytest.mark.parametrize("name", SCORES)
def test_a_score_does_not_depend_on_the_names_of_the_classes(name):
    features, classes = clouds(2.0)
    assert SCORES[name].compute(features, classes) == pytest.approx(SCORES[name].compute(features, 7 - 4 * classes), abs=1e-9)


@pytest.mark.parametrize("name", SCORES)
def test_a_feature_that_never_varies_or_very_few_images_do_no_harm(name):
    features, classes = clouds(3.0, images=8)
    features[:, 1] = 4.0
    assert np.isfinite(SCORES[name].compute(features, classes))


def test_h_score_of_one_feature_is_the_correlation_ratio():
    # One feature is never shrunk; classes at -1 and 3 with deviations of ±1: between 4, in all 5.
    features = np.array([[-2.0], [0.0], [2.0], [4.0]])
    assert h_score(features, np.array([0, 0, 1, 1])) == pytest.approx(4 / 5)


def test_leep_by_hand():
    # P(y=0 | z) = (0.75 + 0.25, 0.25 + 0.75) / (1.25, 1.75) over images 1 and 2 of three.
    source = np.array([[0.75, 0.25], [0.25, 0.75], [0.25, 0.75]])
    first, second = 1 / 1.25, 1 / 1.75
    likelihoods = [0.75 * first + 0.25 * second, 0.25 * first + 0.75 * second, 0.25 * (1 - first) + 0.75 * (1 - second)]
    assert leep(source, np.array([0, 0, 1])) == pytest.approx(np.mean(np.log(likelihoods)))


def test_leep_of_answers_that_say_nothing_is_the_entropy_of_the_classes():
    assert leep(np.full((4, 3), 1 / 3), np.array([0, 1, 1, 1])) == pytest.approx(0.25 * np.log(0.25) + 0.75 * np.log(0.75))


def test_nleep_is_near_zero_where_clusters_are_classes():
    assert nleep(*clouds(40.0)) == pytest.approx(0.0, abs=1e-3)


def test_the_source_head_gives_probabilities():
    probabilities = source_probabilities(
        np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[np.log(3.0), 0.0], [0.0, 5.0]]), np.zeros(2)
    )
    np.testing.assert_allclose(probabilities, [[0.75, 0.25], [0.5, 0.5]])
