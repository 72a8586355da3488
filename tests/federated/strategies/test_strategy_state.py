"""Every strategy goes on from its stored state as if nothing had stopped it, bit for bit."""

import gc
import inspect
import json
import random
import threading
import zlib

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAvg, Strategy

from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.strategies.catalogue import checked_strategy
from experiments_manager.federated.strategies.clustered import ClusteredCosine, ClusteredSpectral
from experiments_manager.federated.strategies.strategy_state import StrategyMemory
from tests.helpers.federations import FakeGrid, arrays_of, message_to, numpy_of, one_round, reply_to


@pytest.fixture(autouse=True)
def quick_collections():
    """Some strategies collect garbage once a variable, which takes long beside TensorFlow."""
    gc.freeze()
    yield
    gc.unfreeze()


NODES = range(100, 107)
CLASSES = {
    name: kind
    for name in flower.__all__
    if inspect.isclass(kind := getattr(flower, name)) and issubclass(kind, Strategy) and not inspect.isabstract(kind)
}
FIXED = {"noise_multiplier": 0.1, "clipping_norm": 0.5, "num_sampled_clients": len(NODES)}
ADAPTIVE = {"noise_multiplier": 0.1, "num_sampled_clients": len(NODES)}
OPTIONS = {
    "FedAvgM": {"server_momentum": 0.9, "server_learning_rate": 0.5},
    "FedProx": {"proximal_mu": 0.1},
    "QFedAvg": {"client_learning_rate": 0.1, "train_loss_key": "loss"},
    "Bulyan": {"num_malicious_nodes": 1},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 3},
}


def build(name):
    if name in CLUSTERED:
        return CLUSTERED[name]()
    if name.startswith("DifferentialPrivacy"):
        inner = flower.FedAvgM(server_momentum=0.9)
        return CLASSES[name](inner, **(FIXED if "Fixed" in name else ADAPTIVE))
    return CLASSES[name](**OPTIONS.get(name, {}))


CLUSTERED = {
    "ClusteredCosine": lambda: ClusteredCosine(split_rounds=[2, 3]),
    "ClusteredSpectral": lambda: ClusteredSpectral(split_rounds=[2, 3]),
}


def trained(message):
    """A client: what it sends follows from its node, the round and what it got."""
    node_id = message.metadata.dst_node_id
    got = numpy_of(message.content["arrays"])
    server_round = message.content["config"]["server-round"]
    rng = np.random.default_rng([node_id, server_round])
    new = {
        name: ((value + [-1, 1][node_id % 2]) * 0.8 + rng.normal(size=value.shape) * 0.1).astype("float32")
        for name, value in got.items()
    }
    return reply_to(
        message, node_id - 100, new, examples=5 + node_id % 3, loss=float(rng.uniform()), norm_bit=node_id % 2
    )


def trees(message):
    """A client of XGBoost, whose model is one array of bytes."""
    text = json.dumps(booster(message.metadata.dst_node_id))
    return reply_to(message, message.metadata.dst_node_id - 100, {"0": np.frombuffer(text.encode(), "uint8")})


def booster(tree):
    params = {"num_trees": "1", "num_parallel_tree": "1"}
    model = {"gbtree_model_param": params, "iteration_indptr": [0, 1], "trees": [{"id": tree}], "tree_info": [0]}
    return {"learner": {"gradient_booster": {"model": model}}}


def seeded_round(strategy, name, server_round, arrays):
    grid = FakeGrid(NODES, trees if name == "FedXgbBagging" else trained)
    seed = zlib.crc32(f"{server_round}".encode())
    random.seed(seed)
    np.random.seed(seed)
    new, _ = one_round(strategy, server_round, arrays, grid)
    return arrays if new is None else new


def beginning_arrays(name):
    if name == "FedXgbBagging":
        return ArrayRecord({"0": Array(np.frombuffer(json.dumps(booster(0)).encode(), "uint8"))})
    rng = np.random.default_rng(0)
    return arrays_of(kernel=rng.normal(size=(6, 4)).astype("float32"), bias=np.zeros(4, "float32"))


def through_json(plain):
    return json.loads(json.dumps(plain, allow_nan=False))


@pytest.mark.parametrize("name", [*CLASSES, *CLUSTERED])
def test_two_rounds_and_one_after_a_restart_are_three_rounds(name):
    whole, arrays = build(name), beginning_arrays(name)
    of_whole = StrategyMemory(whole)
    for server_round in (1, 2, 3):
        arrays = seeded_round(whole, name, server_round, arrays)

    first, again = build(name), beginning_arrays(name)
    memory = StrategyMemory(first)
    for server_round in (1, 2):
        again = seeded_round(first, name, server_round, again)
    plain, held = memory.state()
    second = build(name)
    of_second = StrategyMemory(second)
    of_second.restore(through_json(plain), held)
    again = seeded_round(second, name, 3, again)

    assert {k: v.tobytes() for k, v in numpy_of(again).items()} == {k: v.tobytes() for k, v in numpy_of(arrays).items()}
    assert state_equal(of_second.state(), of_whole.state())


def state_equal(one, other):
    arrays = zip(one[1].values(), other[1].values(), strict=True)
    return one[0] == other[0] and all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in arrays)


@pytest.mark.parametrize("name", ["FedAdam", "FedYogi", "FedAdagrad", "FedAvgM", "ClusteredCosine"])
def test_the_state_matters(name):
    """Without it the third round is another one, so the test above tests something."""
    whole, arrays = build(name), beginning_arrays(name)
    for server_round in (1, 2):
        arrays = seeded_round(whole, name, server_round, arrays)
    forgetful = seeded_round(build(name), name, 3, arrays.copy())
    remembering = seeded_round(whole, name, 3, arrays)
    assert not np.array_equal(forgetful["kernel"].numpy(), remembering["kernel"].numpy())


def test_options_are_those_of_the_settings_after_a_resume():
    first = flower.FedAdam(eta=0.1)
    memory = StrategyMemory(first)
    seeded_round(first, "FedAdam", 1, beginning_arrays("FedAdam"))
    plain, held = memory.state()
    second = flower.FedAdam(eta=0.01)
    StrategyMemory(second).restore(plain, held)
    assert second.eta == 0.01
    assert np.array_equal(second.m_t["kernel"], first.m_t["kernel"])


class Custom(FedAvg):
    def __init__(self, rate=0.5):
        super().__init__()
        self.rate = rate
        self.rng = np.random.default_rng(3)
        self.dice = random.Random(3)
        self.seen = {}
        self.lines = [lambda: None]
        self.helper = Helper()


class Helper:
    def __init__(self):
        self.count = 0


def test_whatever_a_strategy_of_a_user_keeps_plainly_comes_back():
    first = Custom()
    memory = StrategyMemory(first)
    first.rate = float("nan")
    first.rng.normal(size=5)
    first.dice.random()
    first.helper.count = 7
    first.seen = {3: (1, [np.float32(2.5)]), "x": {1, 2}, None: b"\x00\x01"}
    plain, held = memory.state()
    second = Custom()
    StrategyMemory(second).restore(through_json(plain), held)
    assert np.isnan(second.rate)
    assert second.rng.normal() == first.rng.normal()
    assert second.dice.random() == first.dice.random()
    assert second.helper.count == 7
    assert second.seen == first.seen
    assert type(second.seen[3][1][0]) is np.float32


def test_what_cannot_be_stored_is_refused_by_its_name():
    strategy = Custom()
    memory = StrategyMemory(strategy)
    strategy.lines.append(lambda: None)
    with pytest.raises(FederationError, match=r"lines holds a value of builtins.function"):
        memory.state()


def test_an_object_that_came_later_is_refused():
    strategy = Custom()
    memory = StrategyMemory(strategy)
    strategy.helper = Helper()
    with pytest.raises(FederationError, match="helper holds a value of .*Helper"):
        memory.state()


def test_the_state_of_another_strategy_is_refused():
    plain, held = StrategyMemory(flower.FedAdam()).state()
    with pytest.raises(FederationError, match="Expected FedYogi, got FedAdam"):
        StrategyMemory(flower.FedYogi()).restore(plain, held)


def test_a_state_that_lacks_arrays_is_refused():
    strategy = flower.FedAdam()
    memory = StrategyMemory(strategy)
    seeded_round(strategy, "FedAdam", 1, beginning_arrays("FedAdam"))
    plain, _ = memory.state()
    with pytest.raises(FederationError, match="cannot be read"):
        StrategyMemory(flower.FedAdam()).restore(plain, {})


def test_a_strategy_that_has_not_changed_has_nothing_to_store():
    plain, held = checked_strategy(flower.FedAdam()).state()
    assert plain == {"strategy": {"object": "FedAdam", "attributes": {}}}
    assert held == {}


def test_a_wrapped_strategy_is_stored_with_what_wraps_it():
    name = "DifferentialPrivacyServerSideAdaptiveClipping"
    strategy = build(name)
    memory = StrategyMemory(strategy)
    seeded_round(strategy, name, 1, beginning_arrays(name))
    attributes = memory.state()[0]["strategy"]["attributes"]
    assert attributes["clipping_norm"] == strategy.clipping_norm != 0.1
    assert "momentum_vector" in attributes["strategy"]["attributes"]


def test_arrays_are_copies_that_later_rounds_do_not_change():
    strategy = Custom()
    memory = StrategyMemory(strategy)
    strategy.seen = {"momentum": np.zeros(3)}
    _, held = memory.state()
    strategy.seen["momentum"] += 1
    assert [array.sum() for array in held.values()] == [0.0]


def test_messages_of_these_tests_are_those_of_flower():
    assert trained(message_to(101, beginning_arrays(""), **{"server-round": 1})).content["client"]["proc-id"] == 1


class Accountant:
    """Anything that gives and takes its state."""

    def __init__(self):
        self.lock, self.spent = threading.Lock(), 0.0

    def state_dict(self):
        return {"spent": self.spent}

    def load_state_dict(self, state):
        self.spent = state["spent"]


def test_what_gives_its_state_itself_is_asked_for_it():
    first, second = flower.FedAvg(), flower.FedAvg()
    first.accountant, second.accountant = Accountant(), Accountant()
    memory = StrategyMemory(first)
    first.accountant.spent = 0.25
    plain, held = memory.state()
    StrategyMemory(second).restore(through_json(plain), held)
    assert second.accountant.spent == 0.25
