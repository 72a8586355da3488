"""A federation's state on disk is whole or not there, and comes back bit for bit."""

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("flwr")

from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.server import state_files
from experiments_manager.federated.server.federation_state import BestRound, FederationState
from tests.helpers.line_clients import bits

ARRAYS = {
    "file": np.array([np.pi, -0.0, 1e-45], "float32"),
    "dense/kernel:0": np.array([[1.0], [3.140625]], ml_dtypes.bfloat16),
    "../odd name": np.array(True),
    "count": np.array(2**63 - 1, "int64"),
    "none": np.zeros((0, 2), "float64"),
}


def state(number, **values):
    return FederationState(number, {**ARRAYS, "count": np.array(number)}, **values)


def read(folder):
    said = []
    return state_files.read_latest(folder, said.append), said


def test_a_state_comes_back_as_it_was(tmp_path):
    before = FederationState(
        7,
        ARRAYS,
        strategy={"seen": [1, 2.5, None, float("inf")]},
        strategy_arrays={"m_t/w": np.arange(3.0)},
        best=BestRound(0.1, 3),
        extra={"version": 3},
    )
    path = state_files.write_state(tmp_path / "checkpoints", before)
    after = state_files.read_state(path)
    assert path.name == "round_7"
    assert (tmp_path / "checkpoints" / "latest").read_text() == "round_7\n"
    assert list(after.arrays) == list(ARRAYS)
    assert bits(after.arrays) == bits(ARRAYS)
    assert bits(after.strategy_arrays) == bits(before.strategy_arrays)
    assert (after.round, after.strategy, after.best, after.extra) == (7, before.strategy, before.best, before.extra)


def test_the_newest_three_rounds_are_kept(tmp_path):
    for number in (8, 9, 10, 11):
        state_files.write_state(tmp_path, state(number))
    assert [path.name for path in state_files.states(tmp_path)] == ["round_11", "round_10", "round_9"]
    assert read(tmp_path)[0].round == 11


@pytest.mark.parametrize("file", ["state.json", "arrays.npz", "checksums.json"])
@pytest.mark.parametrize("harm", ["removed", "cut", "altered"])
def test_a_damaged_state_is_passed_over_for_the_one_before_and_that_is_said(tmp_path, file, harm):
    for number in (1, 2):
        path = state_files.write_state(tmp_path, state(number)) / file
    content = path.read_bytes()
    path.unlink()
    if harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "altered":
        path.write_bytes(content[:30] + bytes([content[30] ^ 1]) + content[31:])
    found, said = read(tmp_path)
    assert found.round == 1
    assert len(said) == 1 and "round_2 is damaged and skipped" in said[0]


def test_a_folder_whose_states_are_all_damaged_is_no_new_beginning(tmp_path):
    for number in (1, 2):
        (state_files.write_state(tmp_path, state(number)) / "arrays.npz").unlink()
    with pytest.raises(FederationError, match="All states in .* are damaged"):
        read(tmp_path)


def test_there_is_no_state_where_none_was_written(tmp_path):
    assert read(tmp_path) == (None, [])
    assert read(tmp_path / "nowhere") == (None, [])


def test_what_a_killed_process_left_half_written_does_not_count(tmp_path):
    state_files.write_state(tmp_path, state(1))
    half = tmp_path / ".round_2.cafe-f00d.partial"
    half.mkdir()
    (half / "state.json").write_text("{")
    assert read(tmp_path)[0].round == 1
    assert not half.exists()


def test_a_round_that_is_written_again_takes_the_place_of_the_first(tmp_path):
    state_files.write_state(tmp_path, state(1))
    state_files.write_state(tmp_path, state(1, extra={"again": True}))
    assert read(tmp_path)[0].extra == {"again": True}


def test_a_state_that_cannot_be_written_is_an_error_that_keeps_the_one_before(tmp_path, monkeypatch):
    state_files.write_state(tmp_path, state(1))

    def full(stream, **arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(FederationError, match="round 2 cannot be written: .*Free some space"):
        state_files.write_state(tmp_path, state(2))
    assert read(tmp_path)[0].round == 1
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_state_of_a_newer_release_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(state_files, "SCHEMA_VERSION", 99)
        state_files.write_state(tmp_path, state(1))
    with pytest.raises(FederationError, match="written by a newer release"):
        read(tmp_path)


def test_arrays_of_objects_are_refused_rather_than_pickled(tmp_path):
    with pytest.raises(FederationError, match="array of objects"):
        state_files.write_state(tmp_path, state(1, strategy_arrays={"o": np.array([{}])}))
    assert list(tmp_path.glob("*")) == list(tmp_path.glob(".*")) == []
