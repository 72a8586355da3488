"""Ten clients, of whom five see digits upside down, are split into the right two groups."""

import numpy as np
import pytest

from tests.helpers.federations import FakeGrid, arrays_of, numpy_of, one_round, reply_to, strategy_of

CLIENTS = 10
LAW = {number: number % 2 for number in range(CLIENTS)}


@pytest.fixture(scope="module")
def digits():
    images, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 8, 8)
    parts = np.array_split(np.random.default_rng(0).permutation(len(images)), CLIENTS)
    return [(images[part], labels[part]) for part in parts]


def descended(weights, images, labels, rate=0.5):
    """Gives weights of a softmax regression after one pass in batches of 32."""
    kernel, bias = weights["kernel"].copy(), weights["bias"].copy()
    for start in range(0, len(images), 32):
        x, y = images[start : start + 32].reshape(-1, 64), labels[start : start + 32]
        scores = np.exp(x @ kernel + bias)
        error = scores / scores.sum(axis=1, keepdims=True)
        error[np.arange(len(y)), y] -= 1
        kernel -= np.float32(rate / len(y)) * (x.T @ error)
        bias -= np.float32(rate / len(y)) * error.sum(axis=0)
    return {"kernel": kernel, "bias": bias}


def federation_of(digits, turned, strategy):
    def answer(message):
        number = message.metadata.dst_node_id - 100
        images, labels = digits[number]
        images = np.rot90(images, 2, axes=(1, 2)) if turned[number] else images
        return reply_to(message, number, descended(numpy_of(message.content["arrays"]), images, labels), len(images))

    arrays = arrays_of(kernel=np.zeros((64, 10), "float32"), bias=np.zeros(10, "float32"))
    for server_round in range(1, 16):
        arrays, _ = one_round(strategy, server_round, arrays, FakeGrid(range(100, 100 + CLIENTS), answer))
    return strategy


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        {"strategy": "ClusteredCosine"},
        {"strategy": "ClusteredCosine", "options": {"split_rounds": [2]}},
        {"strategy": "ClusteredSpectral"},
    ],
    ids=["cosine", "cosine at a round", "spectral"],
)
def test_two_rotations_are_two_clusters_and_one_is_one(digits, setting):
    split = federation_of(digits, LAW, strategy_of(setting))
    assert [cluster.proc_ids for cluster in split.clusters] == [(0, 2, 4, 6, 8), (1, 3, 5, 7, 9)]
    assert split.clustered.score(LAW) == 1.0
    alike = federation_of(digits, dict.fromkeys(LAW, 0), strategy_of(setting))
    assert len(alike.clusters) == 1
