"""Training on a topic that never ends: waiting, ending, test-then-train, and records that cannot be decoded."""

import threading

import numpy as np
import pytest

from experiments_manager.kafka.connection import confluent_kafka
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.producing.producer import SampleProducer
from experiments_manager.kafka.reading.reader import read_range
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.kafka.topics import Topics
from experiments_manager.training.feeds.topics import topic_feed

pytestmark = pytest.mark.slow
REQUEST_SECONDS = 15


def samples(first, last):
    number = np.arange(first, last)
    x = np.stack([np.sin(number), np.cos(number), number / 100], 1).astype("float32")
    return x, np.tanh(x.sum(axis=1, keepdims=True))


@pytest.fixture
def produce(kafka, topic):
    """Sends so many further samples to the test's topic, and as many records that are none as are told."""
    sent = [0]

    def send(count, partitions=2):
        producer = SampleProducer(kafka, topic, Structure.of(samples(0, 1)), partitions=partitions)
        producer.send(samples(sent[0], sent[0] + count))
        producer.flush()
        sent[0] += count

    return send


@pytest.fixture
def spoil(kafka, topic):
    """Sends records to the test's topic that cannot be decoded."""

    def send(*values):
        producer = confluent_kafka().Producer(kafka.config())
        for value in values:
            producer.produce(topic, value, partition=0)
        producer.flush(REQUEST_SECONDS)

    return send


@pytest.fixture
def live(kafka_broker, topic):
    """Gives the overrides of a run that follows the test's topic."""

    def overrides(**others):
        return {
            "consume_data_from_kafka": True,
            "kafka_bootstrap_servers": [kafka_broker],
            "kafka_topics": {"train": topic, "validation": None},
            "kafka_mode": "live",
            "kafka_idle_timeout": 1.5,
            "steps_per_epoch": 3,
            "epochs": 1000,
            "early_stopping_patience": None,
            **others,
        }

    return overrides


def offsets_of(kafka, topic, group):
    confluent = confluent_kafka()
    admin = confluent.admin.AdminClient(kafka.config())
    asked = admin.list_consumer_group_offsets([confluent.ConsumerGroupTopicPartitions(group)])
    found = asked[group].result(REQUEST_SECONDS).topic_partitions
    return {part.partition: part.offset for part in found if part.topic == topic}


def test_a_run_ends_when_nothing_comes_and_goes_on_when_something_has(produce, live, experiment, resume, kafka, topic):
    produce(50)
    first = experiment("", live())
    progress = first.snapshot.progress
    assert (first.result.state, progress.global_step) == ("finished", 7)  # of 8 samples; the last one has 2
    assert "no new sample" in progress.stop_reason
    place = first.snapshot.extras["positions"]["train"]["place"]
    assert place["records"]["offsets"] == {"0": 25, "1": 25}
    assert offsets_of(kafka, topic, first.run.path.name) == {0: 25, 1: 25}
    produce(24)
    again = resume(first.run.path)
    assert again.snapshot.progress.global_step == 10
    assert offsets_of(kafka, topic, first.run.path.name) == {0: 37, 1: 37}


def test_callbacks_are_told_of_no_epoch_that_got_no_batch(produce, live, experiment, resume, tmp_path):
    produce(48)
    notes = tmp_path / "notes"
    first = experiment(
        f"""
        def note(text):
            with open({str(notes)!r}, "a") as file:
                print(text, file=file)

        class Noting(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None): note(f"{{epoch}} begins")
            def on_epoch_end(self, epoch, logs=None): note(f"{{epoch}} ends")
            def on_train_end(self, logs=None): note("end")

        callbacks = [Noting()]
        """,
        live(),
    )
    assert notes.read_text().splitlines() == ["0 begins", "0 ends", "1 begins", "1 ends", "end"]
    produce(20)
    resume(first.run.path)
    assert notes.read_text().splitlines()[5:] == ["2 begins", "2 ends", "end"]


def test_waiting_is_said_and_a_request_to_stop_is_heeded_at_once(
    produce, live, experiment, recorder, kafka, topic, monkeypatch
):
    monkeypatch.setattr(topic_feed, "SECONDS_UNTIL_SAID", 0.5)
    produce(20)
    said = []

    class Told(type(recorder)):
        def on_message(self, text):
            said.append(text)
            super().on_message(text)

    ended = experiment(
        "",
        live(kafka_idle_timeout=None),
        make_watchers=lambda run, settings: [Told()],
        should_stop=lambda: any("waits for new samples" in text for text in said),
    )
    assert ended.result.state == "interrupted"
    assert ended.snapshot.progress.global_step == 2
    assert [text for text in said if "waits" in text] == [f"Training waits for new samples in topic {topic}."]
    assert sum(offsets_of(kafka, topic, ended.run.path.name).values()) == 16


def test_lag_rate_bad_records_and_drift_are_measured(produce, live, experiment):
    produce(80)
    epochs = experiment("", live()).epochs
    names = {"kafka/lag", "kafka/samples_per_second", "kafka/bad_records"}
    assert all(names <= set(epoch.measures) for epoch in epochs)
    assert ["kafka/loss_drift" in epoch.measures for epoch in epochs] == [False] + [True] * (len(epochs) - 1)
    assert epochs[-1].measures["kafka/lag"] == 0
    assert epochs[0].measures["kafka/samples_per_second"] > 0


def test_partitions_that_are_added_are_taken_up(produce, live, experiment, kafka, topic, monkeypatch):
    monkeypatch.setattr("experiments_manager.kafka.reading.reader._SECONDS_BETWEEN_LOOKS", 0.5)
    produce(16)
    added = []

    def add(run, settings):
        confluent = confluent_kafka()
        admin = confluent.admin.AdminClient(kafka.config())
        admin.create_partitions([confluent.admin.NewPartitions(topic, 4)])[topic].result(REQUEST_SECONDS)
        added.append(True)
        produce(32)
        return []

    ended = experiment("", live(kafka_idle_timeout=6.0), make_watchers=add)
    assert ended.snapshot.progress.global_step == 6
    place = ended.snapshot.extras["positions"]["train"]["place"]
    assert place["records"]["offsets"] == {"0": 16, "1": 16, "2": 8, "3": 8}


DROPPED = """
metrics = ["mae"]
loss = "mean_squared_error"
prequential = True


def model(hparams):
    return keras.Sequential(
        [keras.Input([3]), keras.layers.Dense(8), keras.layers.Dropout(0.5, seed=3), keras.layers.Dense(1, "sigmoid")]
    )
"""


def test_prequential_metrics_are_those_of_each_batch_before_its_step(
    produce, live, experiment, resume, settle, tmp_path
):
    produce(48)
    one_by_one = experiment(
        DROPPED.replace("prequential = True", ""),
        live(steps_per_epoch=1, checkpoint_every_steps=1, keep_checkpoints=20, shuffle=False),
        working_dir=tmp_path / "by_hand",
        should_stop=settle,
    )
    from experiments_manager.training.state.checkpoints import checkpoints, read_checkpoint

    x, y = samples(0, 48)
    weights = {}
    for path in checkpoints(one_by_one.run.checkpoints_dir):
        snapshot = read_checkpoint(path)
        weights[snapshot.progress.global_step] = {
            name: value.numpy() for name, value in snapshot.tensors.items() if name.startswith("model/")
        }
    whole = experiment(DROPPED, live(checkpoint_every_steps=1), working_dir=tmp_path / "whole")
    losses = []
    for step in range(1, 6):
        values = [value for name, value in sorted(weights[step].items()) if "seed" not in name]
        kernels, biases = (sorted((v for v in values if v.ndim == n), key=np.size, reverse=True) for n in (2, 1))
        batch = slice(8 * step, 8 * step + 8)
        hidden = x[batch] @ kernels[0] + biases[0]
        p = 1 / (1 + np.exp(-(hidden @ kernels[1] + biases[1])))
        losses.append(float(np.mean((y[batch] - p) ** 2)))
    assert whole.epochs[1].logs["prequential_loss"] == pytest.approx(np.mean(losses[2:5]), rel=1e-4)
    assert "prequential_mae" in whole.epochs[1].logs

    answers = iter([False] * 5)
    stopped = experiment(
        DROPPED, live(checkpoint_every_steps=1), working_dir=tmp_path / "s", should_stop=lambda: next(answers, True)
    )
    assert stopped.result.state == "interrupted", stopped.snapshot.progress
    ended = resume(stopped.run.path)
    assert ended.snapshot.progress.to_json() == whole.snapshot.progress.to_json()
    assert all(np.array_equal(value, ended.tensors[name]) for name, value in whole.tensors.items())


def dead_letters(kafka, topic):
    """Gives key, value and headers of each record of the topic of dead letters."""
    confluent = confluent_kafka()
    place = f"{topic}.dead"
    wanted = Topics(kafka).range_of(place).bounds[0][1]
    consumer = confluent.Consumer(kafka.config(group_id="tests", enable_auto_commit=False))
    consumer.assign([confluent.TopicPartition(place, 0, 0)])
    found = [consumer.consume(1, REQUEST_SECONDS)[0] for _ in range(wanted)]
    consumer.close()
    return {message.key().decode(): (message.value(), dict(message.headers())) for message in found}, len(found)


@pytest.mark.parametrize("cache", [0, 2**30])
def test_bad_records_go_to_the_dead_letters_once_over_epochs_and_a_resume(
    produce, spoil, live, experiment, resume, kafka, topic, cache
):
    produce(0)
    spoil(b"garbage first")
    produce(40)
    spoil(None, b"garbage last")
    settings = live(kafka_mode="bounded", steps_per_epoch=None, epochs=3, kafka_max_bad=0.01, kafka_cache=cache)
    first = experiment("", settings)
    assert first.snapshot.progress.global_step == 15
    resume(first.run.path, {"epochs": 5})
    letters, count = dead_letters(kafka, topic)
    assert count == 3
    assert sorted(letters) == ["0:0", "0:21", "0:22"]
    value, headers = letters["0:0"]
    assert value == b"garbage first"
    assert (headers["source_topic"], headers["source_partition"], headers["source_offset"]) == (
        topic.encode(),
        b"0",
        b"0",
    )
    assert b"does not begin like" in headers["reason"]
    assert letters["0:21"][0] is None
    if cache == 0:
        assert [epoch.measures["kafka/bad_records"] for epoch in first.epochs] == [3.0] * 3


def test_too_many_bad_records_stop_the_run(produce, spoil, live, experiment, topic):
    produce(40)
    spoil(*[b"garbage"] * 5)
    with pytest.raises(TopicError, match=rf"of \d+ records of topic {topic} cannot be decoded.*kafka_max_bad.*\.dead"):
        experiment("", live(kafka_max_bad=0.003))


def test_nothing_but_bad_records_names_the_format(produce, spoil, live, experiment, kafka, topic):
    produce(0)
    spoil(*[b'{"a": 1}'] * 20)
    with pytest.raises(TopicError, match=r"None of the first \d+ records.*Set kafka_format"):
        experiment("", live(kafka_mode="bounded"))


def test_dead_letters_can_be_read_as_they_were(produce, spoil, live, experiment, kafka, topic):
    produce(40)
    spoil(b"garbage")
    experiment("", live())
    with read_range(kafka, Topics(kafka).range_of(f"{topic}.dead")) as reader:
        assert [value for records in reader for value in records.values] == [b"garbage"]


def test_a_missing_topic_names_those_that_are_like_it(produce, live, experiment, topic):
    produce(8)
    with pytest.raises(TopicError, match=rf"Topic {topic}x not found.*{topic}"):
        experiment("", live(kafka_topics={"train": f"{topic}x", "validation": None}))


def test_a_broker_that_is_not_there_is_named_with_how_to_start_one(live, experiment, free_port):
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(TopicError, match=rf"{address}.*kafka_broker.py start"):
        experiment("", live(kafka_bootstrap_servers=[address]))


def test_a_run_that_waits_ends_its_threads(produce, live, experiment):
    produce(20)
    experiment("", live())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kafka ")]


def test_a_group_wants_one_sample_a_record(kafka, topic, live, experiment):
    producer = SampleProducer(kafka, topic, Structure.of(samples(0, 1)), samples_per_record=4)
    producer.send(samples(0, 40))
    producer.flush()
    with pytest.raises(TopicError, match=r"kafka_group: .*hold 4 samples each.*kafka_group = None"):
        experiment("", live(kafka_group="shared"))


def test_a_run_alone_in_its_group_goes_on_where_it_ended(produce, live, experiment, resume, kafka, topic):
    produce(48)
    first = experiment("", live(kafka_group=topic, kafka_idle_timeout=8.0))
    assert first.snapshot.progress.global_step == 6
    assert offsets_of(kafka, topic, topic) == {0: 24, 1: 24}
    produce(24)
    assert resume(first.run.path).snapshot.progress.global_step == 9
    assert offsets_of(kafka, topic, topic) == {0: 36, 1: 36}
