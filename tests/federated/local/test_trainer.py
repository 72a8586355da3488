"""Local training of a federation's clients: from the weights, the data, the client and the round alone."""

import contextlib

import keras
import numpy as np
import pytest

from experiments_manager.federated.local.client import ClientData, FederatedClient
from experiments_manager.federated.local.task import LocalTask
from experiments_manager.federated.local.trainer import LocalTrainer
from experiments_manager.settings import load_settings
from experiments_manager.training.devices.devices import prepared_devices
from experiments_manager.training.errors import DataError, TrainingError
from experiments_manager.training.feeds.array_feed import ArrayFeed, as_arrays

SETTINGS = """
import keras
import numpy as np

session_name = "local"
epochs = 3
batch_size = 4
loss = "mean_squared_error"
learning_rate = 0.05
optimizer = "adam"
metrics = ["mean_absolute_error"]


def dataset(split):
    return np.zeros([8, 2]), np.zeros([8, 1])


def hidden(layers):
    return layers.Dense(8, activation="relu"), layers.Dropout(0.5), layers.BatchNormalization()


def model():
    layers = keras.layers
    return keras.Sequential([
        layers.Input((2,)), *hidden(layers), layers.Dense(1)
    ])
"""


def client(number, samples=8, width=2, shuffle=True):
    """A client with data of its own."""
    generator = np.random.default_rng(number)
    x = generator.normal(size=(samples, width)).astype("float32")
    feeds = [
        ArrayFeed(
            as_arrays((x, x[:, :1] * (number + 1)), split),
            split=split,
            batch_size=4,
            shuffle=shuffle and split == "train",
            seed=number,
        )
        for split in ("train", "validation")
    ]
    return FederatedClient(number, ClientData(*feeds))


@pytest.fixture
def make(tmp_path):
    """Gives trainers of a settings module, `text` of which may be replaced."""
    with contextlib.ExitStack() as stack:

        def trainer(*replaced, **options):
            text = SETTINGS
            for old, new in replaced:
                assert old in text
                text = text.replace(old, new)
            (tmp_path / "mysettings_local.py").write_text(text)
            settings = load_settings(tmp_path / "mysettings_local.py")
            devices = stack.enter_context(prepared_devices(settings))
            return LocalTrainer.make(settings, devices, client(0).train, **options)

        yield trainer


def same(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_a_client_trains_the_same_whoever_was_trained_before(make):
    trainer = make()
    weights = trainer.weights()
    alone = trainer.train(client(3), weights, LocalTask(2, epochs=2))
    trainer.train(client(1, samples=21), weights, LocalTask(1))
    trainer.train(client(2, samples=5), weights, LocalTask(7))
    again = trainer.train(client(3), weights, LocalTask(2, epochs=2))
    assert same(alone.weights, again.weights)
    assert alone.logs == again.logs


def test_another_trainer_of_the_same_settings_trains_the_same(make):
    first, second = make(), make()
    assert same(first.weights(), second.weights())
    weights = first.weights()
    results = [trainer.train(client(5), weights, LocalTask(1, epochs=3)) for trainer in (first, second)]
    assert same(*(result.weights for result in results))


def test_rounds_and_clients_differ_in_order_and_dropout(make):
    trainer = make()
    weights = trainer.weights()
    one, other = client(0), client(0)
    other.number = 1
    found = [trainer.train(who, weights, LocalTask(number)).weights for who, number in ((one, 1), (one, 2), (other, 1))]
    assert not same(found[0], found[1])
    assert not same(found[0], found[2])


def test_weights_that_are_not_trained_come_back_too(make):
    trainer = make()
    weights = trainer.weights()
    moved = [
        name
        for name, value in trainer.train(client(1), weights, LocalTask(1)).weights.items()
        if not np.array_equal(value, weights[name])
    ]
    assert any("moving_mean" in name for name in moved)
    assert any("kernel" in name for name in moved)


def test_samples_are_counted_once_and_logs_are_those_of_the_last_epoch(make):
    result = make().train(client(1, samples=10), make().weights(), LocalTask(1, epochs=3))
    assert result.samples == 10
    assert set(result.logs) == {"loss", "mean_absolute_error"}


def test_the_optimizer_begins_anew_in_each_round_unless_it_is_kept(make):
    keeps = make(('session_name = "local"', 'session_name = "local"\nfederated = {"keep_optimizer": True}'))
    trainer = make()
    weights = trainer.weights()
    kept, fresh = client(1), client(1)
    for number in (1, 2):
        with_slots = keeps.train(kept, weights, LocalTask(number)).weights
        without = trainer.train(fresh, weights, LocalTask(number)).weights
        assert same(with_slots, without) == (number == 1)
    assert fresh.kept is None


def test_plain_gradient_descent_is_what_numpy_computes(make):
    linear = ("*hidden(layers), ", "")
    trainer = make(linear, ('optimizer = "adam"', 'optimizer = "sgd"'))
    weights = trainer.weights()
    kernel, bias = (value.astype(np.float64) for value in weights.values())
    who = client(2, samples=4, shuffle=False)
    x, y = (np.asarray(part, np.float64) for part in who.train.arrays)
    for _ in range(3):
        error = x @ kernel + bias - y
        kernel, bias = kernel - 0.05 * 2 * x.T @ error / 4, bias - 0.05 * 2 * error.mean(axis=0)
    found = list(trainer.train(who, weights, LocalTask(1, epochs=3)).weights.values())
    np.testing.assert_allclose(found[0], kernel, rtol=1e-5)
    np.testing.assert_allclose(found[1], bias, rtol=1e-5)


def test_the_proximal_term_holds_training_near_the_weights_that_it_got(make):
    trainer = make(("layers.Dropout(0.5), ", ""), ('optimizer = "adam"', 'optimizer = "sgd"'), proximal=True)
    plain = make(("layers.Dropout(0.5), ", ""), ('optimizer = "adam"', 'optimizer = "sgd"'))
    weights = trainer.weights()

    def moved(trainer, mu):
        found = trainer.train(client(4), weights, LocalTask(1, 10, proximal_mu=mu)).weights
        return found, sum(float(np.square(found[n] - weights[n]).sum()) for n in weights if "moving" not in n)

    assert moved(trainer, 0.0)[1] > moved(trainer, 1.0)[1] > moved(trainer, 10.0)[1]
    for name, value in moved(plain, 0.0)[0].items():
        np.testing.assert_allclose(moved(trainer, 0.0)[0][name], value, rtol=1e-4, err_msg=name)


def test_evaluation_leaves_training_as_it_was(make):
    trainer = make()
    weights = trainer.weights()
    before = trainer.train(client(1), weights, LocalTask(1))
    first, second = (trainer.evaluate(client(1), weights) for _ in range(2))
    assert first.logs == second.logs
    assert (first.samples, first.weights) == (8, {})
    assert same(before.weights, trainer.train(client(1), weights, LocalTask(1)).weights)


def test_weights_of_another_model_are_refused_with_both_shapes(make):
    trainer = make()
    weights = trainer.weights()
    name = next(iter(weights))
    with pytest.raises(TrainingError, match=r"another model: .*Expected shape \(2, 8\), got \(3, 8\)"):
        trainer.train(client(0), {**weights, name: np.zeros([3, 8])}, LocalTask(1))
    with pytest.raises(TrainingError, match="another model"):
        trainer.evaluate(client(0), {name: weights[name]})


def test_data_that_looks_different_is_refused_with_both_shapes(make):
    with pytest.raises(DataError, match=r"look different. Expected .*2.* got .*3.* at client 1"):
        make().train(client(1, width=3), make().weights(), LocalTask(1))


def test_a_loss_that_is_not_finite_names_client_and_round(make):
    trainer = make()
    weights = {name: np.full_like(value, np.nan) for name, value in trainer.weights().items()}
    with pytest.raises(TrainingError, match="round 4 at client 2"):
        trainer.train(client(2), weights, LocalTask(4))


def test_models_in_low_precision_train_too(make):
    trainer = make(("batch_size = 4", 'batch_size = 4\nmixed_precision = "bfloat16"'))
    weights = trainer.weights()
    assert {value.dtype for value in weights.values()} == {np.dtype("float32")}
    assert not same(trainer.train(client(1), weights, LocalTask(1)).weights, weights)
    keras.config.set_dtype_policy("float32")
