"""What clustered strategies compute groups with: similarity, bipartition, spectrum, and the score."""

import itertools

import numpy as np
import pytest

from experiments_manager.federated.strategies.grouping import (
    adjusted_rand_index,
    bipartition,
    compared,
    largest_across,
    separation,
    similarity,
    spectral_groups,
)


def updates(directions, noise=0.1, size=300, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(directions) + 1, size))
    return [{"a": centres[d] + noise * rng.normal(size=size), "b": np.zeros(2)} for d in directions]


def cosines_of(directions, centred=True, **options):
    return similarity(updates(directions, **options), ["a", "b"], [1] * len(directions), centred).cosines


def test_cosines_are_those_of_the_flattened_updates():
    pair = [{"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}, {"a": np.array([0.0, 5.0]), "b": np.array([[5.0]])}]
    alike = similarity(pair, ["a", "b"], [1, 3], centred=False)
    assert alike.cosines[0, 1] == pytest.approx(20 / (5 * 50**0.5))
    assert alike.norms.tolist() == pytest.approx([5, 50**0.5])
    assert alike.mean_norm == pytest.approx(np.linalg.norm([0.75, 3.75, 4.75]))


def test_an_update_of_zero_is_like_no_other():
    alike = similarity([{"a": np.zeros(2)}, {"a": np.ones(2)}], ["a"], [1, 1], centred=False)
    assert alike.cosines.tolist() == [[1, 0], [0, 1]]


def test_equal_updates_have_nothing_left_when_centred():
    alike = similarity([{"a": np.full(7, 0.1)}] * 3, ["a"], [1] * 3, centred=True)
    assert alike.cosines.tolist() == np.eye(3).tolist()


def test_statistics_of_the_data_are_not_compared():
    names = ["dense/kernel", "batch_normalization/moving_mean", "batch_normalization/gamma"]
    assert compared(names, ["*moving_mean"]) == ["dense/kernel", "batch_normalization/gamma"]


@pytest.mark.parametrize("seed", range(5))
def test_the_bipartition_is_the_best_of_all(seed):
    cosines = np.corrcoef(np.random.default_rng(seed).normal(size=(7, 4)))
    found = bipartition(cosines)
    every = [labels for labels in itertools.product([0, 1], repeat=7) if 0 < sum(labels) < 7]
    assert largest_across(cosines, found) == min(largest_across(cosines, list(labels)) for labels in every)
    assert found[0] == 0


@pytest.mark.parametrize("directions", [[0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2, 2], [0, 1, 2, 3] * 3, [0, 0, 0, 0]])
def test_the_gap_between_eigenvalues_tells_how_many_groups_there_are(directions):
    found = spectral_groups(cosines_of(directions, centred=len(set(directions)) > 1))
    assert found == directions


@pytest.mark.parametrize("count", [2, 3, 4])
def test_groups_are_those_of_scikit_learn(count):
    cluster = pytest.importorskip("sklearn.cluster")
    directions = np.random.default_rng(count).integers(0, count, size=20).tolist()
    cosines = cosines_of(directions, noise=0.5)
    theirs = cluster.SpectralClustering(
        count, affinity="precomputed", assign_labels="cluster_qr", random_state=0
    ).fit_predict(np.maximum(cosines, 0))
    assert adjusted_rand_index(spectral_groups(cosines, count), theirs.tolist()) == 1.0
    assert adjusted_rand_index(directions, theirs.tolist()) == 1.0


def test_groups_do_not_depend_on_the_order_of_clients():
    directions = [0, 1, 2, 0, 1, 2, 1, 1]
    cosines, order = cosines_of(directions), np.random.default_rng(1).permutation(8)
    found = spectral_groups(cosines[np.ix_(order, order)])
    assert adjusted_rand_index(found, [directions[place] for place in order]) == 1.0


def test_a_client_that_is_like_no_other_does_not_stop_the_spectrum():
    cosines = np.eye(4)
    cosines[0, 1] = cosines[1, 0] = 0.9
    assert len(set(spectral_groups(cosines, 3))) == 3


def test_noise_does_not_look_separate():
    rng = np.random.default_rng(0)
    alike = similarity([{"a": rng.normal(size=2000)} for _ in range(10)], ["a"], [1] * 10, centred=True)
    assert abs(separation(alike.cosines, spectral_groups(alike.cosines, 2))) < 0.15
    assert separation(cosines_of([0, 0, 1, 1]), [0, 0, 1, 1]) > 1.5


@pytest.mark.parametrize("seed", range(4))
def test_the_score_is_that_of_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, 3, 20).tolist(), rng.integers(0, 4, 20).tolist()
    assert adjusted_rand_index(one, other) == pytest.approx(metrics.adjusted_rand_score(one, other))


def test_the_score_of_the_same_groups_under_other_names_is_one():
    assert adjusted_rand_index([0, 0, 1, 2], ["b", "b", "c", "a"]) == 1.0
    assert adjusted_rand_index([0, 0, 0], [0, 0, 0]) == 1.0
    assert adjusted_rand_index([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx(-0.5)
