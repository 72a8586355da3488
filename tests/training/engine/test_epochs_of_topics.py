"""Epochs that end in the midst of what was read ahead of a topic: each sample is trained on once, and in order."""

import numpy as np
import pytest

from tests.helpers.topics import produce

pytestmark = pytest.mark.slow

NOTES = """
class Notes(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def build(self, shape):
        self.dense.build(shape)
        options = {"dtype": "int32", "initializer": "zeros", "trainable": False}
        self.seen = self.add_weight(name="seen", shape=(2000,), **options)
        self.count = self.add_weight(name="count", shape=(), **options)

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        numbers = tf.cast(data[0][:, 0], tf.int32)
        places = self.count.value + tf.range(tf.size(numbers))
        self.seen.value.scatter_update(tf.IndexedSlices(numbers, places))
        self.count.assign_add(tf.size(numbers))
        return super().train_step(data)


def model(hparams):
    return Notes()


learning_rate = 1e-6
batch_size = 8
"""


def numbered(first, last):
    number = np.arange(first, last, dtype="float32")
    return np.stack([number, np.sin(number), np.cos(number)], 1), np.sin(number)[:, None]


@pytest.fixture
def seen():
    """Gives the numbers of the samples that a run was trained on, in their order."""

    def read(trained):
        tensors = {name.rpartition("/")[2]: value for name, value in trained.tensors.items() if "model/" in name}
        return tensors["seen"][: tensors["count"]].tolist()

    return read


@pytest.fixture
def settings(kafka_broker, topic):
    """Gives the overrides of a run on the test's topic, with epochs of three batches."""

    def overrides(**others):
        return {
            "consume_data_from_kafka": True,
            "kafka_bootstrap_servers": [kafka_broker],
            "kafka_topics": {"train": topic, "validation": None},
            "kafka_idle_timeout": 1.5,
            "kafka_cache": 0,
            "steps_per_epoch": 3,
            "early_stopping_patience": None,
            "shuffle": False,
            **others,
        }

    return overrides


@pytest.mark.parametrize("validates_on_a_topic", [False, True])
def test_epochs_of_a_live_topic_end_within_what_was_loaded(
    kafka, topic, settings, experiment, seen, validates_on_a_topic
):
    produce(kafka, topic, numbered(0, 204))
    topics = {"train": topic, "validation": None}
    if validates_on_a_topic:
        produce(kafka, f"{topic}-validation", numbered(1000, 1050))
        topics["validation"] = f"{topic}-validation"
    trained = experiment(NOTES, settings(kafka_mode="live", epochs=1000, kafka_topics=topics))
    assert len(trained.epochs) == 9
    assert seen(trained) == list(range(204))


def test_passes_of_a_bounded_topic_go_on_over_epochs(kafka, topic, settings, experiment, seen):
    produce(kafka, topic, numbered(0, 60))
    trained = experiment(NOTES, settings(epochs=7))  # 21 batches: two passes of 8, and 5 more
    assert seen(trained) == [*range(60), *range(60), *range(40)]


def test_a_run_that_was_stopped_within_what_was_loaded_goes_on_with_the_next_sample(
    kafka, topic, settings, experiment, resume, seen
):
    produce(kafka, topic, numbered(0, 204))
    answers = iter([False] * 7)
    first = experiment(
        NOTES,
        settings(kafka_mode="live", epochs=1000, checkpoint_every_steps=2),
        should_stop=lambda: next(answers, True),
    )
    assert first.result.state == "interrupted"
    assert 0 < len(seen(first)) < 204
    assert seen(resume(first.run.path)) == list(range(204))
