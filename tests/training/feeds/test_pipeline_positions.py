"""A table of `tf.data` sources and orders of transformations: what is called exact is exact, and can be saved."""

import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.compat.tensorflow import write_iterator_state
from experiments_manager.training.feeds import stream_feed
from experiments_manager.training.feeds.factory import make_feed
from experiments_manager.training.seeds import derive, reseed_for_pipeline

SAMPLES = 24
PLACE = 2
"""Batches before the interruption, in the midst of the shortest pass."""
EXACT = ("saved iterator", "replayed")
Data = tf.data.Dataset
plain = tf.autograph.experimental.do_not_convert


def numbers():
    yield from np.arange(SAMPLES)


def drawn_numbers():
    for _ in range(SAMPLES):
        yield np.random.randint(1000)


def generator(function):
    return lambda files: Data.from_generator(function, output_signature=tf.TensorSpec([], tf.int64))


def mapped(data, function, **options):
    return data.map(plain(function), **options)


def by_python(data, **options):
    return mapped(data, lambda v: tf.ensure_shape(tf.py_function(lambda a: a + 1, [v], tf.int64), []), **options)


def by_numpy(data, **options):
    def add(values):
        return values + np.random.randint(1000)

    return mapped(data, lambda v: tf.ensure_shape(tf.numpy_function(add, [v], tf.int64), []), **options)


def by_random(data, **options):
    return mapped(data, lambda v: v + tf.random.uniform([], 0, 1000, tf.int64), **options)


def by_stateless(data, **options):
    return mapped(data, lambda v: v + tf.random.stateless_uniform([], [3, v], 0, 1000, tf.int64), **options)


def read_from(reader, kind):
    def source(files):
        names = Data.from_tensor_slices(files[kind])
        return mapped(names.interleave(reader, cycle_length=2), lambda text: tf.strings.to_number(text, tf.int64))

    return source


def zipped(files):
    pairs = Data.zip((Data.range(SAMPLES).shuffle(9), Data.range(SAMPLES)))
    return pairs.map(plain(lambda one, other: 100 * one + other))


SOURCES = {
    "slices": lambda files: Data.from_tensor_slices(np.arange(SAMPLES)),
    "range": lambda files: Data.range(SAMPLES),
    "generator": generator(numbers),
    "drawing generator": generator(drawn_numbers),
    "records": read_from(tf.data.TFRecordDataset, "records"),
    "lines": read_from(tf.data.TextLineDataset, "lines"),
    "py_function": lambda files: by_python(Data.range(SAMPLES)),
    "numpy_function": lambda files: by_numpy(Data.range(SAMPLES)),
    "random map": lambda files: by_random(Data.range(SAMPLES)),
    "stateless map": lambda files: by_stateless(Data.range(SAMPLES)),
    "zipped": zipped,
    "sampled": lambda files: Data.sample_from_datasets([Data.range(12).shuffle(5), Data.range(50, 62)], [0.5, 0.5]),
    "enumerated": lambda files: mapped_pairs(Data.range(SAMPLES).shuffle(9).enumerate()),
}


def mapped_pairs(data):
    return data.map(plain(lambda number, v: 100 * number + v))


def some_more(v):
    return Data.range(v, v + 3)


ORDERS = {
    "in order": lambda d: d.batch(3),
    "shuffled": lambda d: d.shuffle(10).batch(3),
    "mapped, shuffled": lambda d: mapped(d, lambda v: v + 1).shuffle(10).batch(3).prefetch(2),
    "shuffled, repeated, batched": lambda d: d.shuffle(10).repeat(2).batch(3),
    "shuffled, mapped, repeated": lambda d: mapped(d.shuffle(10), lambda v: v + 1).repeat(3).batch(3),
    "cached, shuffled": lambda d: d.cache().shuffle(10).batch(3),
    "concatenated": lambda d: d.concatenate(mapped(d, lambda v: v + 7)).shuffle(5).batch(3),
    "interleaved": lambda d: d.interleave(plain(some_more), cycle_length=2).batch(3),
}
MORE_ORDERS = {
    "shuffled and cached": lambda d: d.shuffle(10).batch(3).cache().repeat(2),
    "mapped in parallel": lambda d: mapped(d.shuffle(10), lambda v: v + 1, num_parallel_calls=2).batch(3),
    "shuffled inside flat_map": lambda d: d.flat_map(plain(lambda v: some_more(v).shuffle(3))).batch(3),
    "interleaved in parallel": lambda d: d.interleave(plain(some_more), cycle_length=2, num_parallel_calls=2).batch(3),
    "random inside interleave": lambda d: d.interleave(plain(lambda v: by_random(some_more(v)))).batch(3),
    "random in concatenated": lambda d: d.concatenate(by_random(d)).shuffle(5).batch(3),
    "Python in concatenated": lambda d: d.concatenate(by_python(d)).shuffle(5).batch(3),
    "random, then shuffled": lambda d: by_random(d).shuffle(10).batch(3).prefetch(1),
    "shuffled, then random": lambda d: by_random(d.shuffle(10)).batch(3),
    "Python after batch": lambda d: by_numpy_batch(d.shuffle(10).batch(3)),
    "parts taken": lambda d: d.shuffle(10).skip(3).take(15).batch(3),
    "filtered": lambda d: d.filter(plain(lambda v: v % 2 == 0)).shuffle(10).batch(3),
    "ragged": lambda d: mapped(d, lambda v: tf.range(v % 4)).shuffle(10).ragged_batch(3),
    "padded": lambda d: mapped(d, lambda v: tf.range(v % 4)).shuffle(10).padded_batch(3),
    "unbatched": lambda d: d.batch(4).unbatch().shuffle(10).batch(3),
    "windows": lambda d: d.shuffle(10).window(3).flat_map(plain(lambda window: window.batch(3))).batch(1),
    "scanned": lambda d: d.scan(tf.constant(0, tf.int64), plain(lambda s, v: (s + v, s + v))).shuffle(5).batch(3),
    "buckets": lambda d: mapped(d, lambda v: tf.range(v % 4)).bucket_by_sequence_length(tf.size, [2, 3], [2, 2, 2]),
    "batched again": lambda d: d.shuffle(10).batch(6).rebatch(4),
    "batched in parallel": lambda d: d.shuffle(10).batch(3, num_parallel_calls=2),
    "in shards": lambda d: d.shuffle(10).shard(2, 1).batch(2),
    "without doubles": lambda d: d.unique().take_while(plain(lambda v: v < 100)).batch(3),
    "errors ignored": lambda d: d.shuffle(10).ignore_errors().batch(3),
    "never ends": lambda d: mapped(d.shuffle(10), lambda v: v + 1).repeat().batch(3),
    "repeated, shuffled": lambda d: d.repeat().shuffle(10).batch(3),
}
NEVER_ENDING = ("never ends", "repeated, shuffled")


def by_numpy_batch(data):
    return mapped(data, lambda v: tf.ensure_shape(tf.numpy_function(lambda a: a + 1, [v], tf.int64), [None]))


EACH_KIND = ("slices", "drawing generator", "numpy_function", "random map")
"""Of TensorFlow alone, an iterator in Python, a function in Python, random operations: each is tried in all orders."""
CASES = [(source, order) for source in EACH_KIND for order in ORDERS]
CASES += [(source, order) for source in SOURCES if source not in EACH_KIND for order in ("shuffled", "concatenated")]
CASES += [("slices", order) for order in MORE_ORDERS]
CASES += [(source, order) for source in ("py_function", "random map") for order in NEVER_ENDING]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of text and of records, with numbers in them."""
    folder = tmp_path_factory.mktemp("files")
    made = {"lines": [], "records": []}
    for number in range(3):
        texts = [str(100 * number + line) for line in range(8)]
        made["lines"].append(str(folder / f"{number}.txt"))
        (folder / f"{number}.txt").write_text("\n".join(texts))
        made["records"].append(str(folder / f"{number}.records"))
        with tf.io.TFRecordWriter(made["records"][-1]) as writer:
            for text in texts:
                writer.write(text.encode())
    return made


@pytest.fixture(autouse=True)
def one_build_a_pass(monkeypatch):
    """As with longer passes: so short ones would share a build, and nothing would be saved."""
    monkeypatch.setattr(stream_feed, "REPLAYED_BATCHES", 1)


def feed_of(build, files, source, order, steps=None):
    def hook(number):
        reseed_for_pipeline(derive(7, "dataset", number))
        return build[order](SOURCES[source](files))

    return make_feed(hook, split="train", batch_size=3, seed=7, steps_per_epoch=steps)


def read(feed, first=0, last=10**6, epochs=(0, 1)):
    """Trains, as it were, from batch `first` on, over the ends of epochs; gives the batches up to `last`."""
    found, number = [], first
    for epoch in epochs:
        iterator = feed.open(epoch)
        taken = first if epoch == epochs[0] else 0
        while feed.steps is None or taken < feed.steps:
            if number == last:
                return found
            batch = next(iterator, None)
            if batch is None:
                break
            found.append(as_list(batch))
            feed.took(1)
            taken, number = taken + 1, number + 1
        feed.close_epoch()
    return found


def as_list(batch):
    return batch.to_list() if isinstance(batch, tf.RaggedTensor) else batch.numpy().tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("source", "order"), CASES, ids=[" - ".join(case) for case in CASES])
def test_what_is_called_exact_is_exact_and_can_be_saved(source, order, files, tmp_path):
    build, steps = ORDERS | MORE_ORDERS, 5 if order in NEVER_ENDING else None
    feed = feed_of(build, files, source, order, steps)
    assert (feed.kind in EXACT, list(feed.inexact_reasons)) == (True, [])
    read(feed, 0, PLACE)
    iterator, said = feed.save()
    assert said is None
    if iterator is not None:
        write_iterator_state(iterator, str(tmp_path / "iterator"))
    position, kind = feed.position(), feed.kind
    assert kind == feed.kind
    expected = read(feed, PLACE)
    resumed = feed_of(build, files, source, order, steps)
    resumed.restore(position, tmp_path / "iterator")
    assert read(resumed, PLACE) == expected
    assert len(expected) > PLACE


def racing(data):
    state = []

    def count(values):
        state.append(1)
        return values + len(state)

    return mapped(data, lambda v: tf.ensure_shape(tf.numpy_function(count, [v], tf.int64), []), num_parallel_calls=4)


source_of_all = np.random.default_rng(3)


def from_a_global_generator():
    for _ in range(SAMPLES):
        yield source_of_all.integers(1000)


INEXACT = {
    "random in a parallel map": (lambda d: by_random(d, num_parallel_calls=2).batch(3), "RandomUniformInt"),
    "random inside a parallel interleave": (
        lambda d: d.interleave(plain(lambda v: by_random(some_more(v))), num_parallel_calls=2).batch(3),
        "RandomUniformInt in ParallelInterleave",
    ),
    "a map in no order": (
        lambda d: mapped(d, lambda v: v, num_parallel_calls=2, deterministic=False).batch(3),
        "ParallelMap with deterministic=False",
    ),
    "an interleave in no order": (
        lambda d: d.interleave(plain(some_more), num_parallel_calls=2, deterministic=False).batch(3),
        "deterministic=False",
    ),
    "a map in no order inside": (
        lambda d: d.flat_map(
            plain(lambda v: mapped(some_more(v), lambda w: w, num_parallel_calls=2, deterministic=False))
        ).batch(3),
        "deterministic=False",
    ),
    "an option of no order": (
        lambda d: mapped(d, lambda v: v, num_parallel_calls=2).batch(3).with_options(unordered()),
        "deterministic=False",
    ),
    "NumPy in parallel": (lambda d: by_numpy(d, num_parallel_calls=2).batch(3), "several threads"),
    "Python in parallel with a state": (lambda d: racing(d).batch(3), "several threads"),
    "a generator that draws from a global one": (
        lambda d: generator(from_a_global_generator)(None).batch(3),
        "two passes from the same seed differ",
    ),
    "under enumerate": (
        lambda d: mapped_pairs(by_random(d, num_parallel_calls=2).enumerate()).batch(3),
        "RandomUniformInt",
    ),
}


def unordered():
    options = tf.data.Options()
    options.deterministic = False
    return options


@pytest.mark.parametrize(("build", "why"), INEXACT.values(), ids=INEXACT)
def test_what_is_not_exact_says_why(build, why, files):
    feed = feed_of({"it": build}, files, "range", "it")
    [reason] = feed.inexact_reasons
    assert why in reason
    assert reason.startswith("the train data: ")


def test_python_in_parallel_that_was_declared_to_keep_no_state_is_believed(files):
    def build(data):
        one = lambda v: tf.ensure_shape(tf.numpy_function(lambda a: a, [v], tf.int64, stateful=False), [])  # noqa: E731
        return mapped(data, one, num_parallel_calls=2).batch(3)

    assert list(feed_of({"it": build}, files, "range", "it").inexact_reasons) == []


def test_an_iterator_that_cannot_be_saved_any_more_is_counted_from_there_on(files, tmp_path, monkeypatch):
    expected = read(feed_of(ORDERS, files, "range", "shuffled"), epochs=[0])
    killed = feed_of(ORDERS, files, "range", "shuffled")
    assert (read(killed, last=3), killed.kind) == (expected[:3], "saved iterator")

    def refuse(iterator):
        raise tf.errors.FailedPreconditionError(None, None, "PyFunc is stateful.")

    with monkeypatch.context() as patched:
        patched.setattr(stream_feed, "iterator_state", refuse)
        iterator, said = killed.save()
    assert iterator is None
    assert "cannot be saved: PyFunc is stateful. From here on its position is counted" in said
    assert (killed.kind, killed.save()) == ("replayed", (None, None))
    resumed = feed_of(ORDERS, files, "range", "shuffled")
    resumed.restore(killed.position(), tmp_path / "iterator")
    assert read(resumed, 3, epochs=[0]) == expected[3:]
