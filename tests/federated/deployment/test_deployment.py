"""A federation over processes of Flower: one SuperLink, SuperNodes, TLS and keys."""

import urllib.error
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest

from experiments_manager.common.machine.addresses import free_port
from experiments_manager.common.machine.processes import processes_with
from experiments_manager.federated.deployment.server import Deployment, running_server
from experiments_manager.federated.flower import flower
from tests.helpers.superlinks import TIMEOUT, DeployedClient, run_round
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """A server whose federation ends with the last test, and two clients that take part."""
    flower()
    from experiments_manager.federated.deployment.certificates import make_certificates, make_key_pair

    folder = tmp_path_factory.mktemp("federation")
    certificates = make_certificates(folder / "tls", ["127.0.0.1"])
    public_keys = [make_key_pair(folder / f"key{number}") for number in (1, 2)]
    make_key_pair(folder / "unknown")
    port = free_port()
    clients = [
        DeployedClient(folder, port, certificates.ca_certificate, folder / f"key{number}", number) for number in (1, 2)
    ]
    deployment = Deployment.make(
        f"127.0.0.1:{port}",
        certificate=certificates.certificate,
        key=certificates.key,
        public_keys=public_keys,
    )
    try:
        with running_server(deployment, home=folder / "server") as grid:
            wait_until(lambda: len(grid.get_node_ids()) == 2, TIMEOUT)
            yield SimpleNamespace(grid=grid, folder=folder, port=port, certificates=certificates, clients=clients)
        assert [client.process.wait(TIMEOUT) for client in clients] == [0, 0]
        assert not [pid for client in clients for pid in client.processes()]
        assert processes_with("FLWR_HOME", str(folder / "server")) == []
    finally:
        for client in clients:
            client.end()


def average(replies):
    """Gives the mean of the arrays, weighted by samples."""
    samples = np.array([reply.content["metrics"]["num-examples"] for reply in replies])
    arrays = np.stack([reply.content["arrays"]["w"].numpy() for reply in replies])
    return (samples[:, None] * arrays).sum(0) / samples.sum()


def test_three_rounds_average_what_the_clients_send_though_one_supernode_is_killed_and_started_again(federation):
    weights, pids, client = np.array([0.0, 1.0, 2.0]), set(), federation.clients[1]
    for number in (1, 2, 3):
        replies = run_round(federation.grid, weights, number)
        weights = average(replies)
        pids.add(tuple(reply.content["client"]["pid"] for reply in replies))
        if number == 1:
            client.kill_supernode()
            wait_until(client.has_supernode_again, TIMEOUT)
            wait_until(lambda: len(federation.grid.get_node_ids()) == 2, TIMEOUT)
    # Each round adds (1·1 + 2·2) / 3.
    np.testing.assert_allclose(weights, np.array([0.0, 1.0, 2.0]) + 3 * 5 / 3)
    assert len(pids) == 1, "the processes that hold the models were not those of the round before"


def test_a_client_that_was_killed_is_gone_with_its_supernode_and_takes_part_again_when_it_is_started(federation):
    client, first = federation.clients
    first.process.kill()
    first.process.wait()
    wait_until(lambda: first.supernode() is None, TIMEOUT)
    wait_until(lambda: len(federation.grid.get_node_ids()) == 1, TIMEOUT)
    assert [reply.content["client"]["proc-id"] for reply in run_round(federation.grid, np.zeros(2), 5)] == [1]

    ca_certificate, key = federation.certificates.ca_certificate, federation.folder / "key2"
    federation.clients[1] = DeployedClient(federation.folder, federation.port, ca_certificate, key, 2)
    wait_until(lambda: len(federation.grid.get_node_ids()) == 2, TIMEOUT)
    replies = run_round(federation.grid, np.zeros(2), 6)
    assert [reply.content["client"]["proc-id"] for reply in replies] == [1, 2]


def test_a_client_whose_key_is_not_known_is_refused(federation):
    ca_certificate, key = federation.certificates.ca_certificate, federation.folder / "unknown"
    client = DeployedClient(federation.folder, federation.port, ca_certificate, key, 3, refused_patience=0.0)
    try:
        assert client.process.wait(TIMEOUT) == 1
    finally:
        client.end()
    assert f"error: The key {key} is not known to the server at 127.0.0.1:{federation.port}," in client.log.read_text()
    assert not client.processes()


def test_a_client_does_not_speak_to_a_server_whose_certificate_another_authority_signed(federation):
    from experiments_manager.federated.deployment.certificates import make_certificates

    other = make_certificates(federation.folder / "other", ["127.0.0.1"]).ca_certificate
    client = DeployedClient(federation.folder, federation.port, other, federation.folder / "key1", 4)
    try:
        assert client.process.wait(TIMEOUT) == 1
    finally:
        client.end()
    said = client.log.read_text()
    assert f"error: The certificate of the server at 127.0.0.1:{federation.port} is not accepted:" in said
    assert f"signed by {other}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "path", ["/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/v1/fleet/../control/x"]
)
def test_other_machines_reach_nothing_of_the_superlink_but_what_supernodes_need(federation, path):
    import ssl

    context = ssl.create_default_context(cafile=str(federation.certificates.ca_certificate))
    request = urllib.request.Request(f"https://127.0.0.1:{federation.port}{path}", data=b"", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, context=context, timeout=TIMEOUT)
    refused.value.close()
    assert refused.value.code == 404
