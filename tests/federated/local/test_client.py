"""What a client keeps, as arrays and back."""

import numpy as np

from experiments_manager.federated.local.client import ClientState


def test_what_is_kept_comes_back_from_arrays():
    kept = ClientState(
        others=[np.float32(0.1), np.arange(12)],
        layers={"0003/bias": np.ones(2)},
        rate_scale=0.5,
        position={"pass": 2, "taken": 3},
        callbacks=[{"rounds": 3}],
        callback_arrays={"callbacks/0000": np.zeros([2, 2])},
        topics={"train": {"topic": "samples"}},
    )
    again = ClientState.of(kept.arrays)
    assert {name: value.tobytes() for name, value in again.arrays.items()} == {
        name: value.tobytes() for name, value in kept.arrays.items()
    }
    assert (again.rate_scale, again.position, again.topics) == (0.5, kept.position, kept.topics)
    assert [value.tolist() for value in again.others] == [kept.others[0].tolist(), kept.others[1].tolist()]


def test_more_than_ten_thousand_variables_keep_their_order():
    others = [np.int32(number) for number in range(10_002)]
    assert [int(value) for value in ClientState.of(ClientState(others=others).arrays).others] == list(range(10_002))


def test_nothing_is_kept_where_each_round_begins_anew():
    assert not ClientState()
    assert ClientState(layers={"0003/bias": np.ones(2)})
