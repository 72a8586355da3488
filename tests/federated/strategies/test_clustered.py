"""Clients whose updates point different ways get models of their own; those of one law stay together."""

import json
import random

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import FedAvg

from experiments_manager.federated.strategies.clustered import Clustered, ClusteredCosine, ClusteredSpectral
from experiments_manager.federated.strategies.reply_checks import checked_replies
from tests.helpers.federations import FakeGrid, arrays_of, numpy_of, one_round, reply_to, strategy_of

SIZE = 400
TARGETS = np.random.default_rng(99).normal(size=(4, SIZE)).astype("float32")
TWO = [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
THREE = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 0]
ALIKE = [0] * 8
STRATEGIES = {
    "cosine": lambda **options: ClusteredCosine(**options),
    "cosine at rounds": lambda **options: ClusteredCosine(split_rounds=[2, 3, 4], **options),
    "spectral": lambda **options: ClusteredSpectral(**options),
}


class Clients:
    """Each goes half of the way to the target of its law, with noise that follows from round and number."""

    def __init__(self, laws, noise=0.1, examples=lambda number: 10):
        self.laws, self.noise, self.examples, self.base = laws, noise, examples, 100

    def __call__(self, message):
        number = message.metadata.dst_node_id - self.base
        rng = np.random.default_rng([number, message.content["config"]["server-round"]])
        weights = message.content["arrays"]["dense/kernel"].numpy()
        new = weights + 0.5 * (TARGETS[self.laws[number]] - weights) + self.noise * rng.normal(size=SIZE)
        statistics = np.full(3, 1000.0 * rng.normal(), "float32")
        arrays = arrays_of(**{"dense/kernel": new.astype("float32"), "norm/moving_mean": statistics})
        return reply_to(message, number, arrays, examples=self.examples(number))

    def grid(self, numbers=None):
        return FakeGrid(
            [self.base + number for number in (range(len(self.laws)) if numbers is None else numbers)], self
        )


def start():
    return arrays_of(**{"dense/kernel": np.zeros(SIZE, "float32"), "norm/moving_mean": np.zeros(3, "float32")})


def run(strategy, clients, rounds=8, first=1, arrays=None, numbers=None):
    arrays = start() if arrays is None else arrays
    for server_round in range(first, rounds + 1):
        arrays, _ = one_round(strategy, server_round, arrays, clients.grid(numbers))
    return arrays


def groups(strategy):
    return sorted(cluster.proc_ids for cluster in strategy.clusters)


def members(laws):
    return sorted(tuple(n for n, law in enumerate(laws) if law == each) for each in set(laws))


def bits(record):
    return {name: value.tobytes() for name, value in numpy_of(record).items()}


@pytest.mark.parametrize("kind", STRATEGIES)
@pytest.mark.parametrize("laws", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize("examples", [lambda n: 10, lambda n: 10 + 9 * n], ids=["equal", "unequal"])
def test_known_groups_are_found(kind, laws, examples):
    strategy = STRATEGIES[kind]()
    run(strategy, Clients(laws, examples=examples))
    assert groups(strategy) == members(laws)
    assert strategy.score(dict(enumerate(laws))) == 1.0
    for cluster in strategy.clusters:
        weights = cluster.arrays["dense/kernel"].numpy()
        assert np.abs(weights - TARGETS[laws[cluster.proc_ids[0]]]).mean() < 0.1


@pytest.mark.parametrize("kind", STRATEGIES)
@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_nothing_is_split_where_all_are_alike(kind, noise):
    strategy = STRATEGIES[kind]()
    run(strategy, Clients(ALIKE, noise), rounds=12)
    assert groups(strategy) == [tuple(range(8))]
    assert strategy.history == []


@pytest.mark.parametrize("kind", STRATEGIES)
def test_as_long_as_there_is_one_cluster_all_is_as_with_the_mean(kind):
    clients = Clients(ALIKE, examples=lambda number: 3 + number)
    assert bits(run(STRATEGIES[kind](), clients)) == bits(run(FedAvg(), clients))


def test_the_number_of_groups_may_be_told():
    strategy = ClusteredSpectral(clusters_wanted=3, split_rounds=[2, 5])
    run(strategy, Clients(THREE))
    assert groups(strategy) == members(THREE)
    assert len(strategy.history) == 1


def test_a_lone_client_may_get_a_model_of_its_own():
    laws = [1, 0, 0, 0, 0, 0]
    strategy = ClusteredCosine()
    run(strategy, Clients(laws))
    assert groups(strategy) == [(0,), (1, 2, 3, 4, 5)]
    stays = ClusteredCosine(min_members=2)
    run(stays, Clients(laws))
    assert groups(stays) == [(0, 1, 2, 3, 4, 5)]


def test_thresholds_of_the_paper_hold_a_split_up():
    for options in ({"eps1": 1e-6}, {"eps2": 1e6}, {"gamma_max": 0.999}):
        strategy = ClusteredCosine(**options)
        run(strategy, Clients(TWO))
        assert len(strategy.clusters) == 1


def test_measures_tell_the_lengths_by_which_thresholds_are_chosen():
    strategy = ClusteredCosine(eps1=1e-6)
    run(strategy, Clients(TWO, noise=0.0), rounds=10)
    (measure,) = strategy.measures
    assert (measure["round"], measure["cluster"]) == (10, 0)
    assert measure["mean_norm"] < 0.01 * measure["max_norm"]


def test_each_client_is_sent_the_model_of_its_cluster():
    strategy, clients = ClusteredSpectral(), Clients(TWO)
    arrays = run(strategy, clients, rounds=4)
    models = {number: bits(cluster.arrays) for cluster in strategy.clusters for number in cluster.proc_ids}
    assert len({str(model) for model in models.values()}) == 2
    for configure in (strategy.configure_train, strategy.configure_evaluate):
        messages = list(configure(5, arrays, ConfigRecord({"local-epochs": 1}), clients.grid()))
        assert len(messages) == len(TWO)
        for message in messages:
            assert bits(message.content["arrays"]) == models[message.metadata.dst_node_id - 100]
            assert dict(message.content["config"]) == {"local-epochs": 1, "server-round": 5}


def test_the_global_model_is_the_mean_of_the_clusters_by_samples():
    strategy = ClusteredSpectral()
    arrays = run(strategy, Clients(TWO, examples=lambda number: 10 + 9 * number))
    total = sum(cluster.examples for cluster in strategy.clusters)
    by_hand = sum(c.arrays["dense/kernel"].numpy() * (c.examples / total) for c in strategy.clusters)
    np.testing.assert_array_equal(arrays["dense/kernel"].numpy(), by_hand)
    assert total == sum(10 + 9 * number for number in range(10))


@pytest.mark.parametrize("law", [0, 1])
def test_a_client_that_joins_late_gets_the_biggest_model_and_then_the_nearest(law):
    laws = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, law]
    strategy, clients = ClusteredSpectral(), Clients(laws)
    arrays = run(strategy, clients, rounds=4, numbers=range(10))
    biggest = max(strategy.clusters, key=lambda cluster: len(cluster.proc_ids))
    messages = strategy.configure_train(5, arrays, ConfigRecord(), clients.grid([10, 0]))
    assert all(bits(message.content["arrays"]) == bits(biggest.arrays) for message in messages)
    run(strategy, clients, first=5, rounds=5, arrays=arrays)
    assert groups(strategy) == members(laws)


def test_a_reply_that_began_with_the_model_of_another_cluster_is_not_averaged():
    laws = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    strategy, clients = ClusteredSpectral(), Clients(laws, noise=0.0)
    arrays = run(strategy, clients, rounds=10)
    clients.base = 500  # all SuperNodes started again, under other ids
    run(strategy, clients, first=11, rounds=11, arrays=arrays)
    assert groups(strategy) == members(laws)
    small = next(cluster for cluster in strategy.clusters if 6 in cluster.proc_ids)
    assert np.abs(small.arrays["dense/kernel"].numpy() - TARGETS[1]).max() < 0.05


def test_members_that_did_not_answer_in_the_round_of_a_split_are_placed_when_they_do():
    strategy, clients = ClusteredSpectral(), Clients(TWO)
    arrays = run(strategy, clients, rounds=2)
    arrays = run(strategy, clients, first=3, rounds=3, arrays=arrays, numbers=range(8))
    assert sorted(number for group in groups(strategy) for number in group) == list(range(8))
    run(strategy, clients, first=4, rounds=5, arrays=arrays)
    assert groups(strategy) == members(TWO)


@pytest.mark.parametrize("kind", STRATEGIES)
def test_the_same_rounds_give_the_same_bits_in_any_order_of_replies(kind):
    results = []
    for reverse in (False, True):
        strategy, clients, arrays = STRATEGIES[kind](), Clients(THREE), start()
        for server_round in range(1, 7):
            messages = list(strategy.configure_train(server_round, arrays, ConfigRecord(), clients.grid()))
            replies = clients.grid().send_and_receive(messages[::-1] if reverse else messages)
            arrays, _ = strategy.aggregate_train(server_round, checked_replies(replies, arrays)[0])
        results.append((bits(arrays), json.dumps(strategy.history), groups(strategy)))
    assert results[0] == results[1]


@pytest.mark.parametrize("stop", [2, 3, 5])
@pytest.mark.parametrize("name", ["ClusteredCosine", "ClusteredSpectral"])
def test_a_server_that_starts_again_goes_on_with_the_same_clusters(name, stop):
    setting = {"strategy": name}
    clients = Clients(THREE, examples=lambda number: 10 + number)
    whole = strategy_of(setting)
    end = run(whole, clients, rounds=8)

    first = strategy_of(setting)
    arrays = run(first, clients, rounds=stop)
    plain, held = first.state()
    second = strategy_of(setting)
    second.restore(json.loads(json.dumps(plain)), held, arrays)
    assert [c.proc_ids for c in second.clusters] == [c.proc_ids for c in first.clusters]
    assert bits(run(second, clients, first=stop + 1, rounds=8, arrays=arrays)) == bits(end)
    assert [bits(c.arrays) for c in second.clusters] == [bits(c.arrays) for c in whole.clusters]
    assert second.clustered.history == whole.clustered.history


def test_history_tells_what_can_be_drawn_of_a_split():
    strategy = ClusteredSpectral()
    run(strategy, Clients(TWO))
    (split,) = strategy.history
    assert (split["round"], split["cluster"], split["proc_ids"]) == (3, 0, list(range(10)))
    assert split["groups"] == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    assert np.array(split["cosines"]).shape == (10, 10)
    assert split["separation"] > 1
    json.dumps(split, allow_nan=False)


def test_clusters_hold_variables_of_all_dtypes_for_the_server():
    strategy = strategy_of({"strategy": "ClusteredSpectral", "options": {"split_rounds": [1]}})
    grid = FakeGrid(range(100, 106), lambda message: counted(message))
    arrays = arrays_of(kernel=np.zeros(SIZE, "float32"), steps=np.int64(0))
    arrays, _ = one_round(strategy, 1, arrays, grid)
    assert [cluster.proc_ids for cluster in strategy.clusters] == [(0, 2, 4), (1, 3, 5)]
    for cluster in strategy.clusters:
        assert list(cluster.arrays) == ["kernel", "steps"]
        assert cluster.arrays["steps"].dtype == "int64"
    arrays, _ = one_round(strategy, 2, arrays, grid)
    assert arrays["steps"].numpy() == 2


def counted(message):
    number, got = message.metadata.dst_node_id - 100, numpy_of(message.content["arrays"])
    return reply_to(message, number, {"kernel": got["kernel"] + TARGETS[number % 2], "steps": got["steps"] + 1})


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "build",
    [ClusteredCosine, lambda **options: ClusteredSpectral(split_rounds=[3, 6, 9], **options)],
    ids=["cosine", "spectral"],
)
def test_groups_are_found_where_half_of_the_clients_train_in_a_round(build, seed):
    random.seed(seed)
    strategy = build(fraction_train=0.5)
    run(strategy, Clients(TWO), rounds=20)
    assert groups(strategy) == members(TWO)


class Halved(Clustered):
    """Halves every cluster in every round."""

    def __init__(self):
        super().__init__(centred=False, ignored=())

    def groups(self, server_round, alike):
        count = len(alike.norms)
        return [int(place >= (count + 1) // 2) for place in range(count)], 1.0


def test_a_member_that_answered_with_the_model_of_another_cluster_is_placed_when_its_own_has_split():
    strategy, clients = Halved(), Clients([0] * 7)
    arrays = run(strategy, clients, rounds=1)
    assert groups(strategy) == [(0, 1, 2, 3), (4, 5, 6)]
    moved = FakeGrid([*clients.grid(range(6)).node_ids, 900], lambda message: answered_elsewhere(clients, message))
    one_round(strategy, 2, arrays, moved)
    assert groups(strategy) == [(0, 1), (2, 3), (4,), (5,)]
    one_round(strategy, 3, arrays, moved)
    assert 6 in [number for group in groups(strategy) for number in group]


def answered_elsewhere(clients, message):
    """The node of client 6 has another id since it started again."""
    if message.metadata.dst_node_id != 900:
        return clients(message)
    return reply_to(message, 6, message.content["arrays"].copy(), examples=10)
