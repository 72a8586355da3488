"""The compiled loop takes the next batch while a step runs, where that changes nothing but the time."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.training.engine.steps import CompiledLoop
from experiments_manager.training.feeds import array_feed
from experiments_manager.training.feeds.feed import Feed

WITHIN = 30.0


class Numbered(Feed):
    """Gives the batch `[[step]]`, and keeps which were taken."""

    split, kind, steps = "train", "arrays", None
    batches_can_be_held = True
    spec = tf.TensorSpec([1, 1], tf.float32)

    def __init__(self, takes_ahead, ends_before=None):
        self.takes_ahead, self.ends_before = takes_ahead, ends_before
        self.taken, self.came = [], [threading.Event() for _ in range(10)]

    def open(self, epoch, step=0):
        return tf.zeros([])

    def take(self, source, step):
        def taken(number):
            self.taken.append(int(number))
            self.came[number].set()
            return np.full([1, 1], number, np.float32)

        def batch():
            return tf.ensure_shape(tf.numpy_function(taken, [step], tf.float32, stateful=False), [1, 1])

        if self.ends_before is None:
            return batch()
        none = tf.experimental.Optional.empty(self.spec)
        return tf.cond(step < self.ends_before, lambda: tf.experimental.Optional.from_value(batch()), lambda: none)

    def sample_batch(self):
        raise NotImplementedError

    def as_dataset(self):
        raise NotImplementedError


class Trained:
    """What a step was given, and whether the batch after it came in the meantime."""

    def __init__(self, feed, waits_for_next=lambda number: False):
        self.steps, self.next_had_come = [], []

        def step(number):
            number = int(number[0, 0])
            self.steps.append(number)
            if waits_for_next(number):
                self.next_had_come.append(feed.came[number + 1].wait(WITHIN))
            return np.float32(number)

        def train(data):
            return {"loss": tf.ensure_shape(tf.numpy_function(step, [data], tf.float32, stateful=False), [])}

        self.loop = CompiledLoop(keras.Sequential(), train, feed)


@pytest.fixture
def run():
    def call(feed, first, last, **options):
        trained = Trained(feed, **options)
        return trained, trained.loop(feed.open(0), first, last)

    return call


def test_the_next_batch_comes_while_a_step_runs(run):
    feed = Numbered(takes_ahead=True)
    trained, result = run(feed, 2, 6, waits_for_next=lambda number: number < 5)
    assert trained.next_had_come == [True] * 3
    assert (trained.steps, result.done) == ([2, 3, 4, 5], 6)


@pytest.mark.parametrize("takes_ahead", [True, False])
def test_a_call_takes_no_batch_beyond_its_last_step(run, takes_ahead):
    feed = Numbered(takes_ahead)
    trained, result = run(feed, 0, 3)
    assert (feed.taken, trained.steps, result.done) == ([0, 1, 2], [0, 1, 2], 3)
    assert float(result.logs["loss"]) == 2.0


@pytest.mark.parametrize("takes_ahead", [True, False])
def test_a_call_ends_where_the_data_does(run, takes_ahead):
    trained, result = run(Numbered(takes_ahead, ends_before=2), 0, 5)
    assert (trained.steps, result.done, result.exhausted) == ([0, 1], 2, True)
    assert float(result.logs["loss"]) == 1.0


def test_what_sees_a_step_is_not_taken_before_the_step_has_ended(run):
    feed = Numbered(takes_ahead=False)
    order = []
    trained = Trained(feed, waits_for_next=lambda number: order.append(list(feed.taken)))
    trained.loop(feed.open(0), 0, 3)
    assert order == [[0], [0, 1], [0, 1, 2]]


def test_arrays_that_are_shuffled_at_once_give_the_bits_of_those_that_are_taken_row_by_row(
    experiment, monkeypatch, same_bits
):
    at_once = experiment("epochs = 3")
    monkeypatch.setattr(array_feed, "BYTES_SHUFFLED_AT_ONCE", 0)
    by_rows = experiment("epochs = 3")
    assert not same_bits(at_once.tensors, by_rows.tensors)
    assert at_once.history == by_rows.history


WITHOUT_WEIGHTS = """
def dataset(split):
    x = np.random.default_rng(samples[split]).normal(size=(samples[split], 3)).astype("float32")
    return x, np.tanh(x.sum(axis=1, keepdims=True)), None
"""


@pytest.mark.parametrize("at_once", [0, 2**24])
def test_arrays_may_come_without_weights(experiment, monkeypatch, same_bits, at_once):
    monkeypatch.setattr(array_feed, "BYTES_SHUFFLED_AT_ONCE", at_once)
    assert not same_bits(experiment(WITHOUT_WEIGHTS).tensors, experiment("epochs = 2").tensors)


RAGGED = """
def dataset(split):
    rows = np.random.default_rng(samples[split]).integers(1, 9, size=samples[split])
    words = tf.data.Dataset.from_tensor_slices((tf.RaggedTensor.from_row_lengths(tf.ones([rows.sum()]), rows), rows))
    return words.map(lambda x, y: (x, tf.cast(y, tf.float32))).ragged_batch(8)


class Sums(keras.Model):
    def train_step(self, data):
        words, lengths = data
        return super().train_step((tf.reduce_sum(words, axis=1, keepdims=True), lengths[:, tf.newaxis]))

    def test_step(self, data):
        words, lengths = data
        return super().test_step((tf.reduce_sum(words, axis=1, keepdims=True), lengths[:, tf.newaxis]))


def model():
    x = keras.Input([1])
    return Sums(x, keras.layers.Dense(1)(x))
"""


def test_ragged_batches_are_taken_ahead(experiment):
    losses = experiment([RAGGED, "epochs = 8"]).history["loss"]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(("at_once", "ahead"), [(95, True), (96, False)])
def test_batches_of_large_arrays_are_taken_ahead(monkeypatch, at_once, ahead):
    monkeypatch.setattr(array_feed, "BYTES_SHUFFLED_AT_ONCE", at_once)
    arrays = tf.zeros([6, 3]), tf.zeros([6])
    feed = array_feed.ArrayFeed(arrays, split="train", batch_size=4, shuffle=True, seed=1)
    assert feed.takes_ahead is ahead
