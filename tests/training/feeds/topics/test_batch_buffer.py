"""Batches for a call of the compiled loop, in memory that is used again."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.kafka.reading.rotation import Position
from experiments_manager.kafka.records.record_format import RecordFormat
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.training.feeds.topics import batch_buffer
from experiments_manager.training.feeds.topics.batch_buffer import BatchBuffer
from experiments_manager.training.feeds.topics.topic_source import TopicSource


def buffer_of(batch, batch_size):
    source = TopicSource(None, "topic", RecordFormat(Structure.of(batch)), Position({0: 0}), {0: 1})
    return BatchBuffer(source, batch_size)


def batches(buffer, loaded, steps):
    """The batches of some steps as the compiled loop takes them; nothing where there is none."""

    @tf.function(autograph=False)
    def take(loaded, step, has_value):
        batch = buffer.take(loaded, step)
        return batch.get_value() if has_value else batch.has_value()

    for step in steps:
        has_value = bool(take(loaded, tf.constant(step), False))
        yield (
            tf.nest.map_structure(lambda part: part.numpy().tolist(), take(loaded, tf.constant(step), True))
            if (has_value)
            else None
        )


def test_pieces_are_put_together_and_cut_into_batches():
    x, y = np.arange(20.0, dtype="float32").reshape(10, 2), np.arange(10)
    buffer = buffer_of((x, y), 4)
    loaded = buffer.placed(buffer.load([[x[:3], y[:3]], [x[3:9], y[3:9]], [x[9:], y[9:]]]), 7)
    found = list(batches(buffer, loaded, range(7, 11)))
    assert [batch and batch[1] for batch in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], None]
    assert found[1][0] == x[4:8].tolist()


def test_nothing_left_is_no_batch():
    buffer = buffer_of(np.arange(3), 4)
    assert list(batches(buffer, buffer.load([]), [0, 1])) == [None, None]


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "int8", "uint16", "int64", "bool", "complex64", ml_dtypes.bfloat16]
)
@pytest.mark.parametrize("count", [1, 5, 50_000])
def test_every_dtype_arrives_as_it_is(dtype, count):
    x = np.arange(count).astype(dtype)
    buffer = buffer_of(x, count)
    assert buffer.load([[x]]).leaves[0].dtype == tf.as_dtype(x.dtype)
    assert list(batches(buffer, buffer.load([[x]]), [0])) == [tf.constant(x).numpy().tolist()]


def test_double_precision_becomes_that_of_training():
    x = np.linspace(0, 1, 5)
    buffer = buffer_of(x, 5)
    assert list(batches(buffer, buffer.load([[x]]), [0])) == [x.astype("float32").tolist()]


def test_what_was_loaded_stays_while_the_next_is_loaded():
    x = np.arange(200_000)
    buffer = buffer_of(x, 1000)
    loads = [buffer.load([[x[start : start + 50_000]]]) for start in (0, 50_000, 100_000)]
    for number, loaded in enumerate(loads):
        assert next(batches(buffer, loaded, [0])) == list(range(50_000 * number, 50_000 * number + 1000))


def test_a_call_holds_so_many_batches_that_they_stay_in_the_cache(monkeypatch):
    x = np.zeros([4, 1024], np.uint8)
    assert buffer_of(x, 4).capacity == 1024
    assert buffer_of(x, 256).capacity == 32
    assert buffer_of(x, 100_000).capacity == 1
    monkeypatch.setattr(batch_buffer, "_MOST_BYTES", 10)
    assert buffer_of(x, 4).capacity == 1
