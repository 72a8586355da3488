"""A server that ends and is started again, over processes of Flower and without TLS."""

import numpy as np
import pytest

from experiments_manager.common.machine.addresses import free_port
from experiments_manager.federated.deployment.server import Deployment, running_server
from tests.helpers.superlinks import TIMEOUT, DeployedClient, run_round
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.slow


class Crash(Exception):
    """What ends the rounds of the first server."""


def test_a_client_waits_for_a_server_that_ended_and_goes_on_with_the_next_one_in_the_same_process(tmp_path):
    port = free_port()
    deployment = Deployment.make(f"127.0.0.1:{port}", insecure=True)
    client = DeployedClient(tmp_path, port, None, None, 1)
    try:
        with (
            pytest.raises(Crash),
            running_server(deployment, home=tmp_path / "server") as grid,
        ):
            wait_until(grid.get_node_ids, TIMEOUT)
            (before,) = run_round(grid, np.zeros(2), 1)
            raise Crash
        with running_server(deployment, home=tmp_path / "server") as grid:
            wait_until(grid.get_node_ids, TIMEOUT)
            (after,) = run_round(grid, before.content["arrays"]["w"].numpy(), 2)
        assert client.process.wait(TIMEOUT) == 0
    finally:
        client.end()
    np.testing.assert_array_equal(after.content["arrays"]["w"].numpy(), np.full(2, 2.0))
    assert after.content["client"]["pid"] == before.content["client"]["pid"] == client.process.pid
