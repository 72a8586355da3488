"""Clients whose data are Kafka topics of their own: whole ones, and live ones whose place is kept over rounds."""

import json

import numpy as np
import pytest

from experiments_manager import api
from experiments_manager.federated.errors import FederationError
from tests.helpers.simulated_federations import arrays, same
from tests.helpers.topics import produce

pytest.importorskip("flwr")
pytestmark = pytest.mark.slow

CLIENTS = 2
TARGETS = np.array([[1.0], [2.0], [3.0]], "float32")


@pytest.fixture
def from_topics(federation, kafka_broker, kafka, topic):
    """Writes a settings module whose clients read a topic each, of 24 samples."""
    for client in range(CLIENTS):
        x = np.random.default_rng(client).normal(size=(24, 3)).astype("float32")
        produce(kafka, f"{topic}-{client}", (x, x @ TARGETS), partitions=2)

    def write(**replaced):
        return federation.write(
            f'kafka_topics = {{"train": f"{topic}-{{hparams[\'procID\']}}", "validation": None}}',
            hparams='{"procID": 0}',
            consume_data_from_kafka="True",
            kafka_bootstrap_servers=f'["{kafka_broker}"]',
            **{"federated": f'{{"rounds": 3, "clients": {CLIENTS}}}', **replaced},
        )

    return write


@pytest.mark.parametrize(
    "replaced",
    [
        {},
        {"kafka_cache": "0", "shuffle": "True"},
        {"kafka_cache": "0", "steps_per_epoch": "4"},
        {"kafka_mode": '"live"', "steps_per_epoch": "2"},
    ],
    ids=["in memory", "read in each round", "passes over rounds", "live"],
)
def test_topics_give_the_same_whoever_trains_and_after_a_resume(from_topics, several_models, replaced):
    federation = from_topics(**replaced)
    whole = federation.simulate("whole")
    resumed = api.resume(federation.simulate("stopped", workers=2, stop_after=2).run_dir, quiet=True)
    assert (resumed.state, resumed.epochs) == ("finished", 3)
    assert same(whole, resumed)


def test_a_live_topic_is_read_on_from_where_the_last_round_ended(from_topics):
    federation = from_topics(kafka_mode='"live"', steps_per_epoch="2")
    kept = arrays(federation.simulate(), "clients")
    for client in range(CLIENTS):
        place = json.loads(kept[f"{client}/plain"].tobytes())["position"]["place"]
        assert sum(place["records"]["offsets"].values()) == 3 * 2 * 4


def test_a_client_with_an_empty_topic_is_left_out_until_something_comes(from_topics, kafka, topic):
    federation = from_topics(
        kafka_mode='"live"',
        kafka_idle_timeout="1.0",
        steps_per_epoch="6",
        federated=f'{{"rounds": 3, "clients": {CLIENTS}, "min_clients": 1}}',
    )
    x = np.ones([24, 3], "float32")

    class Producing:
        def on_epoch(self, report):
            produce(kafka, f"{topic}-{0 if report.epoch == 1 else 1}", (x, x @ TARGETS))

        def __getattr__(self, name):
            return lambda *content: None

    result = federation.simulate(also=[Producing()])
    assert result.epochs == 3
    left_out = [text.split(" was left out")[0] for text in federation.watching.said if " was left out" in text]
    assert left_out == ["Round 2: client 1", "Round 3: client 0"]


def test_a_group_of_readers_is_refused(from_topics):
    federation = from_topics(kafka_mode='"live"', steps_per_epoch="2", kafka_group='"shared"')
    with pytest.raises(FederationError, match="kafka_group is wrong: clients of a federation"):
        federation.simulate()
