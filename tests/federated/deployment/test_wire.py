"""Messages and records over a socket."""

import os
import socket
import threading
from multiprocessing.connection import Client, Pipe

import numpy as np
import pytest

from experiments_manager.federated.deployment import wire
from experiments_manager.federated.flower import flower


@pytest.fixture
def pair():
    """Two ends of a connection."""
    first, second = Pipe()
    with first, second:
        yield first, second


def test_a_message_arrives_as_it_was_sent_whatever_its_size(pair):
    first, second = pair
    parts = [b"", b"abc", bytes(3_000_000)]
    sender = threading.Thread(target=wire.send, args=(first, {"do": "push", "ids": ["ä"]}, parts))
    sender.start()
    assert wire.receive(second) == ({"do": "push", "ids": ["ä"]}, parts)
    sender.join()


@pytest.mark.parametrize("sent", [b"", b"\x00\x00\x00\x10{", b'\x00\x00\x00\x0c{"parts": 1}'])
def test_a_message_that_ends_too_early_is_noticed(pair, sent):
    first, second = pair
    os.write(first.fileno(), sent)
    first.close()
    with pytest.raises(wire.Disconnected):
        wire.receive(second)


@pytest.mark.parametrize("sent", [b"\x7f\xff\xff\xff", b"\xff" * 12, b"\x00\x00\x00\x04pick"])
def test_a_header_that_no_side_sends_is_not_read(pair, sent):
    first, second = pair
    os.write(first.fileno(), sent)
    with pytest.raises(wire.Disconnected):
        wire.receive(second)


def test_a_listener_accepts_connections_as_long_as_it_has_time(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(1)
        listener.settimeout(0.01)
        with pytest.raises(TimeoutError):
            wire.accept(listener)
        with Client(str(tmp_path / "socket")) as ours, wire.accept(listener) as theirs:
            wire.send(ours, {"a": 1})
            assert wire.receive(theirs) == ({"a": 1}, [])


def test_records_keep_names_order_types_and_bits():
    flower()
    from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

    from experiments_manager.compat.flower import records_from_bytes, records_to_bytes

    arrays = {
        "dense/kernel": np.array([[np.nan, -0.0], [np.inf, 1e-40]], np.float32),
        "steps": np.array(7, np.int64),
        "none": np.zeros((0, 3), np.float64),
    }
    config = {"name": "ä", "flag": True, "count": 2**62, "raw": b"\x00\xff", "list": [1.5, 2.5]}
    sent = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(array) for name, array in arrays.items()}),
            "metrics": MetricRecord({"loss": 0.1}),
            "config": ConfigRecord(config),
        }
    )
    came = records_from_bytes(records_to_bytes(sent))
    assert list(came["arrays"]) == list(arrays)
    for name, array in arrays.items():
        found = came["arrays"][name].numpy()
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert dict(came["config"]) == config
    assert came["metrics"]["loss"] == 0.1
