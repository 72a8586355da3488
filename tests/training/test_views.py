"""Looking at the model while it trains: what is seen, and that looking changes nothing."""

import numpy as np
import pytest

from experiments_manager import api
from experiments_manager.training.checkpoints import read_latest
from experiments_manager.training.events import Watcher

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


def test_every_validation_and_the_best_weights_at_the_end_can_be_looked_at(trained):
    looking, seen, _ = trained
    assert [view.epoch for view, _, _ in looking.seen] == [1, 2, 3]
    assert [view.global_step for view, _, _ in looking.seen] == [3, 6, 9]
    assert [view.epoch for view, _ in looking.best] == [seen.best["epoch"]]


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
