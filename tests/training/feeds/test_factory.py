"""Feeds of arrays: their order, their batches, and any place in them again."""

import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.training.feeds.factory import make_feed

X = np.arange(22.0)[:, None]
Y = np.arange(22)


def feed(data=(X, Y), **options):
    options = {"split": "train", "batch_size": 4, "seed": 7, "shuffle": True, **options}
    return make_feed(lambda number: data, **options)


def batches(feed, epoch, step=0):
    """The labels of each batch of an epoch from a step on."""
    source = feed.open(epoch, step)
    return [feed.take(source, tf.constant(number))[1].numpy().tolist() for number in range(step, feed.steps)]


def flat(batches):
    return [label for batch in batches for label in batch]


def test_each_sample_comes_exactly_once_an_epoch_and_the_last_batch_is_what_remains():
    found = batches(feed(), 0)
    assert [len(batch) for batch in found] == [4, 4, 4, 4, 4, 2]
    assert sorted(flat(found)) == list(range(22))


def test_the_order_follows_from_seed_and_epoch_alone():
    one, other = feed(), feed()
    batches(one, 0), batches(one, 1)
    assert batches(one, 3) == batches(other, 3)
    assert batches(one, 3) != batches(one, 4)
    assert batches(feed(seed=8), 3) != batches(one, 3)
    assert flat(batches(one, 3)) != list(range(22))


def test_without_shuffling_samples_come_as_they_are():
    assert flat(batches(feed(shuffle=False), 5)) == list(range(22))


def test_fewer_steps_draw_from_all_samples_over_the_epochs():
    short = feed(steps_per_epoch=2)
    assert short.steps == 2
    assert len({label for epoch in range(20) for label in flat(batches(short, epoch))}) == 22


def test_inputs_and_labels_stay_together():
    shuffled = feed()
    source = shuffled.open(2)
    x, y = shuffled.take(source, tf.constant(1))
    assert np.array_equal(x[:, 0], y)


@pytest.mark.parametrize(
    ("samples", "steps", "size"), [(20, None, 4), (22, None, None), (22, 5, 4)], ids=["even", "uneven", "cut"]
)
def test_the_size_of_a_batch_is_known_where_all_are_alike(samples, steps, size):
    assert feed((X[:samples], Y[:samples]), steps_per_epoch=steps).spec[0].shape[0] == size


def test_double_precision_becomes_single_and_other_types_stay():
    spec = feed((X, Y.astype("int16"))).spec
    assert (spec[0].dtype, spec[1].dtype) == (tf.float32, tf.int16)


def test_tensors_lists_of_inputs_and_pandas_are_taken():
    import pandas

    frame = pandas.DataFrame({"a": Y, "b": Y * 2.0})
    (x, y) = feed(([tf.constant(X), frame], frame["a"])).sample_batch()
    assert x[1].shape == (4, 2)
    assert y.numpy().tolist() == [0, 1, 2, 3]


def augment(x, y, seed):
    return x + tf.random.stateless_uniform([1], tf.cast(seed, tf.int32)), y


@pytest.mark.parametrize("steps", [None, 3], ids=["whole_epochs", "cut_epochs"])
def test_augmented_samples_are_the_same_wherever_one_begins(steps):
    def inputs(feed, epoch, step=0):
        source = feed.open(epoch, step)
        return [feed.take(source, tf.constant(number))[0].numpy() for number in range(step, feed.steps)]

    whole = feed(augment=augment, steps_per_epoch=steps)
    epochs = [inputs(whole, epoch) for epoch in range(3)]
    for epoch, step in ((2, 0), (1, 2), (2, 1)):
        again = inputs(feed(augment=augment, steps_per_epoch=steps), epoch, step)
        assert len(again) == len(epochs[epoch][step:])
        assert all(np.array_equal(one, other) for one, other in zip(again, epochs[epoch][step:], strict=True))


def test_augmented_samples_differ_from_epoch_to_epoch_and_keep_their_order():
    plain, noisy = feed(shuffle=False), feed(shuffle=False, augment=augment)
    assert batches(noisy, 1) == batches(plain, 1)
    noise = []
    for epoch in range(2):
        source = noisy.open(epoch)
        noise.append([noisy.take(source, tf.constant(0))[0].numpy() - X[:4] for _ in range(1)][0])
    assert not np.allclose(noise[0], noise[1])
    assert len(np.unique(noise)) == 8


def test_augmentation_may_give_the_inputs_alone():
    source = feed(shuffle=False, augment=lambda x, y, seed: x * 2.0)
    x, y = source.take(source.open(0), tf.constant(0))
    assert np.array_equal(x, X[:4] * 2.0)
    assert y.numpy().tolist() == [0, 1, 2, 3]


def test_weights_pass_augmentation_unchanged():
    source = feed((X, Y, X[:, 0] / 2), shuffle=False, augment=augment)
    _, _, weights = source.take(source.open(0), tf.constant(0))
    assert weights.numpy().tolist() == [0.0, 0.5, 1.0, 1.5]


def test_a_list_of_inputs_stays_several_inputs_in_a_pipeline():
    data = ([X, 2 * X], Y)
    for made in (feed(data, shuffle=False), feed(data, shuffle=False, augment=lambda x, y, seed: [x[0], x[1] + 1.0])):
        for (left, right), y in made.as_dataset():
            np.testing.assert_array_equal(left[:, 0], y)
            np.testing.assert_array_equal(right[:, 0], 2 * y)
    (left, right), y = made.take(made.open(0), tf.constant(0))
    np.testing.assert_array_equal(left[:, 0], y)
    np.testing.assert_array_equal(right[:, 0], 2 * y + 1)


def test_no_data_is_no_feed():
    assert feed(None) is None
