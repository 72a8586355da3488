"""TLS and passwords against a real broker, by `install/kafka/server-secure.properties`, and what failures tell."""

import contextlib
import logging
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from experiments_manager.kafka.answering.session import AnsweringSession
from experiments_manager.kafka.connection import BrokerConnection
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.reading.reader import load_structures
from experiments_manager.kafka.topics import Topics
from tests.helpers.kafka_brokers import unused_port, what_is_missing
from tests.helpers.own_brokers import read_properties, run_kafka, running_brokers
from tests.helpers.topics import numbered, produce, samples

MISSING = what_is_missing() or (
    "" if shutil.which("openssl") else "openssl is not installed: sudo apt-get install openssl"
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

INSTALL = Path(__file__).resolve().parents[2] / "install/kafka"
PASSWORD = "tr0ub4dor-and-3"
WRONG = "correct-horse-battery"


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make_authority(folder, name):
    """Makes a certificate authority, as install/kafka/README.md says."""
    subject = ["-subj", f"/CN={name}", "-days", "30", "-nodes"]
    openssl("req", "-x509", "-newkey", "rsa:2048", *subject, "-keyout", folder / f"{name}.key", "-out", folder / name)
    return folder / name


def make_certificate(folder, authority, host):
    """Makes the key and the certificate of a broker in one file, as install/kafka/README.md says."""
    key, request, certificate, names = (folder / f"broker.{end}" for end in ("key", "csr", "crt", "ext"))
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host}", "-keyout", key, "-out", request)
    names.write_text(f"subjectAltName=DNS:{host},IP:127.0.0.1\n")
    signed = ["-CA", authority, "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "30", "-extfile", names]
    openssl("x509", "-req", "-in", request, *signed, "-out", certificate)
    file = folder / "broker.pem"
    file.write_text(key.read_text() + certificate.read_text())
    return file


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """A broker with TLS and passwords: its port, the file of its authority, and the port without both."""
    folder = tmp_path_factory.mktemp("secure")
    authority = make_authority(folder, "ca.crt")
    internal, controller, clients = unused_port(), unused_port(), unused_port()
    text = (INSTALL / "server-secure.properties").read_text()
    for old, new in {
        "127.0.0.1:19092": f"127.0.0.1:{internal}",
        "127.0.0.1:9093": f"127.0.0.1:{controller}",
        "0.0.0.0:9092": f"127.0.0.1:{clients}",
        "broker.example.org:9092": f"localhost:{clients}",
        "/etc/kafka/secrets/broker.pem": str(make_certificate(folder, authority, "localhost")),
    }.items():
        assert old in text
        text = text.replace(old, new)
    with running_brokers(folder, read_properties(text), answering=[internal]):
        (folder / "user.conf").write_text(f"SCRAM-SHA-512=password={PASSWORD}")
        user = ["--entity-type", "users", "--entity-name", "trainer", "--add-config-file", folder / "user.conf"]
        run_kafka("kafka.admin.ConfigCommand", "--bootstrap-server", f"127.0.0.1:{internal}", "--alter", *user)
        yield clients, authority, internal


@pytest.fixture
def connect(secure, monkeypatch):
    """Makes a connection with the options of the README, some of them changed."""
    monkeypatch.setattr("experiments_manager.kafka.topics.REQUEST_SECONDS", 5.0)
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    monkeypatch.setenv("WRONG_PASSWORD", WRONG)
    clients, authority, _ = secure
    options = {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(authority),
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "trainer",
        "sasl.password": "${KAFKA_PASSWORD}",
    }

    def connected(changes=None, without=()):
        chosen = {name: value for name, value in (options | (changes or {})).items() if name not in without}
        return BrokerConnection([f"localhost:{clients}"], chosen)

    return connected


def test_samples_go_to_a_secured_broker_and_back(connect, topic):
    connection = connect()
    produce(connection, topic, numbered(0, 100))
    assert np.array_equal(samples(connection, topic), numbered(0, 100))


@pytest.mark.parametrize(
    ("changes", "without", "told"),
    [
        ({"sasl.password": "${WRONG_PASSWORD}"}, (), "refuses user trainer.*Correct sasl.username and sasl.password"),
        ({"sasl.username": "nobody"}, (), "refuses user nobody"),
        ({"sasl.mechanism": "PLAIN"}, (), "does not take the mechanism PLAIN.*SCRAM-SHA-512.*sasl.mechanism"),
        ({}, ("ssl.ca.location",), "certificate .*not trusted.*ssl.ca.location"),
        (
            {"security.protocol": "SSL"},
            ("sasl.mechanism", "sasl.username", "sasl.password"),
            "closes the connection.*security.protocol.*got SSL",
        ),
        ({"security.protocol": "PLAINTEXT"}, (), "closes the connection.*security.protocol.*got PLAINTEXT"),
        ({"ssl.ca.location": "/nowhere/ca.crt"}, (), "kafka_options: .*ssl.ca.location failed"),
        ({"security.protocol": "SASL"}, (), "kafka_options.*security.protocol"),
        ({"sasl.passwrd": "${WRONG_PASSWORD}"}, (), "kafka_options.*sasl.passwrd"),
    ],
)
def test_what_is_wrong_is_told_without_the_secret(connect, topic, changes, without, told, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    connection = connect(changes, without)
    with pytest.raises(TopicError, match=told) as failure:
        Topics(connection).range_of(topic)
    output = capfd.readouterr()
    everything = f"{failure.value} {failure.value.__cause__} {connection!r} {vars(connection)}"
    everything += output.out + output.err + caplog.text
    assert PASSWORD not in everything
    assert WRONG not in everything


def test_tls_to_a_port_without_it_is_told(secure, connect, topic):
    connection = BrokerConnection([f"localhost:{secure[2]}"], {"security.protocol": "SSL"})
    with pytest.raises(TopicError, match="does not speak TLS.*security.protocol"):
        Topics(connection).range_of(topic)


def test_a_certificate_of_another_authority_is_told(connect, topic, tmp_path):
    connection = connect({"ssl.ca.location": str(make_authority(tmp_path, "other.crt"))})
    with pytest.raises(TopicError, match="not trusted.*ssl.ca.location"):
        Topics(connection).range_of(topic)


def test_a_wrong_password_ends_reading_and_answering_too(connect, topic):
    produce(connect(), topic, numbered(0, 3))
    wrong = connect({"sasl.password": "${WRONG_PASSWORD}"})
    with pytest.raises(TopicError, match="refuses user trainer"):
        load_structures(wrong, topic)
    session = AnsweringSession(wrong, topic, "any")
    with contextlib.ExitStack() as stack, pytest.raises(TopicError, match="refuses user trainer"):
        stack.callback(session.close)
        for _ in range(100):
            session.take(1)
