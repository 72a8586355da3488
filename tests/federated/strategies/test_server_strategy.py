"""The strategy that the server works with averages as one does by hand, whatever dtypes variables have."""

import gc

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import FedAvg

from experiments_manager.federated.strategies.server_strategy import ServerStrategy
from experiments_manager.settings.options.federated import STRATEGIES
from tests.helpers.federations import FakeGrid, arrays_of, numpy_of, one_round, reply_to, strategy_of

EXAMPLES = [7, 100, 33]
SHAPES = {"dense/kernel": (5, 3), "dense/bias": (3,), "norm/moving_mean": (4,), "scale": ()}
VARIANCE = "norm/moving_variance"
NEEDED = {"QFedAvg": {"client_learning_rate": 0.1}}


def values(seed, dtype="float32"):
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}


def round_of(strategy, sent, clients, examples=EXAMPLES, server_round=1):
    """Each client answers with its dictionary of variables."""

    def answer(message):
        number = message.metadata.dst_node_id - 100
        return reply_to(message, number, clients[number], examples=examples[number], accuracy=float(number))

    grid = FakeGrid(range(100, 100 + len(clients)), answer)
    return one_round(strategy, server_round, arrays_of(**sent), grid)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_mean_is_that_by_hand(dtype):
    clients = [values(seed, dtype) for seed in (1, 2, 3)]
    arrays, metrics = round_of(strategy_of({}), values(0, dtype), clients)
    total = sum(EXAMPLES)
    assert list(arrays) == list(SHAPES)
    for name, got in numpy_of(arrays).items():
        by_hand = sum(each[name] * (count / total) for each, count in zip(clients, EXAMPLES, strict=True))
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, np.asarray(by_hand, dtype))
        exact = np.average([each[name].astype("float64") for each in clients], axis=0, weights=EXAMPLES)
        np.testing.assert_allclose(got, exact, atol=2 * np.finfo(dtype).eps * 3)
    assert metrics["accuracy"] == pytest.approx((100 + 66) / 140)
    assert "num-examples" not in metrics


def test_counters_become_the_rounded_mean_and_flags_what_most_samples_say():
    kernel = np.ones((2, 2), "float32")
    sent = {
        "steps": np.int64(10),
        "kernel": kernel,
        "seen": np.array([1, 2], "uint8"),
        "ready": np.array([True, False]),
    }
    clients = [
        {"steps": np.int64(10 + add), "kernel": kernel * add, "seen": np.array([255, add], "uint8"), "ready": flags}
        for add, flags in [(1, np.array([False, True])), (2, np.array([True, False])), (9, np.array([True, True]))]
    ]
    arrays, _ = round_of(strategy_of({}), sent, clients, examples=[10, 10, 20])
    got = numpy_of(arrays)
    assert list(got) == list(sent)
    assert {name: value.dtype for name, value in got.items()} == {k: np.asarray(v).dtype for k, v in sent.items()}
    assert got["steps"] == 15  # (11 + 12 + 2 * 19) / 4 = 15.25
    assert got["seen"].tolist() == [255, 5]
    assert got["ready"].tolist() == [True, True]
    assert got["kernel"][0, 0] == pytest.approx(5.25)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@pytest.mark.parametrize("private", [None, "fixed", "adaptive"])
def test_every_strategy_keeps_names_order_shapes_and_dtypes_and_makes_no_variance_negative(name, private):
    setting = {"strategy": name, "options": NEEDED.get(name, {}), "min_clients": 3}
    if private and not name.startswith("Clustered"):
        norm = {"clipping_norm": 1.0} if private == "fixed" else {}
        privacy = {"side": "server", "clipping": private, "noise_multiplier": 0.01, **norm}
        setting["differential_privacy"] = privacy
    sent = {"steps": np.int64(3), **values(0), VARIANCE: np.full(4, 1e-3, "float32"), "flag": np.array(True)}
    strategy = strategy_of(setting)
    for server_round in (1, 2):
        clients = [{**sent, **values(seed), VARIANCE: np.full(4, 1e-6, "float32")} for seed in (1, 2, 3)]
        arrays, _ = round_of(strategy, sent, clients, server_round=server_round)
        got = numpy_of(arrays)
        assert list(got) == list(sent)
        for key, value in got.items():
            assert (value.dtype, value.shape) == (np.asarray(sent[key]).dtype, np.shape(sent[key]))
        assert (got[VARIANCE] >= 0).all()
        assert not np.array_equal(got["dense/kernel"], sent["dense/kernel"])


def test_clients_are_sent_all_variables_in_their_order():
    sent = arrays_of(steps=np.int64(3), kernel=np.ones(2, "float32"))
    for configure in (ServerStrategy(FedAvg()).configure_train, ServerStrategy(FedAvg()).configure_evaluate):
        messages = list(configure(1, sent, ConfigRecord(), FakeGrid([1, 2, 3])))
        assert sorted(message.metadata.dst_node_id for message in messages) == [1, 2, 3]
        assert all(list(message.content["arrays"]) == ["steps", "kernel"] for message in messages)
        assert len({id(message.content) for message in messages}) == 1  # shared, as many clients may be sent much


def test_a_round_without_good_replies_gives_no_variables():
    strategy = strategy_of({})
    strategy.configure_train(1, arrays_of(a=np.ones(1)), ConfigRecord(), FakeGrid([1, 2]))
    assert strategy.aggregate_train(1, []) == (None, None)
    assert strategy.aggregate_evaluate(1, []) is None


def test_the_strategy_within_a_wrapping_one_tells_its_clusters_and_others_have_none():
    assert strategy_of({"strategy": "FedAdam"}).clusters == []
    setting = {"strategy": "ClusteredCosine", "min_clients": 3}
    strategy = strategy_of(setting)
    round_of(strategy, values(0), [values(seed) for seed in (1, 2, 3)])
    assert [cluster.proc_ids for cluster in strategy.clusters] == [(0, 1, 2)]


def test_strategies_that_divide_by_the_length_of_updates_say_so():
    privacy = {"noise_multiplier": 1.0, "clipping_norm": 1.0}
    assert strategy_of({"differential_privacy": privacy}).needs_changes
    assert not strategy_of({"differential_privacy": {**privacy, "side": "client"}}).needs_changes
    assert not strategy_of({}).needs_changes


def test_collections_of_garbage_are_as_before_a_round():
    strategy = strategy_of({"strategy": "QFedAvg", "options": NEEDED["QFedAvg"]})
    before = gc.get_freeze_count()
    round_of(strategy, values(0), [values(seed) for seed in (1, 2, 3)])
    assert gc.get_freeze_count() == before


def test_integers_of_more_digits_than_a_floating_point_number_has_keep_all_of_theirs():
    large, kernel = 2**62 + 1, np.ones((2, 2), "float32")
    sent = {"kernel": kernel, "hash": np.array([large, large]), "word": np.uint64(2**64 - 1)}
    clients = [sent | {"kernel": kernel * n, "hash": np.array([large, large + n])} for n in (0, 1, 2)]
    arrays, _ = round_of(strategy_of({}), sent, clients, examples=[1, 1, 1])
    got = numpy_of(arrays)
    assert got["hash"].tolist() == [large, large + 1]
    assert int(got["word"]) == 2**64 - 1


def test_what_clients_told_of_their_samples_is_kept_with_the_state():
    strategy = strategy_of({})
    strategy.note_examples({0: 5.0, 1: 7.0})
    strategy.note_examples({0: 3.0})
    again = strategy_of({})
    again.restore(*strategy.state())
    assert dict(again.examples) == {0: 5.0, 1: 7.0}
