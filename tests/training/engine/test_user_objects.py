"""What the user's objects hold outlives a resume, wherever they hold it; or it is named."""

import pytest

STOP = 7
HELD = """
    import functools
    import itertools
    import types

    epochs = 4
    checkpoint_every_minutes = None
    served, ids, space = 0, itertools.count(), types.SimpleNamespace(n=0)

    class Meter:
        total = 0

        def __init__(self):
            self.n = 0

        def tick(self, by):
            global served
            self.n += by
            Meter.total += 2
            space.n += 1
            served += next(ids)
            return self.n + Meter.total + space.n + 0.01 * served

    class Toggling(keras.callbacks.Callback):
        def __init__(self, meter):
            super().__init__()
            self.meter, self.active = meter, None
            self.one, self.other = {"n": 0}, {"n": 5}
            self.phase = self.warm

        def warm(self):
            self.phase = self.cool
            return 1

        def cool(self):
            self.phase = self.warm
            return 3

        def on_train_begin(self, logs=None):
            self.model.batches_seen = 0
            np.random.rand()
            tf.random.normal([])
            for weight in self.model.weights:
                weight.assign_add(0.1 * tf.ones_like(weight))

        def on_train_batch_end(self, batch, logs=None, seen=[]):
            seen.append(batch)
            self.model.batches_seen += 1
            self.active = self.other if self.active is self.one else self.one
            self.active["n"] += 1
            drawn = np.random.rand() + float(tf.random.uniform([]))
            held = len(seen) + self.model.batches_seen + self.active["n"] + self.phase() + self.meter() + drawn
            self.model.optimizer.learning_rate = 0.05 / (1 + 0.1 * held)

    def callbacks(model):
        n, shared = 0, {"b": 0}
        model.shared = shared

        def tick(batch, logs):
            nonlocal n
            n += 1
            shared["b"] += n
            rate = float(model.optimizer.learning_rate)
            model.optimizer.learning_rate = rate / (1 + 0.01 * model.shared["b"])

        meter = functools.partial(Meter().tick, 3)
        return [Toggling(meter), keras.callbacks.LambdaCallback(on_train_batch_end=tick)]
"""
GENERATOR = """
    epochs = 4
    checkpoint_every_minutes = None
    served = 0

    def dataset(split):
        def rows():
            global served
            for number in range(samples[split]):
                served += 1
                x = np.random.default_rng(number).normal(size=3).astype("float32") * (1 + max(0, served - 130) * 0.01)
                yield x, [np.tanh(x.sum())]

        signature = (tf.TensorSpec([3], tf.float32), tf.TensorSpec([1], tf.float32))
        return tf.data.Dataset.from_generator(rows, output_signature=signature).batch(8)
"""
PYDATASET = """
    epochs = 4
    checkpoint_every_minutes = None

    class Rows(keras.utils.PyDataset):
        calls = 0

        def __len__(self):
            return 5

        def __getitem__(self, index):
            self.calls += 1
            x = np.random.default_rng(index).normal(size=(8, 3)).astype("float32") * (1 + max(0, self.calls - 8) * 0.01)
            return x, x.sum(axis=1, keepdims=True)

    def dataset(split):
        return Rows()
"""
SHARED = """
    class Printing(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.optimizer.learning_rate = 0.05 / (1 + served)

    callbacks = [Printing()]
"""


@pytest.mark.slow
@pytest.mark.parametrize("source", [HELD, GENERATOR, PYDATASET], ids=["callbacks", "generator", "pydataset"])
def test_what_users_objects_hold_outlives_a_resume(experiment, resume, recorder, same_bits, one_step_a_call, source):
    whole = experiment(source)
    part = experiment(
        source,
        make_watchers=lambda run, settings: [recorder],
        should_stop=lambda: bool(recorder.steps) and recorder.steps[-1] >= STOP,
    )
    rest = resume(part.run.path)
    assert (part.result.state, rest.result.state) == ("interrupted", "finished")
    assert rest.run.manifest["exactness"] == whole.run.manifest["exactness"] == {"exact": True, "reasons": []}
    assert same_bits(*map(trained, (rest, whole))) == []
    assert rest.history["loss"][-1] == whole.history["loss"][-1]


def test_what_the_reader_of_the_data_and_a_callback_both_see_is_named(experiment, one_step_a_call):
    said = experiment([GENERATOR, SHARED, "epochs = 1"]).run.manifest["exactness"]
    assert said["exact"] is False
    assert "mysettings_curve.served changes within a pass through the training data" in said["reasons"][0]


def test_tensors_of_a_trace_that_a_layer_keeps_are_no_state(experiment):
    run = experiment(
        """
        epochs = 2

        class Keeping(keras.layers.Layer):
            def call(self, x):
                self.kept = [x, [tf.square(x)]]
                return x

        def model():
            return keras.Sequential([keras.Input([3]), Keeping(), keras.layers.Dense(1)])
        """
    )
    assert run.result.state == "finished"
    assert run.run.manifest["exactness"] == {"exact": True, "reasons": []}
    assert run.snapshot is not None


def trained(run):
    return {name: value for name, value in run.tensors.items() if not name.startswith("user/")}


@pytest.fixture
def one_step_a_call(monkeypatch):
    from experiments_manager.training.engine.chunks import ChunkSize

    monkeypatch.setattr(ChunkSize, "steps", lambda self, at_most: 1 if at_most is None else min(1, at_most))


@pytest.mark.parametrize(
    ("change", "reasons"),
    [("add(epoch + 9)", 0), ("pop()", 1), ("remove(epoch + 3)", 1)],
    ids=["filled", "popped", "removed"],
)
def test_a_set_whose_order_no_checkpoint_can_hold_is_named(change, reasons, experiment):
    source = f"""
        class Pool(keras.callbacks.Callback):
            def __init__(self):
                super().__init__()
                self.numbers = set(range(5, 0, -1))

            def on_epoch_end(self, epoch, logs=None):
                self.numbers.{change}

        def callbacks():
            return [Pool()]
        """
    found = experiment(source, {"epochs": 2}).run.manifest["exactness"]
    assert len(found["reasons"]) == reasons, found
    assert all(
        "numbers changes, and holds a set that would give its elements in another order" in text
        for text in found["reasons"]
    )
