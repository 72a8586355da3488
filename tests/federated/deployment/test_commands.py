"""`federate server` and `federate client` in processes of their own, with SuperLink, SuperNodes, TLS and keys."""

import json

import numpy as np
import pytest

from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.common.machine.addresses import free_port
from experiments_manager.federated.flower import flower
from tests.helpers.federation_commands import SETTINGS, Command, processes_below, rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

INTERRUPTED = ExitCode.INTERRUPTED


@pytest.fixture
def commands(tmp_path):
    """Gives what starts commands, all of which have ended afterwards."""
    started = []
    (tmp_path / "mysettings.py").write_text(SETTINGS)

    def start(name, *arguments, **environment):
        started.append(Command(tmp_path, name, *arguments, **environment))
        return started[-1]

    yield start
    for command in started:
        command.end()


def weights(run_dir):
    """The global model's variables after the last round."""
    from experiments_manager.runs import open_run
    from experiments_manager.training.state.checkpoints import read_latest

    _, snapshot = read_latest(open_run(run_dir).checkpoints_dir)
    names = sorted(name for name in snapshot.tensors if name.startswith("epoch_trainer/global/"))
    return {name: np.asarray(snapshot.tensors[name]) for name in names}


def newest_checkpoint(run_dir):
    """The name of the checkpoint that a resume goes on from."""
    latest = run_dir / "checkpoints" / "latest"
    return latest.read_text().strip() if latest.exists() else None


def simulated(tmp_path):
    """The same after a simulation that nothing disturbed."""
    from experiments_manager import api

    settings = api.federation_settings(tmp_path / "mysettings.py")
    result = api.simulate_federation(settings, workers=1, working_dir=tmp_path / "runs", run_name="all", quiet=True)
    return weights(result.run_dir)


def test_a_federation_whose_server_and_client_are_killed_ends_with_the_bits_of_an_undisturbed_one(tmp_path, commands):
    flower()
    from experiments_manager.federated.deployment.certificates import make_certificates, make_key_pair

    tls = make_certificates(tmp_path / "tls", ["127.0.0.1"])
    public_keys = [make_key_pair(tmp_path / f"key{number}") for number in (0, 1)]
    address = f"127.0.0.1:{free_port()}"
    secure = ("--certificate", tls.certificate, "--key", tls.key, "--public-keys", *public_keys)
    place = ("--address", address, "--working-dir", "runs", "--run-name", "deployed")
    run_dir, begun = tmp_path / "runs" / "deployed", tmp_path / "begun"

    def client(number, **environment):
        how = ("--server", address, "--ca-certificate", tls.ca_certificate, "--private-key", tmp_path / f"key{number}")
        place = ("--proc-id", number, "--working-dir", f"of_client{number}")
        return commands(f"client{number}", "federate", "client", "mysettings.py", *how, *place, **environment)

    server = commands("server", "federate", "server", "mysettings.py", *place, *secure)
    first, second = client(0), client(1, BEGUN=str(begun))
    second.wait_for(begun.exists)
    second.kill()  # in the midst of the first round, which is begun anew when it is there again
    second = client(1)
    server.wait_for(lambda: newest_checkpoint(run_dir) == "epoch-00001-step-00000001")
    server.kill()
    server = commands("server", "resume", run_dir)
    assert server.wait() == 0, server.said()
    assert (first.wait(), second.wait()) == (0, 0)

    deployed, expected = weights(run_dir), simulated(tmp_path)
    assert deployed.keys() == expected.keys()
    assert all(np.array_equal(deployed[name], expected[name]) for name in expected)
    assert [row[0] for row in rows(run_dir)] == ["1", "2", "3"]
    for number in (0, 1):
        folder = tmp_path / f"of_client{number}" / "deployed" / "clients" / str(number)
        assert [row[:2] for row in rows(folder)] == [["1", "4"], ["2", "8"], ["3", "12"]]
        manifest = json.loads((folder / "run.json").read_text())
        assert (manifest["state"], manifest["epochs"]) == ("finished", 3)
        assert manifest["federation"] == {"kind": "client", "proc_id": number, "of": "deployed"}
        assert (folder / "settings" / "mysettings.py").is_file()
    assert not processes_below(tmp_path)


def test_clients_may_be_late_or_of_another_model_and_the_server_is_stopped_and_goes_on(tmp_path, commands):
    address, run_dir = f"127.0.0.1:{free_port()}", tmp_path / "runs" / "stopped"
    counts = ("--clients", 3, "--min-clients", 1, "--rounds", 1000)
    place = ("--address", address, "--insecure", "--working-dir", "runs", "--run-name", "stopped")

    def client(number, file="mysettings.py"):
        place = ("--server", address, "--insecure", "--proc-id", number, "--working-dir", f"of_client{number}")
        return commands(f"client{number}", "federate", "client", file, *place)

    server = commands("server", "federate", "server", "mysettings.py", *place, *counts)
    server.wait_for(lambda: "Round 1 waits for clients: 0 of 1 are there." in server.said())
    assert server.terminate() == INTERRUPTED
    assert not processes_below(tmp_path)
    assert json.loads((run_dir / "run.json").read_text())["state"] == "interrupted"

    server = commands("server", "resume", run_dir)
    (tmp_path / "other.py").write_text(SETTINGS.replace('keras.layers.Dense(hparams["hidden"]', "keras.layers.Dense(9"))
    clients = [client(0), client(1, "other.py")]
    server.wait_for(lambda: len(rows(run_dir)) >= 1)
    clients.append(client(2))
    late = tmp_path / "of_client2" / "stopped" / "clients" / "2"
    server.wait_for(lambda: len(rows(late)) >= 1)
    assert int(rows(late)[0][0]) > 1
    server.wait_for(lambda: "client 1 was left out" in server.said())
    said = " ".join(server.said().split())
    assert "The weights are those of another model: 0000/kernel. Expected shape (3, 9), got (3, 8)." in said

    assert server.terminate() == INTERRUPTED
    assert all(command.process.poll() is None for command in clients), "they wait for the server"
    assert [command.terminate() for command in clients] == [INTERRUPTED] * 3
    assert not processes_below(tmp_path)
    assert json.loads((late / "run.json").read_text())["state"] == "interrupted"


def test_updates_are_masked_between_machines_and_a_client_that_is_killed_costs_no_round(tmp_path, commands):
    masked = '"clients": 4,\n    "min_clients": 3,\n    "secure_aggregation": True,\n'
    (tmp_path / "mysettings.py").write_text(SETTINGS.replace('"clients": 2,\n', masked))
    address, run_dir, begun = f"127.0.0.1:{free_port()}", tmp_path / "runs" / "masked", tmp_path / "begun"

    def client(number, **environment):
        place = ("--server", address, "--insecure", "--proc-id", number, "--working-dir", f"of_client{number}")
        return commands(f"client{number}", "federate", "client", "mysettings.py", *place, **environment)

    place = ("--address", address, "--insecure", "--working-dir", "runs", "--run-name", "masked")
    server = commands("server", "federate", "server", "mysettings.py", *place)
    lost = client(3, BEGUN=str(begun))
    clients = [client(number) for number in range(3)]
    lost.wait_for(begun.exists)
    lost.kill()
    assert server.wait() == 0, server.said()
    assert [one.wait() for one in clients] == [0] * 3
    assert [row[0] for row in rows(run_dir)] == ["1", "2", "3"]
    deployed, expected = weights(run_dir), simulated_of(tmp_path, 3, split_among=4)
    for name, value in expected.items():
        np.testing.assert_allclose(deployed[name], value, rtol=0, atol=1e-4, err_msg=name)


def simulated_of(tmp_path, clients, split_among):
    """The weights that so many of the clients come to in a simulation without masks."""
    from experiments_manager import api

    text = SETTINGS.replace('"clients": 2', f'"clients": {clients}').replace("60:partitions]", f"60:{split_among}]")
    (tmp_path / "open.py").write_text(text)
    settings = api.federation_settings(tmp_path / "open.py")
    result = api.simulate_federation(settings, workers=1, working_dir=tmp_path / "runs", run_name="open", quiet=True)
    return weights(result.run_dir)
