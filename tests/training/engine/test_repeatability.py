"""The same run twice, and runs that were interrupted: the same weights, bit for bit."""

import pytest

from experiments_manager.settings import UserCodeError
from experiments_manager.training.engine.chunks import ChunkSize

NOISY = """
    from keras import layers

    metrics = ["mae"]
    checkpoint_every_minutes = None

    def model(hparams):
        return keras.Sequential([keras.Input([3]), layers.BatchNormalization(), layers.Dropout(0.2), layers.Dense(1)])
"""
PIPELINE = """
    def dataset(split):
        x = np.random.default_rng(samples[split]).normal(size=(samples[split], 3)).astype("float32")
        data = tf.data.Dataset.from_tensor_slices((x, np.tanh(x.sum(axis=1, keepdims=True))))
        return data.shuffle(samples[split]).batch(8) if split == "train" else data.batch(8)
"""
RANDOM_IN_PYTHON = """
    def dataset(split):
        noise = np.random.normal(size=(samples[split], 3))
        def rows():
            for row in noise:
                yield row, [np.tanh(row.sum())]
        signature = (tf.TensorSpec([3]), tf.TensorSpec([1]))
        return tf.data.Dataset.from_generator(rows, output_signature=signature).batch(8)
"""
PYDATASET = """
    class Rows(keras.utils.PyDataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            x = np.random.default_rng(index).normal(size=(8, 3)).astype("float32")
            return x, x.sum(axis=1, keepdims=True)

    def dataset(split):
        return Rows()
"""
PYDATASET_BY_EPOCH = """
    class Rows(keras.utils.PyDataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            return self.batch_of_epoch(0, index)

        def batch_of_epoch(self, epoch, index):
            x = np.random.default_rng([epoch, index]).normal(size=(8, 3)).astype("float32")
            return x, x.sum(axis=1, keepdims=True)

    def dataset(split):
        return Rows()
"""
AUGMENTED = """
    def augment(x, y, seed):
        return x + tf.random.stateless_normal(tf.shape(x), tf.cast(seed, tf.int32), stddev=0.1), y
"""
SOURCES = {
    "arrays": NOISY,
    "pipeline": NOISY + PIPELINE,
    "random_in_python": NOISY + RANDOM_IN_PYTHON,
    "pydataset": NOISY + PYDATASET,
    "pydataset_by_epoch": NOISY + PYDATASET_BY_EPOCH,
    "augmented": NOISY + AUGMENTED,
}


@pytest.fixture
def steps_a_call(monkeypatch):
    """Forces the number of steps a call."""

    def force(steps):
        monkeypatch.setattr(ChunkSize, "steps", lambda self, at_most: steps if at_most is None else min(steps, at_most))

    return force


@pytest.fixture
def stop_after(recorder):
    """Options for a run that is asked to stop once so many steps are done."""

    def options(steps):
        return {
            "make_watchers": lambda run, settings: [recorder],
            "should_stop": lambda: bool(recorder.steps) and recorder.steps[-1] >= steps,
        }

    return options


@pytest.fixture(scope="module")
def trained_before():
    return {}


@pytest.fixture
def uninterrupted(experiment, trained_before, steps_a_call):
    """Trains a source without interruption, many steps a call; once for all tests of this file."""

    def train(source):
        if source not in trained_before:
            trained_before[source] = experiment(source)
        return trained_before[source]

    return train


@pytest.mark.slow
def test_the_same_command_twice_gives_the_same_bits(experiment, uninterrupted, same_bits):
    one, other = uninterrupted(NOISY), experiment(NOISY)
    assert one.run.path != other.run.path
    assert same_bits(one.tensors, other.tensors) == []
    assert one.history == other.history


@pytest.mark.slow
def test_another_seed_gives_another_result(experiment, uninterrupted):
    assert uninterrupted(NOISY).history != experiment(NOISY, {"random_seed": 1}).history


@pytest.mark.slow
def test_how_many_steps_a_call_makes_does_not_change_the_result(experiment, uninterrupted, same_bits, steps_a_call):
    many = uninterrupted(NOISY)
    steps_a_call(1)
    single = experiment(NOISY)
    assert same_bits(single.tensors, many.tensors) == []
    assert single.history == many.history


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_a_run_interrupted_inside_an_epoch_ends_as_if_it_had_not_been(
    experiment, resume, uninterrupted, same_bits, steps_a_call, stop_after, source
):
    whole = uninterrupted(source)
    steps_a_call(1)
    part = experiment(source, **stop_after(7))
    assert (part.result.state, part.result.epochs, part.run.manifest["state"]) == ("interrupted", 1, "interrupted")
    assert (part.snapshot.progress.step, part.snapshot.progress.global_step) == (2, 7)
    rest = resume(part.run.path)
    assert (rest.result.state, rest.run.manifest["state"]) == ("finished", "finished")
    assert same_bits(rest.tensors, whole.tensors) == []
    assert rest.history["val_loss"] == whole.history["val_loss"][1:]
    assert rest.history["mae"] == whole.history["mae"][1:]


@pytest.mark.slow
@pytest.mark.parametrize("source", [NOISY, NOISY + PIPELINE], ids=["arrays", "pipeline"])
def test_a_run_interrupted_between_epochs_ends_as_if_it_had_not_been(
    experiment, resume, uninterrupted, same_bits, stop_after, steps_a_call, source
):
    whole = uninterrupted(source)
    steps_a_call(5)
    part = experiment(source, **stop_after(5))
    rest = resume(part.run.path)
    assert (part.result.state, rest.result.epochs) == ("interrupted", 2)
    assert same_bits(rest.tensors, whole.tensors) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "calls"), [(NOISY, 6), (NOISY + RANDOM_IN_PYTHON, 7)], ids=["arrays", "random_in_python"]
)
def test_a_run_interrupted_in_a_validation_ends_as_if_it_had_not_been(
    experiment, resume, uninterrupted, same_bits, steps_a_call, source, calls
):
    whole = uninterrupted(source)
    steps_a_call(1)
    # Five training steps, the end of the data where nobody knows it before, and the first step of the validation.
    answers = iter([False] * calls + [True])
    part = experiment(source, should_stop=lambda: next(answers))
    assert (part.snapshot.progress.epoch, part.snapshot.progress.step) == (0, 5)
    rest = resume(part.run.path)
    assert same_bits(rest.tensors, whole.tensors) == []
    assert rest.history == whole.history


@pytest.mark.slow
def test_more_epochs_after_the_end_are_as_if_asked_for_at_first(experiment, resume, same_bits):
    whole = experiment(NOISY, {"epochs": 3})
    part = experiment(NOISY)
    rest = resume(part.run.path, {"epochs": 3})
    assert same_bits(rest.tensors, whole.tensors) == []
    assert rest.run.manifest["overrides"] == {"epochs": 3}


def test_a_finished_run_is_not_trained_further(resume, uninterrupted, same_bits):
    whole = uninterrupted(NOISY)
    again = resume(whole.run.path)
    assert (again.result.state, again.epochs) == ("finished", [])
    assert same_bits(again.tensors, whole.tensors) == []


CRASH = """
    hparams = {"crash": True}

    class Crash(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if hparams["crash"] and epoch == 1:
                raise MemoryError("no more memory")

    callbacks = [Crash()]
"""


@pytest.mark.slow
@pytest.mark.parametrize("every", [5, 3], ids=["at_the_end_of_an_epoch", "inside_an_epoch"])
def test_a_run_that_crashed_goes_on_from_the_checkpoint_of_so_many_steps(
    experiment, resume, uninterrupted, same_bits, only_run, every
):
    with pytest.raises(UserCodeError, match="mysettings_curve.py:[0-9]+: callbacks: MemoryError: no more memory"):
        experiment(NOISY + CRASH, {"checkpoint_every_steps": every})
    crashed = only_run()
    assert crashed.manifest["state"] == "failed"
    rest = resume(crashed.path, {"hparams.crash": False})
    assert rest.result.state == "finished"
    assert same_bits(rest.tensors, uninterrupted(NOISY).tensors) == []
