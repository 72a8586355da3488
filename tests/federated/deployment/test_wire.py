"""Frames and records over a socket."""

import socket
import threading

import numpy as np
import pytest

from experiments_manager.federated.deployment import wire
from experiments_manager.federated.flower import flower


@pytest.fixture
def pair():
    """Two ends of a connection."""
    first, second = socket.socketpair()
    with first, second:
        yield first, second


def test_a_frame_arrives_as_it_was_sent_whatever_its_size(pair):
    first, second = pair
    parts = [b"", b"abc", bytes(3_000_000)]
    sender = threading.Thread(target=wire.send, args=(first, {"do": "push", "ids": ["ä"]}, parts))
    sender.start()
    assert wire.receive(second) == ({"do": "push", "ids": ["ä"]}, parts)
    sender.join()


def test_a_frame_that_ends_too_early_is_noticed(pair):
    first, second = pair
    first.sendall(b"\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00{")
    first.close()
    with pytest.raises(wire.Disconnected, match="closed after 1 of 16 bytes"):
        wire.receive(second)


def test_a_header_that_no_side_sends_is_not_read(pair):
    first, second = pair
    first.sendall(b"\xff" * 12)
    with pytest.raises(wire.Disconnected, match="Expected at most"):
        wire.receive(second)


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
