"""Looking at the model while it trains: what is seen, and that looking changes nothing."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments_manager import api
from experiments_manager.events import Watcher
from experiments_manager.training.observe.model_views import Viewer
from experiments_manager.training.state.checkpoints import read_latest

SETTINGS = """
import keras
import numpy as np
import tensorflow as tf

epochs = 3
batch_size = 8
loss = "mean_squared_error"
learning_rate = 0.05


def dataset(split):
    generator = np.random.default_rng(len(split))
    x = generator.normal(size=(24, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, x[:, :1]))
    if split == "train":
        data = data.map(lambda x, y: (x + tf.random.normal([3], stddev=0.01), y)).shuffle(24)
    return data.batch(8)


def model():
    x = keras.Input((3,), name="x")
    hidden = keras.layers.Dropout(0.5)(keras.layers.Dense(4, activation="tanh", name="code")(x))
    return keras.Model(x, keras.layers.Dense(1, name="y")(hidden))
"""


def without_inputs(batch):
    x, targets, outputs, layers = batch
    return x[:, :0], targets, outputs, layers


class Looking(Watcher):
    def __init__(self):
        self.reduced = None
        self.seen = []
        self.best = []

    def on_validated(self, view):
        self.seen.append((view, view.samples(10, ["code"]), view.weights()))

    def on_best(self, view):
        self.best.append((view, view.samples(10)))
        self.reduced = view.samples(10, (), without_inputs)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The same experiment trained twice: looked at and not looked at."""
    folder = tmp_path_factory.mktemp("views")
    (folder / "mysettings_small.py").write_text(SETTINGS)
    looking = Looking()
    options = {"working_dir": folder, "quiet": True}
    seen = api.train(folder / "mysettings_small.py", run_name="seen", watchers=[looking], **options)
    alone = api.train(folder / "mysettings_small.py", run_name="alone", **options)
    return looking, seen, alone


@pytest.mark.slow
def test_every_validation_and_the_best_weights_at_the_end_can_be_looked_at(trained):
    looking, seen, _ = trained
    assert [view.epoch for view, _, _ in looking.seen] == [1, 2, 3]
    assert [view.global_step for view, _, _ in looking.seen] == [3, 6, 9]
    assert [view.epoch for view, _ in looking.best] == [seen.best["epoch"]]


@pytest.mark.slow
def test_samples_come_with_targets_outputs_and_inner_layers(trained):
    looking, _, _ = trained
    _, samples, weights = looking.seen[-1]
    assert samples.split == "validation"
    assert samples.x.shape == (10, 3)
    np.testing.assert_array_equal(samples.y, samples.x[:, :1])
    code = np.tanh(samples.x @ weights["code/kernel"] + weights["code/bias"])
    np.testing.assert_allclose(samples.layers["code"], code, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        samples.outputs["y"], code @ weights["y/kernel"] + weights["y/bias"], rtol=1e-5, atol=1e-6
    )


def test_less_can_be_made_of_each_batch_before_it_is_kept(trained):
    looking, _, _ = trained
    _, whole = looking.best[0]
    assert looking.reduced.x.shape == (10, 0)
    np.testing.assert_array_equal(looking.reduced.y, whole.y)
    np.testing.assert_array_equal(looking.reduced.outputs["y"], whole.outputs["y"])


def test_looking_at_a_run_changes_no_bit_of_its_result(trained):
    _, seen, alone = trained
    states = [read_latest(result.run_dir / "checkpoints")[1].tensors for result in (seen, alone)]
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        np.testing.assert_array_equal(states[0][name], states[1][name], err_msg=name)
    assert seen.metrics == alone.metrics


def viewer_of(model, dataset, steps=None, output_names=None):
    feed = SimpleNamespace(split="validation", kind="replayed", steps=steps, as_dataset=lambda: dataset)
    state = SimpleNamespace(keep_transient=list, restore_transient=lambda kept: None)
    settings = SimpleNamespace(output_names=output_names)
    return Viewer(SimpleNamespace(model=model, train=feed, validation=feed, state=state, settings=settings))


def samples_of(*arguments, count=100, **options):
    return viewer_of(*arguments, **options).view(1, 1, {}, validated=False).samples(count)


def summing():
    x = keras.Input((None,), name="x")
    return keras.Model(x, keras.layers.Lambda(lambda x: tf.reduce_sum(x, axis=1, keepdims=True), name="y")(x))


def test_data_without_an_end_is_looked_at_for_one_validation():
    endless = tf.data.Dataset.from_tensors((tf.ones([4, 3]), tf.ones([4]))).repeat()
    assert samples_of(summing(), endless, steps=3).x.shape == (12, 3)


def test_batches_of_different_lengths_are_filled_up_and_targets_that_are_not_there_are_marked():
    rows = tf.ragged.constant([[1.0], [1.0, 2.0], [1.0, 2.0, 3.0], [4.0]])
    tags = tf.ragged.constant([[1], [1, 2], [1, 2, 3], [4]])
    pairs = tf.data.Dataset.from_tensor_slices((rows, tags)).batch(2).map(lambda x, y: (x.to_tensor(), y.to_tensor()))
    samples = samples_of(summing(), pairs)
    assert samples.x.tolist() == [[1, 0, 0], [1, 2, 0], [1, 2, 3], [4, 0, 0]]
    assert samples.y.tolist() == [[1, 0, -1], [1, 2, -1], [1, 2, 3], [4, 0, 0]]
    assert samples.outputs["y"].tolist() == [[1], [3], [6], [4]]


def test_ragged_samples_are_filled_up():
    class Mean(keras.Model):
        def call(self, x):
            return tf.reduce_mean(x, axis=1)

    rows = tf.ragged.constant([[1.0], [1.0, 3.0], [4.0, 5.0, 6.0]])
    samples = samples_of(Mean(), tf.data.Dataset.from_tensor_slices((rows, rows)).batch(2))
    assert samples.x.tolist() == [[1, 0, 0], [1, 3, 0], [4, 5, 6]]
    np.testing.assert_array_equal(samples.y, [[1, np.nan, np.nan], [1, 3, np.nan], [4, 5, 6]])
    assert [output.tolist() for output in samples.outputs.values()] == [[1, 2, 5]]


def test_targets_have_the_name_that_their_output_is_served_by():
    x = keras.Input((2,))
    heads = {"a": keras.layers.Identity(name="a")(x), "b": keras.layers.Identity(name="b")(x)}
    dataset = tf.data.Dataset.from_tensors((tf.ones([4, 2]), {"a": tf.zeros([4, 2]), "b": tf.ones([4, 2])}))
    samples = samples_of(keras.Model(x, heads), dataset, output_names=["left", "right"])
    assert list(samples.outputs) == ["left", "right"]
    assert {name: target.mean() for name, target in samples.y.items()} == {"left": 0.0, "right": 1.0}


def test_outputs_of_one_layer_that_share_its_name_are_all_there():
    x = keras.Input((5, 3))
    model = keras.Model(x, keras.layers.LSTM(4, return_state=True)(x))
    assert len(samples_of(model, tf.data.Dataset.from_tensors(tf.ones([2, 5, 3]))).outputs) == 3
