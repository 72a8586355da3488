"""Variables that are not trained are averaged by samples, whatever steps the strategy takes on the others."""

import flwr.serverapp.strategy as flower
import numpy as np
import pytest

from experiments_manager.federated.strategies.catalogue import checked_strategy
from tests.helpers.federations import FakeGrid, arrays_of, message_to, numpy_of, one_round, reply_to, strategy_of

EXAMPLES = [10, 30]
SENT = {
    "0000/gamma": np.ones(3, "float32"),
    "0001/moving_mean": np.zeros(3, "float32"),
    "0002/moving_variance": np.full(3, 0.05, "float32"),
    "0003/count": np.int64(4),
}
AVERAGED = {"0001/moving_mean", "0002/moving_variance"}
STEPPING = {
    "FedAdam": {"eta": 1.0},
    "FedYogi": {"eta": 1.0},
    "FedAdagrad": {"eta": 1.0},
    "FedAvgM": {"server_momentum": 0.9, "server_learning_rate": 3.0},
    "QFedAvg": {"client_learning_rate": 0.1},
}


def answer(message):
    number = message.metadata.dst_node_id
    got = numpy_of(message.content["arrays"])
    new = {name: np.asarray(value * (0.1 + 0.2 * number), value.dtype) for name, value in got.items()}
    return reply_to(message, number, new, examples=EXAMPLES[number])


@pytest.mark.parametrize("name", STEPPING)
def test_a_step_is_taken_on_trained_variables_alone(name):
    strategy = strategy_of({"strategy": name, "options": STEPPING[name]}, AVERAGED)
    arrays = arrays_of(**SENT)
    for server_round in (1, 2):
        before = numpy_of(arrays)
        arrays, _ = one_round(strategy, server_round, arrays, FakeGrid([0, 1], answer))
        after = numpy_of(arrays)
        assert list(after) == list(SENT)
        mean = (10 * 0.1 + 30 * 0.3) / 40
        np.testing.assert_allclose(after["0002/moving_variance"], before["0002/moving_variance"] * mean, rtol=1e-5)
        assert after["0003/count"].dtype == "int64"
        assert not np.allclose(after["0000/gamma"], before["0000/gamma"] * mean)


def test_clients_are_sent_the_averaged_variables_too():
    sent = []
    strategy = strategy_of({"strategy": "FedAdam"}, AVERAGED)
    grid = FakeGrid([0, 1], lambda message: sent.append(list(message.content["arrays"])) or answer(message))
    one_round(strategy, 1, arrays_of(**SENT), grid)
    assert sent == [list(SENT)] * 2


def test_a_strategy_of_a_hook_is_kept_from_them_wherever_it_is():
    inner = flower.DifferentialPrivacyServerSideFixedClipping(flower.FedAdam(eta=1.0), 0.0, 1e6, 2)
    strategy = checked_strategy(inner, AVERAGED)
    arrays, _ = one_round(strategy, 1, arrays_of(**SENT), FakeGrid([0, 1], answer))
    np.testing.assert_allclose(arrays["0002/moving_variance"].numpy(), SENT["0002/moving_variance"] * 0.25, rtol=1e-5)


def test_what_a_strategy_remembers_is_found_again_without_what_was_sent():
    setting = {"strategy": "FedAvgM", "options": STEPPING["FedAvgM"]}
    whole, first = (strategy_of(setting, AVERAGED) for _ in range(2))
    arrays, _ = one_round(first, 1, arrays_of(**SENT), FakeGrid([0, 1], answer))
    expected, _ = one_round(whole, 1, arrays_of(**SENT), FakeGrid([0, 1], answer))
    expected, _ = one_round(whole, 2, expected, FakeGrid([0, 1], answer))
    plain, held = first.state()
    assert "_sent" not in plain["strategy"]["attributes"]
    again = strategy_of(setting, AVERAGED)
    again.restore(plain, held, arrays)
    got, _ = one_round(again, 2, arrays, FakeGrid([0, 1], answer))
    for name, value in numpy_of(expected).items():
        np.testing.assert_array_equal(numpy_of(got)[name], value)


def test_a_strategy_that_takes_no_steps_gets_all():
    assert type(strategy_of({"strategy": "FedMedian", "min_clients": 3}, AVERAGED).strategy) is flower.FedMedian
    assert type(strategy_of({"strategy": "FedAdam"}).strategy) is flower.FedAdam


def test_noise_makes_no_variance_negative():
    privacy = {"noise_multiplier": 50.0, "clipping_norm": 1.0}
    np.random.seed(0)
    strategy = strategy_of({"differential_privacy": privacy})
    arrays, _ = one_round(strategy, 1, arrays_of(**SENT), FakeGrid([0, 1], answer))
    variance = arrays["0002/moving_variance"].numpy()
    assert variance.min() == 0.0
    assert arrays["0001/moving_mean"].numpy().min() < 0
    assert message_to(0, arrays).content["arrays"]["0003/count"].dtype == "int64"
