"""The figure of clusters: cosines at the first split, and which client was where."""

import math

import numpy as np
import pytest

from experiments_manager.monitoring.plots import canvas
from experiments_manager.monitoring.plots.clusters import MOST_LABELS, clusters_figure, cosines_of, history_of


def split(number, cluster, *groups):
    """A split at a round, after which groups are alone; each cosine tells its round."""
    numbers = sorted(sum(groups, []))
    return {
        "round": number,
        "cluster": cluster,
        "proc_ids": numbers,
        "groups": list(groups),
        "cosines": np.full((len(numbers), len(numbers)), number / 10).tolist(),
    }


SPLITS = [split(2, 0, [0, 2], [1, 3]), split(4, 1, [1, 7], [3])]
CLUSTERS = [[0, 2], [1, 7], [3]]
ORDER = [0, 2, 1, 7, 3]


def test_a_pair_has_the_cosine_of_the_first_split_that_both_were_in():
    cosines = cosines_of(ORDER, SPLITS)
    assert cosines[0, 1] == cosines[0, 4] == cosines[2, 4] == 0.2
    assert cosines[2, 3] == cosines[3, 4] == 0.4
    assert math.isnan(cosines[0, 3])


def test_each_client_is_in_the_cluster_that_splits_put_it_in():
    history = history_of(ORDER, CLUSTERS, SPLITS, 5)
    assert history.tolist() == [[0] * 5, [0] * 5, [0, 1, 1, 1, 1], [0, 0, 0, 1, 1], [0, 1, 1, 2, 2]]


@pytest.mark.parametrize("clients", [4, MOST_LABELS + 60])
def test_few_and_many_clients_are_drawn(clients):
    groups = [list(range(0, clients, 2)), list(range(1, clients, 2))]
    figure = clusters_figure(groups, [split(1, 0, *groups)], 3)
    svg = canvas.encode(figure, ".svg").decode()
    assert f"0: {clients // 2} clients" in svg
    assert len(figure.axes[0].get_yticks()) == (clients if clients <= MOST_LABELS else 2)
