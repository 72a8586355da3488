"""Shares of the same arrays for the clients of a federation."""

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from experiments_manager.data import DataFileError, client_indices, client_share, label_counts

LABELS = np.arange(100) % 10


@given(
    labels=st.lists(st.integers(0, 9), min_size=24, max_size=200).map(np.array),
    partitions=st.integers(1, 8),
    by=st.sampled_from(["iid", "dirichlet", "shards"]),
    alpha=st.floats(1e-6, 1e6),
    min_samples=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_every_sample_is_in_exactly_one_share(labels, partitions, by, alpha, min_samples, seed):
    smallest_shard = len(labels) // (2 * partitions)
    assume(by != "shards" or 2 * smallest_shard >= min_samples)  # else refused where a client gets two of these
    options = {"labels": labels, "alpha": alpha, "min_samples": min_samples, "seed": seed}
    plan = client_indices(len(labels), partitions, by, **options)
    assert sorted(np.concatenate(plan)) == list(range(len(labels)))
    assert len(plan) == partitions
    assert min(map(len, plan)) >= min_samples
    for first, again in zip(plan, client_indices(len(labels), partitions, by, **options), strict=True):
        assert np.array_equal(first, again)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=8, max_size=100, unique=True), partitions=st.integers(1, 8))
def test_by_a_column_each_client_has_one_interval(values, partitions):
    column = np.array(values)
    shares = [column[indices] for indices in client_indices(len(column), partitions, "column", column=column)]
    assert sorted(np.concatenate(shares)) == sorted(values)
    for lower, upper in zip(shares, shares[1:], strict=False):
        assert lower.max() < upper.min()


def test_values_that_are_no_real_numbers_are_grouped():
    column = np.array(["b", "a", "c", "a", "d"])
    plan = client_indices(5, 2, "column", column=column)
    assert [set(column[indices]) for indices in plan] == [{"a", "b"}, {"c", "d"}]


def test_edges_bound_the_intervals():
    plan = client_indices(4, 2, "column", column=np.array([3, 0, 9, 2]), edges=[3])
    assert [list(indices) for indices in plan] == [[1, 3], [0, 2]]


def test_shares_of_iid_are_equal_in_size_and_differ_by_the_seed():
    assert [len(indices) for indices in client_indices(11, 3)] == [4, 4, 3]
    assert not np.array_equal(client_indices(100, 2, seed=0)[0], client_indices(100, 2, seed=1)[0])


def test_a_small_alpha_gives_a_client_fewer_labels_than_a_large_one():
    labels = np.arange(1000) % 10
    few, all_alike = (
        label_counts(client_indices(1000, 10, "dirichlet", labels=labels, alpha=alpha), labels)[1]
        for alpha in (0.05, 1e6)
    )
    assert (few > 0).sum() < 40
    assert np.ptp(all_alike) <= 2


def test_a_client_has_as_many_labels_as_shards():
    labels = np.arange(100) % 10
    _, counts = label_counts(client_indices(100, 5, "shards", labels=labels), labels)
    assert ((counts > 0).sum(axis=1) == 2).all()


def test_labels_are_counted_by_client():
    names, counts = label_counts([np.array([0, 1]), np.array([2])], ["b", "a", "b"])
    assert (list(names), counts.tolist()) == (["a", "b"], [[1, 1], [0, 1]])


def test_a_share_has_the_nest_of_the_arrays():
    x = np.arange(6).reshape(6, 1)
    parts = [client_share(({"x": x, "more": [x]}, x[:, 0], None), client, 2) for client in range(2)]
    for inputs, y, weight in parts:
        assert np.array_equal(inputs["x"][:, 0], y)
        assert np.array_equal(inputs["more"][0][:, 0], y)
        assert weight is None
    assert sorted(np.concatenate([y for _, y, _ in parts])) == list(range(6))


def test_without_a_client_all_samples_are_returned():
    arrays = (LABELS, LABELS)
    assert client_share(arrays, None, None, by="dirichlet") is arrays


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"by": "dirichlets"}, "by is 'dirichlets'. Expected one of iid, dirichlet, shards, column."),
        ({"partition": 4}, "partition is 4. Expected a whole number from 0 to 3"),
        ({"partition": -1}, "partition is -1."),
        ({"partitions": None}, "partitions is None. Expected a whole number from 1."),
        ({"min_samples": 26}, "100 samples cannot be split among 4 clients with at least 26 each."),
        ({"by": "dirichlet"}, "labels is missing, which dirichlet needs."),
        ({"by": "dirichlet", "labels": np.eye(10)[LABELS]}, "labels has the shape [100, 10]. Expected [100]"),
        ({"by": "dirichlet", "labels": LABELS, "alpha": 0}, "alpha is 0. Expected a number from 1e-6"),
        ({"by": "dirichlet", "labels": LABELS, "alpha": float("nan")}, "alpha is nan."),
        ({"by": "shards", "labels": LABELS, "shards_per_client": 26}, "cannot be cut into 4 x 26 shards."),
        ({"by": "column", "column": LABELS > 4}, "column has 2 distinct values"),
        ({"by": "column", "column": LABELS, "edges": [1, 1, 2]}, "edges are [1, 1, 2]. Expected 3 increasing numbers"),
        ({"by": "column", "column": LABELS, "edges": [1, 2, 50]}, "Split by column, client 3 gets 0 samples."),
        ({"by": "column", "column": np.full(100, np.nan)}, "column[0] is nan. Expected finite numbers."),
        (
            {"by": "column", "column": np.array(["a", None] * 50, object)},
            "column[1] is None. Expected values, not missing",
        ),
        ({"by": "dirichlet", "labels": np.array(["NaT"] * 100, "M8[D]")}, "labels[0] is NaT."),
        ({"arrays": (LABELS, LABELS[1:])}, "arrays[0]: 100, arrays[1]: 99"),
        ({"arrays": ()}, "arrays holds no array."),
        ({"arrays": {"x": 3}}, "arrays['x'] is a int. Expected an array of shape [samples, ...]."),
    ],
)
def test_what_cannot_be_split_is_refused(options, problem):
    given_options = {"arrays": LABELS, "partition": 0, "partitions": 4} | options
    with pytest.raises(DataFileError, match=re.escape(problem)):
        client_share(**given_options)
