"""Messages over any grid of Flower's: what cannot be sent, comes late or from elsewhere, and how much there was."""

import threading

import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, Error, Message, Metadata, MetricRecord, RecordDict

from experiments_manager.compat.flower import identify_process
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.server.exchange import BaseGrid, FixedNodes, exchange, size_of, wait_for_nodes
from experiments_manager.federated.simulation.local_grid import LocalGrid
from tests.helpers.line_clients import first_arrays, line_client


def content():
    return RecordDict({"arrays": ArrayRecord({name: Array(array) for name, array in first_arrays().items()})})


def messages(*nodes):
    identify_process()
    return [Message(content(), node, "train") for node in nodes]


def reply_to(number, message, error=None, node=None):
    metadata = Metadata(
        1, "", node or message.metadata.dst_node_id, 1, number, "", message.metadata.created_at, 60.0, "train"
    )
    if error is not None:
        return Message(Error(3, error), metadata=metadata)
    return Message(RecordDict({"metrics": MetricRecord({"loss": 1.0})}), metadata=metadata)


class Network(BaseGrid):
    """Sends like Flower's grid over HTTP: it is not told when a reply is there, and numbers are its own."""

    def __init__(self, answers=lambda number, message: [reply_to(number, message)], refused=()):
        self.answers, self.refused, self.sent, self.pulls = answers, refused, {}, []

    def get_node_ids(self):
        return []

    def push_messages(self, messages):
        numbers = []
        for message in messages:
            is_refused = message.metadata.dst_node_id in self.refused
            numbers.append(None if is_refused else f"m{message.metadata.dst_node_id}")
            if not is_refused:
                self.sent[numbers[-1]] = message
        return numbers

    def pull_messages(self, message_ids):
        self.pulls.append(list(message_ids))
        return [reply for number in message_ids for reply in self.answers(number, self.sent[number])]


def ask(network, *nodes, timeout=60.0, should_stop=lambda: False):
    return exchange(network, messages(*nodes), timeout=timeout, should_stop=should_stop)


def test_replies_and_bytes_are_counted():
    came = ask(Network(), 7, 8)
    assert sorted(reply.metadata.src_node_id for reply in came.replies) == [7, 8]
    assert came.silent == []
    assert came.bytes_sent == 2 * size_of(messages(7)[0]) > 0
    assert came.bytes_received == sum(size_of(reply) for reply in came.replies) > 0


def test_who_does_not_answer_in_time_is_silent_and_is_asked_for_no_more():
    network = Network(lambda number, message: [] if number == "m8" else [reply_to(number, message)])
    came = ask(network, 7, 8, timeout=0.3)
    assert [reply.metadata.src_node_id for reply in came.replies] == [7]
    assert came.silent == [8]
    assert network.pulls[0] == ["m7", "m8"] and network.pulls[-1] == ["m8"]


def test_a_message_that_could_not_be_sent_has_a_silent_node():
    came = ask(Network(refused=[8]), 7, 8)
    assert (len(came.replies), came.silent) == (1, [8])


def test_a_message_that_is_too_large_for_the_superlink_is_an_error():
    network = Network()
    network.push_messages = lambda messages: []
    with pytest.raises(FederationError, match="None of 2 messages of .* could be sent"):
        ask(network, 7, 8)


def test_a_reply_to_something_else_is_dropped():
    network = Network(lambda number, message: [reply_to("earlier", message), reply_to(number, message)])
    assert [reply.metadata.reply_to_message_id for reply in ask(network, 7).replies] == ["m7"]


def test_an_error_of_the_superlink_gets_the_node_that_it_is_about():
    came = ask(Network(lambda number, message: [reply_to(number, message, "it is gone", node=1)]), 7)
    assert (came.replies[0].error.reason, came.replies[0].metadata.src_node_id) == ("it is gone", 7)
    assert came.bytes_received == 0


def test_messages_live_little_longer_than_the_server_waits():
    network = Network()
    ask(network, 7, timeout=30.0)
    assert network.sent["m7"].metadata.ttl == 90.0
    ask(network, 7, timeout=None)
    assert network.sent["m7"].metadata.ttl > 3600


def test_waiting_stops_when_it_should():
    came = ask(Network(lambda number, message: []), 7, timeout=None, should_stop=lambda: True)
    assert (came.replies, came.silent) == ([], [7])


def test_nobody_is_asked_where_there_is_nothing_to_send():
    assert ask(Network()).replies == []


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
