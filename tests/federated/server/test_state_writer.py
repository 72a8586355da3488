"""States are written while the next round runs, and none is lost at the end."""

import threading

import numpy as np
import pytest

pytest.importorskip("flwr")

from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.server.federation_state import FederationState
from experiments_manager.federated.server.state_files import read_state, states
from experiments_manager.federated.server.state_writer import StateWriter
from tests.helpers.line_clients import first_arrays


def state(number, **values):
    return FederationState(number, first_arrays(), **values)


def test_a_round_does_not_wait_for_the_disk_and_the_last_state_is_there_in_the_end(tmp_path):
    disk = threading.Event()
    with StateWriter(tmp_path, lambda: disk.wait(60)) as writer:
        for number in range(5):
            writer.save(state(number))
        assert states(tmp_path) == []
        disk.set()
    assert states(tmp_path)[0].name == "round_4"


def test_what_a_strategy_changes_later_is_not_in_the_state(tmp_path):
    momentum, disk = np.zeros(2), threading.Event()
    with StateWriter(tmp_path, lambda: disk.wait(60)) as writer:
        writer.save(state(1, strategy_arrays={"m": momentum}))
        momentum += 1
        disk.set()
    assert read_state(tmp_path / "round_1").strategy_arrays["m"].tolist() == [0, 0]


def test_a_state_that_cannot_be_written_is_an_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(FederationError, match="round 1 cannot be written"), StateWriter(blocked) as writer:
        writer.save(state(1))
        writer._worker.wait()
        writer.save(state(2))
    with pytest.raises(FederationError, match="round 3 cannot be written"), StateWriter(blocked) as writer:
        writer.save(state(3))


def test_an_error_of_the_rounds_is_not_hidden_by_one_of_the_disk(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ZeroDivisionError), StateWriter(blocked) as writer:
        writer.save(state(1))
        writer._worker.wait()
        raise ZeroDivisionError
