"""What `install/kafka/` says, tried on real brokers where that can be done without containers."""

import re
from pathlib import Path

import pytest
import yaml

from experiments_manager.kafka.connection import BrokerConnection
from tests.helpers.kafka_brokers import unused_port, what_is_missing
from tests.helpers.own_brokers import read_properties, running_brokers
from tests.helpers.topics import messages, numbered, produce

INSTALL = Path(__file__).resolve().parents[2] / "install/kafka"
needs_kafka = pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing())


def compose():
    return yaml.safe_load((INSTALL / "compose.yaml").read_text())


def properties_of(environment):
    """Turns variables into properties as the image of Apache Kafka does."""
    own = {"KAFKA_HEAP_OPTS"}
    found = {name: value for name, value in environment.items() if name.startswith("KAFKA_") and name not in own}
    return {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in found.items()}


def test_all_recipes_run_the_same_release():
    [release] = re.findall(r"<kafka\.version>(.+?)<", (INSTALL / "pom.xml").read_text())
    for name in ("compose.yaml", "Dockerfile", "kafka.def"):
        assert set(re.findall(r"apache/kafka:([\d.]+)", (INSTALL / name).read_text())) == {release}


def test_compose_shows_brokers_to_this_machine_alone():
    services = compose()["services"]
    assert all(port.startswith("127.0.0.1:") for one in services.values() for port in one["ports"])
    assert len({one["environment"]["KAFKA_NODE_ID"] for one in services.values()}) == len(services) == 3
    assert {volume.split(":")[0] for one in services.values() for volume in one["volumes"]} == set(compose()["volumes"])


@needs_kafka
@pytest.mark.slow
def test_the_brokers_of_compose_form_a_cluster_that_keeps_three_copies(tmp_path, topic):
    import confluent_kafka.admin

    services = compose()["services"]
    ports = {name: {kind: unused_port() for kind in ("19092", "9093", "host")} for name in services}
    brokers = []
    for name, service in services.items():
        found = properties_of(service["environment"])
        host = found["advertised.listeners"].rsplit(":", 1)[1]
        for key in ("listeners", "advertised.listeners", "controller.quorum.voters"):
            value = found[key].replace("://:", f"://{name}:")
            value = re.sub(rf"(localhost|{name}):{host}\b", f"127.0.0.1:{ports[name]['host']}", value)
            found[key] = re.sub(r"(kafka\d):(\d+)", lambda at: f"127.0.0.1:{ports[at[1]][at[2]]}", value)
        brokers.append(found)
    with running_brokers(tmp_path, *brokers, answering=[of_one["host"] for of_one in ports.values()]):
        connection = BrokerConnection([f"127.0.0.1:{of_one['host']}" for of_one in ports.values()])
        produce(connection, topic, numbered(0, 100), partitions=3)
        assert len(messages(connection, topic)) == 100
        admin = confluent_kafka.admin.AdminClient(connection.config())
        copies = admin.list_topics(topic, timeout=30).topics[topic].partitions.values()
        assert [len(one.replicas) for one in copies] == [3, 3, 3]


@needs_kafka
@pytest.mark.slow
def test_a_broker_runs_with_the_properties_of_the_images(tmp_path, topic):
    port, controller = unused_port(), unused_port()
    text = (INSTALL / "server.properties").read_text()
    text = text.replace("127.0.0.1:9092", f"127.0.0.1:{port}").replace("127.0.0.1:9093", f"127.0.0.1:{controller}")
    with running_brokers(tmp_path, read_properties(text), answering=[port]):
        connection = BrokerConnection([f"127.0.0.1:{port}"])
        produce(connection, topic, numbered(0, 10))
        assert len(messages(connection, topic)) == 10
