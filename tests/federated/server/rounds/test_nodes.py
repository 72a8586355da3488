"""Strategies find enough clients, always the same ones while a round is set up."""

import threading

import pytest

pytest.importorskip("flwr")

from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

from experiments_manager.federated.server.rounds.nodes import FixedNodes, nodes_needed, wait_for_nodes
from experiments_manager.federated.simulation.local_grid import LocalGrid
from tests.helpers.line_clients import line_client


def test_the_largest_of_all_minima_is_needed():
    assert nodes_needed(FedAvg(), 1) == 2
    assert nodes_needed(FedAvg(min_available_nodes=5), 3) == 5
    assert nodes_needed(FedAvg(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1), 4) == 4
    wrapped = DifferentialPrivacyServerSideFixedClipping(FedAvg(min_available_nodes=6), 0.1, 1.0, 3)
    assert nodes_needed(wrapped, 1) == 6
    assert nodes_needed(object(), 3) == 3


def test_waiting_ends_when_enough_are_there_when_time_is_up_or_when_it_should():
    grid = LocalGrid(line_client, [0])
    assert wait_for_nodes(grid, 1, timeout=None, should_stop=lambda: False) == [1000]
    assert wait_for_nodes(grid, 2, timeout=0.01, should_stop=lambda: False) == [1000]
    assert wait_for_nodes(grid, 2, timeout=None, should_stop=lambda: True) == [1000]
    joining = threading.Thread(target=grid.join, args=(1,))
    joining.start()
    assert wait_for_nodes(grid, 2, timeout=60, should_stop=lambda: False) == [1000, 1001]
    joining.join()


def test_who_comes_meanwhile_is_not_seen_before_the_next_round():
    grid = LocalGrid(line_client, [0, 1])
    fixed = FixedNodes(grid, grid.get_node_ids())
    grid.join(2)
    grid.leave(0)
    assert fixed.get_node_ids() == [1000, 1001]
    assert [node.node_id for node in fixed.get_nodes()] == [1000, 1001]
