"""Training from a bounded topic: the same bits after an interruption, and nothing but what the run began with."""

import threading

import numpy as np
import pytest

from experiments_manager.common.errors import UserError
from experiments_manager.kafka.connection import confluent_kafka
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.producing.producer import SampleProducer
from experiments_manager.kafka.reading.reader import load_structures
from experiments_manager.kafka.reading.rotation import Position
from experiments_manager.kafka.records.record_format import RecordFormat
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.kafka.topics import Topics
from experiments_manager.training.feeds.topics import topic_source

pytestmark = pytest.mark.slow
REQUEST_SECONDS = 15

AUGMENTED = """
def augment(x, y, seed):
    return x + tf.random.stateless_normal(x.shape, seed), y
"""


def samples(first, last):
    """Gives samples whose inputs tell their number."""
    number = np.arange(first, last)
    x = np.stack([np.sin(number), np.cos(number), number / 100], 1).astype("float32")
    return x, np.tanh(x.sum(axis=1, keepdims=True))


@pytest.fixture
def produce(kafka, topic):
    """Sends so many further samples to the test's topic."""
    sent = [0]

    def send(count, partitions=3, **options):
        producer = SampleProducer(kafka, topic, Structure.of(samples(0, 1)), partitions=partitions, **options)
        producer.send(samples(sent[0], sent[0] + count))
        producer.flush()
        sent[0] += count

    return send


@pytest.fixture
def from_topic(kafka_broker, topic):
    """Gives the overrides of a run that trains from the test's topic."""

    def overrides(**others):
        return {
            "consume_data_from_kafka": True,
            "kafka_bootstrap_servers": [kafka_broker],
            "kafka_topics": {"train": topic, "validation": None},
            "epochs": 4,
            **others,
        }

    return overrides


def stop_after(polls):
    """Asks to stop after so many questions; with a checkpoint every step one comes before each."""
    answers = iter([False] * polls)
    return lambda: next(answers, True)


def equal(one, other, apart_from=()):
    """Says whether two runs ended with the same bits, in state and in metrics."""
    assert one.tensors.keys() == other.tensors.keys()
    different = [name for name, value in one.tensors.items() if not np.array_equal(value, other.tensors[name])]
    assert different == []
    progress, others = one.snapshot.progress.to_json(), other.snapshot.progress.to_json()
    assert {name: progress[name] for name in progress if name not in apart_from} == {
        name: others[name] for name in others if name not in apart_from
    }
    return True


MODES = {
    "read again in each epoch": {"kafka_cache": 0, "kafka_shuffle_buffer": 13},
    "not shuffled": {"kafka_cache": 0, "shuffle": False},
    "epochs shorter than a pass": {"kafka_cache": 0, "kafka_shuffle_buffer": 13, "steps_per_epoch": 5},
    "in memory": {},
}


@pytest.mark.parametrize(
    ("mode", "source"),
    [*((mode, "") for mode in MODES), ("read again in each epoch", AUGMENTED), ("in memory", AUGMENTED)],
    ids=lambda value: value.split("(")[0].strip(),
)
def test_an_interrupted_run_ends_with_the_same_bits(produce, from_topic, experiment, resume, tmp_path, mode, source):
    produce(101, samples_per_record=4)
    overrides = from_topic(checkpoint_every_steps=1, **MODES[mode])
    whole = experiment(source, overrides)
    stopped = experiment(source, overrides, working_dir=tmp_path / "stopped", should_stop=stop_after(6))
    assert stopped.result.state == "interrupted"
    again = resume(stopped.run.path, should_stop=stop_after(17))
    assert again.result.state == "interrupted"
    assert again.snapshot.progress.step != 0  # it was stopped within an epoch
    ended = resume(stopped.run.path)
    assert ended.result.state == "finished"
    assert equal(whole, ended)
    assert whole.snapshot.progress.global_step == 4 * MODES[mode].get("steps_per_epoch", 13)


def test_a_topic_in_memory_trains_like_the_arrays_themselves(produce, from_topic, experiment, tmp_path):
    produce(96)
    source = """
    train = dataset
    def dataset(split):
        if split == "validation":
            return train(split)
        number = np.arange(96)
        x = np.stack([np.sin(number), np.cos(number), number / 100], 1).astype("float32")
        return x, np.tanh(x.sum(axis=1, keepdims=True))
    """
    arrays = experiment(source, {"epochs": 4})
    topic = experiment(source, from_topic(), working_dir=tmp_path / "topic")
    assert equal(arrays, topic)


def test_a_topic_is_read_again_in_each_epoch_where_it_is_larger_than_the_cache(produce, from_topic, experiment):
    produce(40)
    assert experiment("", from_topic(kafka_cache=100)).run.manifest["kafka"]["train"]["cached"] is False
    assert experiment("", from_topic()).run.manifest["kafka"]["train"]["cached"] is True


@pytest.mark.parametrize("cache", [0, 2**30])
def test_records_that_come_later_are_not_read_by_a_resume(
    produce, from_topic, experiment, resume, kafka, topic, cache, tmp_path
):
    produce(40)
    overrides = from_topic(checkpoint_every_steps=1, kafka_cache=cache)
    whole = experiment("", overrides)
    stopped = experiment("", overrides, working_dir=tmp_path / "stopped", should_stop=stop_after(4))
    ends = {number: end for number, (_, end) in Topics(kafka).range_of(topic).bounds.items()}
    assert stopped.run.manifest["kafka"]["train"]["ends"] == {str(number): end for number, end in ends.items()}
    produce(40)
    assert equal(whole, resume(stopped.run.path))


@pytest.fixture
def stopped(produce, from_topic, experiment):
    """A run that was asked to stop in the second epoch, in the middle of the topic."""

    def run(polls=9, **overrides):
        produce(40)
        given = from_topic(checkpoint_every_steps=1, kafka_cache=0, **overrides)
        return experiment("", given, should_stop=stop_after(polls))

    return run


def test_more_partitions_are_refused(stopped, resume, kafka, topic):
    run = stopped().run
    confluent = confluent_kafka()
    admin = confluent.admin.AdminClient(kafka.config())
    admin.create_partitions([confluent.admin.NewPartitions(topic, 5)])[topic].result(REQUEST_SECONDS)
    wait_until(lambda: len(Topics(kafka).partitions(topic)) == 5)
    with pytest.raises(TopicError, match=r"other partitions.*Expected 3, got 5.*Start a new run"):
        resume(run.path)


def wait_until(condition, seconds=30):
    pause = threading.Event()
    for _ in range(seconds * 20):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError("it did not come")


def test_a_topic_that_was_made_again_is_refused_with_both_ids(stopped, resume, kafka, topic, produce):
    run = stopped().run
    topics, admin = Topics(kafka), confluent_kafka().admin.AdminClient(kafka.config())
    old = topics.id_of(topic)
    for name in (topic, f"{topic}.structure"):
        admin.delete_topics([name])[name].result(REQUEST_SECONDS)
    wait_until(lambda: topic not in topics.names())
    produce(40)
    with pytest.raises(TopicError) as caught:
        resume(run.path)
    assert old in str(caught.value)
    assert topics.id_of(topic) in str(caught.value)
    assert "Start a new run" in str(caught.value)


@pytest.mark.parametrize("mode", ["bounded", "live"])
def test_what_retention_removed_is_refused_with_both_numbers(stopped, resume, kafka, topic, mode):
    live = {"polls": 3, "kafka_mode": "live", "steps_per_epoch": 2, "kafka_idle_timeout": 5.0}
    run = stopped(**(live if mode == "live" else {})).run
    confluent = confluent_kafka()
    admin, place = confluent.admin.AdminClient(kafka.config()), confluent.TopicPartition(topic, 0, 13)
    admin.delete_records([place])[place].result(REQUEST_SECONDS)
    with pytest.raises(TopicError, match=r"does not hold offset \d+ any more.*within 13 to 14.*retention.*new run"):
        resume(run.path)


def test_a_run_begins_at_the_time_that_it_is_told(kafka, topic, produce, from_topic, experiment):
    producer = confluent_kafka().Producer(kafka.config())
    produce(0)
    for number, record in enumerate(RecordFormat(Structure.of(samples(0, 1))).encode(samples(0, 30))):
        producer.produce(topic, record, partition=number % 3, timestamp=1_700_000_000_000 + 1000 * number)
    producer.flush(REQUEST_SECONDS)
    kafka_settings = experiment("", from_topic(kafka_start=1_700_000_012)).run.manifest["kafka"]
    assert kafka_settings["train"]["start"] == {"0": 4, "1": 4, "2": 4}


@pytest.mark.parametrize(
    ("began", "wanted", "said"),
    [
        ("2023-11-14 22:13", "earliest", "at '2023-11-14 22:13' and goes on with that; 'earliest' has no effect"),
        ("2023-11-14 22:13", "2023-11-14T22:13:00", None),
    ],
)
def test_another_start_has_no_effect_on_a_resume_and_that_is_said_once(
    kafka, topic, produce, from_topic, experiment, resume, caplog, began, wanted, said
):
    produce(30)
    first = experiment("", from_topic(kafka_start=began, epochs=1))
    again = resume(first.run.path, {"kafka_start": wanted, "epochs": 2})
    assert again.run.manifest["kafka"]["train"]["start"] == first.run.manifest["kafka"]["train"]["start"]
    told = [record.getMessage() for record in caplog.records if "kafka_start" in record.getMessage()]
    assert len(told) == (said is not None)
    assert said is None or said.format(topic) in told[0]


def test_a_bounded_run_that_begins_at_the_end_says_that_there_is_nothing(produce, from_topic, experiment):
    produce(30)
    with pytest.raises(TopicError, match=r"holds no record from kafka_start on.*kafka_mode = 'live'"):
        experiment("", from_topic(kafka_start="latest"))


@pytest.mark.parametrize("cache", [0, 2**30])
def test_aborted_transactions_are_not_seen_and_open_ones_not_waited_for(
    kafka, topic, produce, from_topic, experiment, tmp_path, cache
):
    produce(40)
    whole = experiment("", from_topic(kafka_cache=cache, shuffle=False))
    producer = confluent_kafka().Producer(kafka.config(transactional_id=f"tests-{topic}"))
    producer.init_transactions(REQUEST_SECONDS)
    records = RecordFormat(Structure.of(samples(0, 1))).encode(samples(1000, 1030))

    def send():
        producer.begin_transaction()
        for number, record in enumerate(records):
            producer.produce(topic, record, partition=number % 3)
        producer.flush(REQUEST_SECONDS)

    send()
    producer.abort_transaction(REQUEST_SECONDS)
    aborted = experiment("", from_topic(kafka_cache=cache, shuffle=False), working_dir=tmp_path / "aborted")
    # Norms are measured every few updates of an epoch, whose steps are overestimated where there are gaps.
    norms = ("epoch_gradient_norm", "recent_gradient_norm")
    assert equal(whole, aborted, apart_from=norms)
    send()
    opened = experiment("", from_topic(kafka_cache=cache, shuffle=False), working_dir=tmp_path / "open")
    producer.abort_transaction(REQUEST_SECONDS)
    assert equal(whole, opened, apart_from=norms)


def test_arrays_of_a_topic_keep_the_order_of_its_records(kafka, topic, produce, from_topic):
    produce(50)
    bounds = Topics(kafka).range_of(topic).bounds

    [structure] = load_structures(kafka, topic).values()
    start, ends = ({number: pair[side] for number, pair in bounds.items()} for side in (0, 1))
    source = topic_source.TopicSource(kafka, topic, RecordFormat(structure), Position(start), ends)
    x, y = topic_source.read_all(source, 2**20)
    np.testing.assert_array_equal(x, samples(0, 50)[0])
    np.testing.assert_array_equal(y, samples(0, 50)[1])
    assert topic_source.read_all(source, 100) is None


def test_samples_that_do_not_fit_the_model_are_shown_beside_it(produce, from_topic, experiment, topic):
    produce(30)
    source = """
    def model(hparams):
        return keras.Sequential([keras.Input([5]), keras.layers.Dense(1)])
    """
    with pytest.raises(UserError) as caught:
        experiment(source, from_topic())
    assert f"x of topic {topic} does not fit the input" in str(caught.value)
    assert "Expected samples of shape (5,), got (3,)" in str(caught.value)
    assert "A batch holds x (None, 3) float32, y (None, 1) float32" in str(caught.value)
