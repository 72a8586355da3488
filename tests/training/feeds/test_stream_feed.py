"""Feeds of `tf.data` pipelines: any place in them again, after a restart."""

import pytest
import tensorflow as tf

from experiments_manager.compat.tensorflow import write_iterator_state
from experiments_manager.training.feeds.factory import make_feed
from experiments_manager.training.seeds import derive, reseed_for_pipeline

PIPELINES = {
    "shuffled": lambda data: data.shuffle(40).batch(6),
    "shuffled and prefetched": lambda data: (
        data.shuffle(40).map(lambda v: v + 1, num_parallel_calls=2).batch(6).prefetch(2)
    ),
    "shuffled twice": lambda data: data.shuffle(9).map(lambda v: v + 1).shuffle(5).batch(6),
    "cached and shuffled": lambda data: data.cache().shuffle(40).batch(6),
    "in order": lambda data: data.batch(6),
    "of many passes": lambda data: data.shuffle(40).batch(1),
}


def stream(build):
    def hook(number):
        reseed_for_pipeline(derive(7, "dataset", number))
        return build(tf.data.Dataset.range(40))

    return make_feed(hook, split="train", batch_size=6, seed=7)


def read(feed, epoch, step):
    """Trains, as it were, on the rest of an epoch; gives its batches."""
    iterator, batches = feed.open(epoch, step), []
    for _ in range(step, feed.steps):
        batches.append(next(iterator).numpy().tolist())
        feed.took(1)
    feed.close_epoch()
    return batches


@pytest.fixture(scope="module", params=PIPELINES)
def pipeline(request):
    """How a pipeline is built, and the batches of its epochs without a restart."""
    build = PIPELINES[request.param]
    uninterrupted = stream(build)
    return build, [read(uninterrupted, number, 0) for number in range(14)]


@pytest.mark.slow
@pytest.mark.parametrize(("epoch", "step"), [(0, 3), (2, 0), (2, 5), (11, 2)])
def test_a_pipeline_gives_the_same_batches_after_a_restart_at_any_place(pipeline, epoch, step, tmp_path):
    build, expected = pipeline
    killed = stream(build)
    for number in range(epoch):
        read(killed, number, 0)
    iterator = killed.open(epoch)
    for _ in range(step):
        next(iterator)
        killed.took(1)
    if step == 0:
        killed.close_epoch()
    position = killed.position()
    saved, _ = killed.save()
    if saved is not None:
        write_iterator_state(saved, str(tmp_path / "iterator"))

    resumed = stream(build)
    resumed.restore(position, tmp_path / "iterator")
    assert read(resumed, epoch, step) == expected[epoch][step:]
    assert [read(resumed, number, 0) for number in range(epoch + 1, 14)] == expected[epoch + 1 :]


VALIDATIONS = {
    **PIPELINES,
    "endless": lambda data: data.batch(6).repeat(),
    "endless and shuffled": lambda data: data.shuffle(40).repeat().batch(6),
    "shuffled and endless": lambda data: data.shuffle(40).batch(6).repeat().prefetch(2),
    "without the rest": lambda data: data.shuffle(40).batch(6, drop_remainder=True),
    "of Python": lambda data: data.shuffle(40).map(lambda v: tf.py_function(lambda n: n, [v], tf.int64)).batch(6),
}


@pytest.mark.parametrize("rebuild", [True, False])
@pytest.mark.parametrize("steps", [None, 3, 10])
@pytest.mark.parametrize("name", VALIDATIONS)
def test_every_validation_reads_the_same_batches_from_the_first_one_on(name, steps, rebuild):
    if steps is None and "endless" in name:
        return
    if not rebuild and name in ("of Python", "shuffled twice", "shuffled and endless"):
        return  # only building it again brings back the order of its shuffle

    def validation():
        def hook(number):
            reseed_for_pipeline(derive(7, "dataset", 0))
            return VALIDATIONS[name](tf.data.Dataset.range(40))

        return make_feed(hook, split="validation", batch_size=6, seed=7, steps_per_epoch=steps, rebuild=rebuild)

    feed = validation()
    read(feed, 0, 0)
    first = read(feed, 1, 0)
    assert len(first) == (steps if "endless" in name else min(steps or 40, feed.steps))
    feed.open(2)
    feed.took(1)
    feed.close_epoch()  # interrupted
    assert [read(feed, number, 0) for number in (2, 3, 4)] == [first] * 3
    assert read(validation(), 5, 0) == first  # after a resume
