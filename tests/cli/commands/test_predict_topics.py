"""`predict --from kafka:TOPIC --to kafka:TOPIC`: real broker, real model server, the command in this process."""

import csv
import json

import numpy as np
import pytest

from experiments_manager.cli.main import run
from experiments_manager.kafka.reading.reader import load_structures
from experiments_manager.kafka.records.record_format import RecordFormat
from experiments_manager.kafka.topics import Topics
from tests.helpers.topics import messages, numbered, places, produce, samples, send_bytes

pytestmark = pytest.mark.slow


@pytest.fixture
def ask(kafka_broker, model_server, topic):
    """Runs `predict` from the test's topic to one beside it, until nothing comes any more; gives the exit code."""

    def asked(*more, model="linear", to=None):
        server = ["--address", f"127.0.0.1:{model_server.grpc}", "--model-name", model]
        ends = ["--from", f"kafka:{topic}", "--to", to or f"kafka:{topic}-answers", "--servers", kafka_broker]
        return run(["predict", *server, *ends, "--idle-timeout", "0.5", *map(str, more)])

    return asked


def test_each_record_of_a_topic_has_one_answer_in_the_other(ask, kafka, topic, capfd):
    produce(kafka, topic, (numbered(0, 1000), np.zeros(1000)), partitions=2)
    assert ask("--json") == 0
    told = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (told["answers"], told["dead"]) == (1000, 0)
    answers = messages(kafka, topic + "-answers")
    assert sorted(places(answers)) == [(partition, offset) for partition in (0, 1) for offset in range(500)]
    assert all(message.partition() == place[0] for message, place in zip(answers, places(answers), strict=True))
    assert dict(answers[0].headers())["model_version"] == b"2"
    y = samples(kafka, topic + "-answers")["y"]
    assert sorted(y[:, 2].tolist()) == [5.0 * number + 1 for number in range(1000)]


def test_a_second_call_goes_on_where_the_first_ended(ask, kafka, topic):
    produce(kafka, topic, numbered(0, 40))
    assert ask("--count", 25) == 0
    assert len(messages(kafka, topic + "-answers")) == 25
    assert ask() == 0
    assert sorted(places(messages(kafka, topic + "-answers"))) == [(0, offset) for offset in range(40)]
    assert ask() == 0
    assert len(messages(kafka, topic + "-answers")) == 40


def test_a_record_of_many_samples_has_an_answer_of_as_many_and_keys_are_kept(ask, kafka, topic):
    produce(kafka, topic, numbered(0, 10), samples_per_record=4)
    form = RecordFormat(next(iter(load_structures(kafka, topic).values())))
    send_bytes(kafka, topic, *form.encode(numbered(10, 1)), key=b"the last")
    assert ask() == 0
    answers = messages(kafka, topic + "-answers")
    assert [message.key() for message in answers] == [message.key() for message in messages(kafka, topic)]
    assert answers[-1].key() == b"the last"
    decoded, counts = RecordFormat(load_structures(kafka, topic + "-answers").popitem()[1]).decode(
        [message.value() for message in answers]
    )
    assert counts.tolist() == [4, 4, 2, 1]
    assert decoded["y"][:, 0].tolist() == [5.0 * number + 1 for number in range(11)]


def test_what_cannot_be_decoded_or_is_refused_goes_to_the_dead_letters(ask, kafka, topic, capfd):
    words = np.array([b"one", b"bad", b"two", b"zero"], object)
    produce(kafka, topic, words)
    send_bytes(kafka, topic, b"no record", None, b"\xe5\x01\x01\x00\x01\x02\x03\x04abc")
    produce(kafka, topic, np.array([b"one"], object))
    assert ask(model="words") == 0
    answers = messages(kafka, topic + "-answers")
    assert places(answers) == [(0, 0), (0, 2), (0, 3), (0, 7)]
    assert samples(kafka, topic + "-answers")["loud"].tolist() == [b"one!", b"two!", b"zero!", b"one!"]
    dead = messages(kafka, topic + ".dead")
    assert places(dead) == [(0, 1), (0, 4), (0, 5), (0, 6)]
    reasons = [dict(message.headers())["reason"].decode() for message in dead]
    assert "a bad word" in reasons[0]
    assert "does not begin like one of experiments_manager" in reasons[1]
    assert "has no value" in reasons[2]
    assert "another structure" in reasons[3]
    assert dead[1].value() == b"no record"
    assert [message.key() for message in dead] == [b"0:1", b"0:4", b"0:5", b"0:6"]
    assert dict(dead[0].headers())["source_key"] == messages(kafka, topic)[1].key()
    told = capfd.readouterr().err
    assert f"topic {topic}.dead: 4 without an answer" in told


def test_too_many_records_that_cannot_be_decoded_end_it(ask, kafka, topic, capfd):
    produce(kafka, topic, numbered(0, 5))
    send_bytes(kafka, topic, *[b"no record"] * 3)
    produce(kafka, topic, numbered(5, 5))
    assert ask("--max-bad", "0.002", "--batch-size", "1", "--in-flight", "1") == 2
    told = capfd.readouterr().err
    assert f"3 of 8 records of topic {topic} cannot be decoded, the last at partition 0, offset 7" in told
    assert "Expected 0.20% at most (kafka_max_bad)" in told
    assert ask("--max-bad", "0.003") == 0
    assert places(messages(kafka, topic + "-answers")) == [
        (0, offset) for offset in range(13) if offset not in (5, 6, 7)
    ]
    assert places(messages(kafka, topic + ".dead")) == [(0, 5), (0, 6), (0, 7)]


def test_how_many_records_retention_removed_is_told(ask, kafka, topic, caplog):
    confluent = pytest.importorskip("confluent_kafka")
    produce(kafka, topic, numbered(0, 40))
    assert ask("--count", 10) == 0
    admin = confluent.admin.AdminClient(kafka.config())
    place = confluent.TopicPartition(topic, 0, 25)
    admin.delete_records([place])[place].result(15)
    assert ask() == 0
    told = "partition 0: 15 records (offsets 10 to 24) have no answer: retention removed them."
    assert caplog.text.count(told) == 1
    assert places(messages(kafka, topic + "-answers")) == [(0, n) for n in (*range(10), *range(25, 40))]


def test_dictionaries_go_to_inputs_by_their_names(ask, kafka, topic):
    produce(kafka, topic, {"other": np.arange(3), "x": numbered(0, 3)})
    assert ask() == 0
    assert samples(kafka, topic + "-answers")["y"][:, 0].tolist() == [1.0, 6.0, 11.0]


def test_records_that_do_not_fit_the_model_are_refused_with_both_sides(ask, kafka, topic, capfd):
    produce(kafka, topic, {"x": np.zeros((3, 4), "float32"), "z": np.zeros(3)})
    assert ask() == 2
    told = capfd.readouterr().err
    assert "do not fit the model linear" in told
    assert "The model takes: x (float32 [any, 3])" in told
    assert "A sample holds:  x/x (4) float32, x/z () float64" in told
    assert topic + "-answers" not in _topics(kafka)


def test_a_table_takes_answers_too(ask, kafka, topic, tmp_path, capfd):
    produce(kafka, topic, numbered(0, 5), samples_per_record=2)
    file = tmp_path / "answers.csv"
    assert ask(to=str(file)) == 0
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["sample"] for row in rows] == ["0:0[0]", "0:0[1]", "0:1[0]", "0:1[1]", "0:2"]
    assert [float(row["y_0"]) for row in rows] == [1.0, 6.0, 11.0, 16.0, 21.0]
    assert ask(to=str(tmp_path / "answers.npz")) != 0
    assert "--to FILE.csv" in capfd.readouterr().err


def test_a_file_is_answered_into_a_topic(kafka, kafka_broker, model_server, topic, tmp_path):
    np.save(tmp_path / "x.npy", numbered(0, 7))
    server = ["--address", f"127.0.0.1:{model_server.grpc}", "--model-name", "linear", "--servers", kafka_broker]
    assert run(["predict", *server, "--from", str(tmp_path / "x.npy"), "--to", f"kafka:{topic}"]) == 0
    assert [dict(message.headers())["sample"] for message in messages(kafka, topic)] == [b"%d" % n for n in range(7)]
    assert samples(kafka, topic)["y"][:, 0].tolist() == [5.0 * number + 1 for number in range(7)]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--from", "kafka:"], "No topic is named. Expected kafka:TOPIC"),
        (["--from", "kafka:a", "--to", "kafka:a"], "would become questions"),
        (["--from", "kafka:a", "--to", "kafka:b", "--scale", "2"], "--scale is for files"),
        (["--group", "g", "--to", "kafka:b"], "--group is for reading a topic"),
        (["--servers", "localhost:1"], "--servers is for topics"),
        (["--from", "kafka:a", "--to", "kafka:b", "--kafka-option", "x"], "Expected NAME=VALUE"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, told, model_server, kafka_broker, capfd):
    server = ["--address", f"127.0.0.1:{model_server.grpc}", "--model-name", "linear"]
    assert run(["predict", *server, *options]) == 2
    assert told in capfd.readouterr().err


def test_a_missing_topic_and_a_missing_structure_are_named(ask, kafka, topic, capfd):
    assert ask() == 2
    assert f"Topic {topic} not found" in capfd.readouterr().err
    Topics(kafka).create(topic)
    assert ask() == 2
    assert f"No structure is stored for topic {topic}." in capfd.readouterr().err


def _topics(connection):
    import confluent_kafka.admin

    return confluent_kafka.admin.AdminClient(connection.config()).list_topics(timeout=30).topics
