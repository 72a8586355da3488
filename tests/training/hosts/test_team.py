"""Processes that agree, and notice that one is gone; here they are threads of one process."""

import concurrent.futures
import contextlib
import json
import socket

import pytest
import tensorflow as tf

from experiments_manager.training.errors import TrainingError
from experiments_manager.training.hosts import rendezvous
from experiments_manager.training.hosts.cluster import HostCluster
from experiments_manager.training.hosts.membership import _losses_told
from experiments_manager.training.hosts.peer import LastWords
from experiments_manager.training.hosts.team import ALONE, Team, WorkerFailedError, WorkerLostError
from tests.helpers.waiting import wait_until


def addresses(number):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)


@pytest.fixture
def teams():
    """Three processes that have met, and a pool in which each can do something."""
    met = addresses(3)

    def meet(index):
        cluster = HostCluster(met, index)
        peers = rendezvous.gather_workers(cluster) if index == 0 else [rendezvous.join_chief(cluster)]
        return Team(index, peers, 3)

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = list(pool.map(meet, range(3)))
        yield found, pool
        for team in found:
            team.close()


def test_all_get_the_values_of_all_in_their_order(teams):
    found, pool = teams
    values = list(pool.map(lambda team: team.gather({"from": team.index}), found))
    assert values == [[{"from": 0}, {"from": 1}, {"from": 2}]] * 3


def test_one_flag_counts_for_all_and_the_chiefs_value_too(teams):
    found, pool = teams
    assert list(pool.map(lambda team: team.any(team.index == 2), found)) == [True] * 3
    assert list(pool.map(lambda team: team.any(False), found)) == [False] * 3
    assert list(pool.map(lambda team: team.chiefs(0.1 + team.index), found)) == [0.1] * 3


def test_the_chiefs_port_is_free_again_once_all_have_come(teams):
    found, _ = teams
    port = int(found[1]._peers[0].name.rpartition(":")[2].rstrip(")"))
    with socket.create_server(("127.0.0.1", port)) as server:
        assert server.getsockname()[1] == port


def test_when_one_is_gone_all_others_say_which(teams):
    found, pool = teams
    found[1].close()
    failed = [pool.submit(team.gather, None) for team in (found[0], found[2])]
    for one in failed:
        with pytest.raises(WorkerLostError, match="Worker 1 .* is gone: its connection is closed") as caught:
            one.result()
        assert caught.value.exit_code == 75


def test_the_others_say_why_one_ended(teams):
    found, pool = teams
    found[2].close(LastWords("Worker 2 ended: stopped"))
    failed = [pool.submit(team.gather, None) for team in found[:2]]
    for one in failed:
        with pytest.raises(WorkerLostError, match="^Worker 2 ended: stopped.*`resume` goes on"):
            one.result()


def test_a_mistake_that_one_found_ends_all_with_its_exit_code(teams):
    found, pool = teams
    found[2].close(LastWords("Worker 2 ended: no data", 2))
    failed = [pool.submit(team.gather, None) for team in found[:2]]
    for one in failed:
        with pytest.raises(WorkerFailedError, match="^Worker 2 ended: no data All processes .* stop.$") as caught:
            one.result()
        assert caught.value.exit_code == 2


def test_a_mistake_that_all_find_is_told_as_such_by_the_second_one_too(teams):
    found, _ = teams
    found[2].close(LastWords("Worker 2 ended: no data"))
    assert found[0].has_lost(10.0)
    with pytest.raises(TrainingError, match="^no data$"), _losses_told(found[0]):
        raise TrainingError("no data")


def test_what_tensorflow_says_after_a_loss_is_told_as_the_loss(teams):
    found, _ = teams
    found[2].close(LastWords("Worker 2 ended: no data"))
    with pytest.raises(WorkerLostError, match="^Worker 2 ended: no data"), _losses_told(found[0]):
        try:
            raise tf.errors.UnavailableError(None, None, "connection reset")
        except tf.errors.OpError as error:
            raise TrainingError("the step failed") from error


def test_who_leaves_when_all_do_is_not_lost(teams):
    found, pool = teams
    list(pool.map(lambda team: (team.leave(), team.close()), found))
    assert [team.lost for team in found] == [None] * 3


def test_a_process_alone_agrees_with_itself():
    assert (ALONE.any(True), ALONE.chiefs(3), ALONE.gather("x"), ALONE.is_chief) == (True, 3, ["x"], True)


def test_processes_that_do_not_come_are_named_and_strangers_turned_away(monkeypatch):
    monkeypatch.setattr(rendezvous, "REPORTS", 0.3)
    met, told, heard = addresses(3), [], []
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(rendezvous.gather_workers, HostCluster(met, 0), 3.0, told.append)
        port = int(met[0].rpartition(":")[2])
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
                stranger.sendall(json.dumps({"worker": 1, "cluster": ["other:1", "others:2"]}).encode() + b"\n")
                assert stranger.recv(1) == b""
                break
        wait_until(lambda: any("There: none yet" in line for line in told))
        there = pool.submit(rendezvous.join_chief, HostCluster(met, 1), 4.0, heard.append)
        with pytest.raises(TrainingError, match=rf"not all workers came within 3 s\. Missing: worker 2 \({met[2]}\)\."):
            waiting.result()
        with pytest.raises(TrainingError, match="the chief did not come"):
            there.result()
    assert f"There: worker 1 ({met[1]}). Missing: worker 2 ({met[2]})." in told[-1]
    assert any(line.startswith("The chief says: Waiting") and met[2] in line for line in heard)
    assert any(f"Missing: the chief ({met[0]})" in line for line in heard), "a chief that ended is missing"


def test_a_worker_that_ends_before_all_have_come_may_come_again(monkeypatch):
    monkeypatch.setattr(rendezvous, "REPORTS", 0.2)
    met, told = addresses(3), []
    greeting = json.dumps({"worker": 1, "cluster": met}).encode() + b"\n"
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        waiting = pool.submit(rendezvous.gather_workers, HostCluster(met, 0), 60.0, told.append)
        host, port = met[0].split(":")
        wait_until(lambda: _sent(host, int(port), greeting))
        wait_until(lambda: any("There: worker 1" in line for line in told))
        wait_until(lambda: "There: none yet" in told[-1])
        others = [pool.submit(rendezvous.join_chief, HostCluster(met, number), 60.0) for number in (1, 2)]
        peers = [*waiting.result(), *(other.result() for other in others)]
    for peer in peers:
        peer.close()
    assert len(peers) == 4
    assert any("There: worker 1" in line for line in told)


def _sent(host, port, greeting):
    """Greet the chief, stay until it says something, and be gone."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(greeting)
        return bool(connection.recv(1))
