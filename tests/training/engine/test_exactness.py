"""Whether a resume is exact: all that decides how a run goes on is in its state, or the run says what is not."""

import pytest
import tensorflow as tf

from experiments_manager.runs import RunError
from experiments_manager.settings import load_settings
from experiments_manager.training.dry_run.dry_run import dry_run
from experiments_manager.training.state.checkpoints import checkpoints

STOP = 7
MODEL = """
    epochs = 4
    checkpoint_every_minutes = None
    outside = tf.Variable(1.0)

    class Holder:
        def __init__(self):
            self.scale = tf.Variable(1.0)

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)
            self.holder, self.late = Holder(), None
            self.noise = [{"generator": tf.random.Generator.from_seed(3)}]
            self.second = {"optimizer": keras.optimizers.SGD(0.01, momentum=0.9)}

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            x, y = data
            if self.late is None:
                self.late = tf.Variable(1.0, trainable=False)
            for variable in (outside, self.holder.scale, self.late):
                variable.assign(0.9 * variable + 0.05)
            x = x + outside * self.holder.scale * self.late * self.noise[0]["generator"].normal(tf.shape(x))
            x = EXTRA(x)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(x) - y) ** 2)
            kernel, bias = self.trainable_variables
            gradients = tape.gradient(loss, [kernel, bias])
            self.second["optimizer"].apply([gradients[1]], [bias])
            self.optimizer.apply(gradients, [kernel, bias])
            return {"loss": loss}

    def model(hparams):
        made = Model()
        made(tf.zeros([1, 3]))
        made.second["optimizer"].build([made.dense.bias])
        return made

    def EXTRA(x):
        return x
"""
CALLBACK = """
    import collections
    import dataclasses
    import random

    epochs = 4
    checkpoint_every_minutes = None
    source = np.random.default_rng(5)

    @dataclasses.dataclass
    class Record:
        value: float

    class Noise(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.by_step, self.recent, self.seen = {}, collections.deque(maxlen=3), set()
            self.rng, self.records = np.random.default_rng(4), []

        def on_train_batch_begin(self, batch, logs=None):
            drawn = [self.rng.normal(), source.normal(), np.random.normal(), random.gauss(0, 1)]
            self.recent.append(sum(drawn))
            self.by_step[len(self.by_step)] = drawn[0]
            self.seen.add((batch, len(self.by_step)))
            self.records.append(Record(drawn[1]))
            kernel = self.model.trainable_variables[0]
            change = sum(self.recent) + sum(self.by_step.values()) + len(self.seen) + self.records[-1].value
            kernel.assign_add(0.001 * change * tf.ones_like(kernel))

    callbacks = [Noise()]
"""
GENERATOR = """
    import collections

    def dataset(split):
        def rows():
            for number in range(samples[split]):
                x = np.random.default_rng(number).normal(size=3).astype("float32")
                yield x, [np.tanh(x.sum())]
        signature = (tf.TensorSpec([3], tf.float32), tf.TensorSpec([1], tf.float32))
        data = tf.data.Dataset.from_generator(rows, output_signature=signature)
        return data.shuffle(16).batch(8)
"""
REPEATED = (
    GENERATOR.replace(".batch(8)", '.repeat().batch(8) if split == "train" else data.batch(8)')
    + """
    epochs = 6
    steps_per_epoch = 3
    checkpoint_every_minutes = None
"""
)
EXACT = {
    "variables of a train_step": MODEL,
    "attributes and generators of callbacks": CALLBACK,
    "a generator beside callbacks that draw": CALLBACK + GENERATOR,
    "a generator, shuffled and repeated": REPEATED,
}


@pytest.fixture
def interrupted(experiment, recorder):
    """Trains until so many steps are done, one step a call."""

    def train(source):
        stop = """
            class Stop(keras.callbacks.Callback):
                def on_train_batch_end(self, batch, logs=None):
                    pass
            callbacks = [*(globals().get("callbacks") or []), Stop()]
        """
        return experiment(
            [source, stop],
            make_watchers=lambda run, settings: [recorder],
            should_stop=lambda: bool(recorder.steps) and recorder.steps[-1] >= STOP,
        )

    return train


@pytest.mark.slow
@pytest.mark.parametrize("source", EXACT.values(), ids=EXACT)
def test_a_run_that_is_called_exact_ends_as_if_it_had_not_been_interrupted(
    experiment, resume, interrupted, same_bits, source
):
    part = interrupted(source)
    assert part.run.manifest["exactness"] == {"exact": True, "reasons": []}
    assert (part.result.state, part.snapshot.progress.global_step) == ("interrupted", STOP)
    assert part.run.manifest["checkpoint"] == checkpoints(part.run.checkpoints_dir)[0].name
    rest = resume(part.run.path)
    whole = experiment([source, "callbacks = [*(globals().get('callbacks') or []), keras.callbacks.Callback()]"])
    assert same_bits(rest.tensors, whole.tensors) == []
    assert rest.history["loss"][-1] == whole.history["loss"][-1]


HIDDEN = """
    def EXTRA(x):
        return CHANGE
"""
INEXACT = {
    "dropout": (
        MODEL + HIDDEN.replace("CHANGE", "tf.nn.dropout(x, 0.2)"),
        [
            "mysettings_curve.py:",
            "the training step draws random numbers by RandomUniform",
            "keras.random.SeedGenerator",
        ],
    ),
    "random numbers in a condition": (
        MODEL + HIDDEN.replace("CHANGE", "tf.cond(x[0, 0] > 0, lambda: x + tf.random.normal([]), lambda: x)"),
        ["the training step draws random numbers by RandomStandardNormal"],
    ),
    "Python": (
        MODEL + HIDDEN.replace("CHANGE", "tf.ensure_shape(tf.py_function(lambda a: a, [x], tf.float32), x.shape)"),
        ["the training step calls Python (EagerPyFunc)"],
    ),
    "a generator of a callback": (
        """
        class Counting(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                self.counts = (number for number in range(100))
            def on_epoch_end(self, epoch, logs=None):
                next(self.counts)
        callbacks = [Counting()]
        """,
        ["callbacks[0].counts changes while training runs", "it is an iterator (generator)"],
    ),
    "a callback that draws beside data that draw": (
        GENERATOR.replace("np.random.default_rng(number)", "np.random")
        + """
    class Drawing(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            np.random.normal()
    callbacks = [Drawing()]
    """,
        ["callback Drawing may draw from Python's or NumPy's global random generator", "of the train data"],
    ),
    "a hook that draws from a generator of the module": (
        """
        rng = np.random.default_rng(0)
        def dataset(split):
            data = tf.data.Dataset.from_tensor_slices(rng.normal(size=(16, 3)))
            return data.map(lambda x: (x, x[:1])).shuffle(16).batch(8)
        """,
        ["the train data: `dataset` draws from mysettings_curve.rng"],
    ),
    "augmentation without its seed": (
        """
        def augment(x, y, seed):
            return x + tf.random.normal([3]), y
        """,
        ["`augment` has RandomStandardNormal in FlatMap", "stateless"],
    ),
    "a PyDataset that draws": (
        """
        class Rows(keras.utils.PyDataset):
            def __len__(self):
                return 5
            def __getitem__(self, index):
                return np.random.normal(size=(8, 3)), np.zeros((8, 1))
        def dataset(split):
            return Rows()
        """,
        ["the train data: `__getitem__` gives another batch"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("source", "words"), INEXACT.values(), ids=INEXACT)
def test_what_would_be_lost_is_said_at_the_start_and_in_the_manifest(experiment, recorder, source, words):
    trained = experiment([source, "epochs = 1"], make_watchers=lambda run, settings: [recorder])
    said = trained.run.manifest["exactness"]
    assert said["exact"] is False
    text = "; ".join(said["reasons"])
    assert list(recorder.starts[0].inexact_reasons) == said["reasons"] or "an iterator" in text
    assert [word for word in words if word not in text] == []


def test_a_dry_run_says_whether_a_resume_would_be_exact(settings_file):
    exact = dry_run(load_settings(settings_file()))
    assert exact.lines[-1] == "resume      exact"
    racing = """
        def dataset(split):
            data = tf.data.Dataset.range(16).map(lambda v: tf.fill([3], float(v)), num_parallel_calls=2)
            data = data.map(lambda x: (x + tf.random.uniform([3]), x[:1]), num_parallel_calls=2)
            return data.batch(8)
    """
    tf.keras.backend.clear_session()
    lines = dry_run(load_settings(settings_file(racing))).lines
    assert any("resume      not exact: the train data: it has RandomUniform in ParallelMap" in line for line in lines)


def test_a_checkpoint_that_fails_says_its_true_cause_and_the_run_says_that_it_kept_none(
    experiment, monkeypatch, recorder, only_run
):
    from experiments_manager.training.state import checkpoints as writing

    def refuse(*arguments):
        raise tf.errors.FailedPreconditionError(None, None, "Something is stateful.")

    monkeypatch.setattr(writing, "write_checkpoint", refuse)
    with pytest.raises(RunError, match="NO CHECKPOINT COULD BE SAVED") as failure:
        experiment(make_watchers=lambda run, settings: [recorder])
    assert "could not be saved: Something is stateful. It trained 2 epochs" in str(failure.value)
    assert recorder.messages[0] == (
        "A checkpoint could not be written: Something is stateful. "
        "Training goes on and tries again at the next checkpoint."
    )
    manifest = only_run().manifest
    assert (manifest["state"], manifest["error"]["text"]) == ("failed", str(failure.value))
    assert (manifest["checkpoint"], manifest["checkpoint_problem"]) == (None, "Something is stateful")
    assert list(only_run().checkpoints_dir.iterdir()) == []


def test_what_fails_while_the_state_is_copied_leaves_no_folder_behind(experiment, monkeypatch, recorder, only_run):
    from experiments_manager.training.state.user_state import UserState

    def refuse(self):
        raise TypeError("cannot be copied")

    monkeypatch.setattr(UserState, "capture", refuse)
    with pytest.raises(RunError, match="could not be saved: cannot be copied"):
        experiment(make_watchers=lambda run, settings: [recorder])
    assert recorder.messages[0].startswith("A checkpoint could not be written: cannot be copied. Training goes on")
    assert list(only_run().checkpoints_dir.iterdir()) == []
