"""Clients in threads of this process: some at a time, in time or left behind, and never lost."""

import threading

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, Message, RecordDict

from experiments_manager.federated.message_records import to_record
from experiments_manager.federated.simulation.local_grid import LocalGrid
from tests.helpers.line_clients import first_arrays, line_client
from tests.helpers.waiting import wait_until


def asking(grid, *proc_ids, kind="train"):
    content = RecordDict({"arrays": to_record(first_arrays()), "config": ConfigRecord({"server-round": 1})})
    return [Message(content, grid.node_of(proc_id), kind) for proc_id in proc_ids]


def told(replies):
    return [reply.content["client"]["proc-id"] for reply in replies]


class Gate:
    """Makes clients that wait until they are let through, and counts those that work."""

    def __init__(self, *held):
        self.held = {proc_id: threading.Event() for proc_id in held}
        self.entered = {proc_id: threading.Event() for proc_id in range(10)}
        self.working, self.most = 0, 0
        self.lock = threading.Lock()

    def __call__(self, proc_id):
        client = line_client(proc_id)

        def answer(message):
            with self.lock:
                self.working += 1
                self.most = max(self.most, self.working)
            self.entered[proc_id].set()
            try:
                if proc_id in self.held:
                    assert self.held[proc_id].wait(60)
                return client(message)
            finally:
                with self.lock:
                    self.working -= 1

        return answer

    def open(self):
        for event in self.held.values():
            event.set()


def test_replies_come_in_the_order_of_the_clients():
    grid = LocalGrid(line_client, [4, 0, 2], workers=3)
    assert grid.get_node_ids() == [grid.node_of(proc_id) for proc_id in (0, 2, 4)]
    replies = grid.send_and_receive(asking(grid, 4, 0, 2))
    assert told(replies) == [0, 2, 4]
    assert [grid.proc_id_of(reply.metadata.src_node_id) for reply in replies] == [0, 2, 4]


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_clients_work_at_a_time_than_there_are_workers(workers):
    gate = Gate(*range(6))
    grid = LocalGrid(gate, range(6), workers=workers)
    numbers = grid.push_messages(asking(grid, *range(6)))
    wait_until(lambda: gate.working == workers)
    gate.open()
    grid.wait_for_replies(numbers, 60)
    assert told(grid.pull_messages(numbers)) == list(range(6))
    assert gate.most == workers


def test_a_client_that_is_late_is_left_behind_and_its_answer_is_dropped():
    gate = Gate(1)
    grid = LocalGrid(gate, range(3), workers=2)
    numbers = grid.push_messages(asking(grid, 0, 1, 2))
    grid.wait_for_replies([numbers[0], numbers[2]], 60)
    assert told(grid.send_and_receive([], timeout=0)) == []
    assert told(grid.pull_messages(numbers)) == [0, 2]
    grid.abandon(numbers)
    assert grid.get_node_ids() == [grid.node_of(0), grid.node_of(2)]
    gate.open()
    wait_until(lambda: len(grid.get_node_ids()) == 3)
    assert grid.pull_messages(numbers) == []
    assert told(grid.send_and_receive(asking(grid, 1))) == [1]


def test_a_client_that_hangs_takes_no_worker_from_the_others():
    gate = Gate(0)
    grid = LocalGrid(gate, range(3), workers=1)
    assert grid.send_and_receive(asking(grid, 0, 1, 2), timeout=0.05) == []
    assert not gate.entered[1].is_set()
    assert told(grid.send_and_receive(asking(grid, 1, 2), timeout=60)) == [1, 2]
    gate.open()


def test_a_busy_client_gets_its_next_message_when_it_is_done():
    gate = Gate(0)
    grid = LocalGrid(gate, [0], workers=2)
    first = grid.push_messages(asking(grid, 0))
    second = grid.push_messages(asking(grid, 0, kind="evaluate"))
    gate.entered[0].wait(60)
    assert gate.working == 1
    gate.open()
    grid.wait_for_replies([*first, *second], 60)
    assert len(grid.pull_messages([*first, *second])) == 2
    assert gate.most == 1


@pytest.mark.parametrize(
    ("client", "sentence"),
    [
        (lambda message: 1 / 0, "ZeroDivisionError: division by zero."),
        (lambda message: None, "It answered with NoneType."),
        (lambda message: exit(3), "SystemExit: 3."),
    ],
)
def test_a_client_that_fails_gives_an_error_reply(client, sentence):
    grid = LocalGrid(lambda proc_id: client if proc_id == 1 else line_client(proc_id), range(2))
    good, bad = grid.send_and_receive(asking(grid, 0, 1))
    assert good.has_content()
    assert (bad.error.reason, grid.proc_id_of(bad.metadata.src_node_id)) == (sentence, 1)


def test_a_client_that_cannot_be_made_gives_an_error_reply():
    def make(proc_id):
        if proc_id == 0:
            raise FileNotFoundError("no data")
        return line_client(proc_id)

    grid = LocalGrid(make, range(2))
    bad, good = grid.send_and_receive(asking(grid, 0, 1))
    assert bad.error.reason == "FileNotFoundError: no data."
    assert good.has_content()


def test_a_client_is_made_once_and_only_when_it_is_asked():
    made = []

    def make(proc_id):
        made.append((proc_id, threading.current_thread()))
        return line_client(proc_id)

    grid = LocalGrid(make, range(3), workers=3)
    grid.send_and_receive(asking(grid, 1))
    grid.send_and_receive(asking(grid, 1, 2))
    assert made == [(1, threading.current_thread()), (2, threading.current_thread())]


def test_clients_come_and_go():
    grid = LocalGrid(line_client, [0])
    grid.join(3)
    assert told(grid.send_and_receive(asking(grid, 3))) == [3]
    grid.leave(0)
    assert grid.get_node_ids() == [grid.node_of(3)]


def test_clients_cannot_change_what_others_are_sent():
    def spoil(proc_id):
        inner = line_client(proc_id)

        def client(message):
            message.content["arrays"]["w"].numpy()[:] = np.nan
            return inner(message)

        return client

    grid = LocalGrid(spoil, range(2))
    assert all(
        np.isfinite(reply.content["arrays"]["w"].numpy()).all() for reply in grid.send_and_receive(asking(grid, 0, 1))
    )
