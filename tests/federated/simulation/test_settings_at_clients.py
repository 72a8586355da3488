"""What the settings say of training holds at a client as it does in central training, bit for bit."""

import numpy as np
import pytest

from tests.helpers.simulated_federations import arrays, trained_alone

pytest.importorskip("flwr")
pytestmark = pytest.mark.slow

ONE_CLIENT = '{"rounds": 1, "clients": 1, "local_epochs": 2, "min_clients": 1}'

SAMPLE_WEIGHTS = """
def dataset(split, partition=None):
    x, y = arrays(split, partition)
    return x, y, np.linspace(0.1, 2.0, len(x)).astype("float32")
"""
CLASSES = """
def dataset(split, partition=None):
    x, y = arrays(split, partition)
    return x, (y[:, 0] > 0).astype("int32")

def class_weight(train_data):
    positive = float(np.mean(np.concatenate([y for _, y in train_data])))
    return {0: 1.0, 1: 3.0 + positive}

def model():
    return keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, activation="softmax")])
"""
OWN_STEP = """
class Doubled(keras.Model):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = 2.0 * self.compute_loss(x, y, self(x, training=True))
        self.optimizer.apply_gradients(zip(tape.gradient(loss, self.trainable_weights), self.trainable_weights))
        return {"loss": loss}

def model():
    inputs = keras.Input((3,))
    return Doubled(inputs, keras.layers.Dense(1)(inputs))
"""
AUGMENT = """
def augment(x, y):
    return 2.0 * x, y + 1.0
"""
SCHEDULE = "keras.optimizers.schedules.ExponentialDecay(0.05, 3, 0.5)"


@pytest.mark.parametrize(
    ("replaced", "added"),
    [
        ({}, ""),
        ({"optimizer": '"adam"', "gradient_clip_norm": "0.01"}, SAMPLE_WEIGHTS),
        ({"loss": '"sparse_categorical_crossentropy"'}, CLASSES),
        ({}, OWN_STEP),
        ({"gradient_accumulation_steps": "2", "mixed_precision": '"bfloat16"'}, AUGMENT),
        ({"mixed_precision": '"float16"'}, ""),
        ({"jit_compile": "False"}, ""),
        ({"learning_rate": SCHEDULE, "optimizer": '"adam"', "ema_momentum": "0.9", "steps_per_epoch": "3"}, ""),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, dict) else (part.split("(")[0].split() or [""])[-1],
)
def test_a_round_of_one_client_is_central_training_of_its_epochs(federation, replaced, added):
    federation.write(added, federated=ONE_CLIENT, **replaced)
    round_of_one = list(arrays(federation.simulate()).values())
    alone = trained_alone(federation, epochs=2)
    assert len(round_of_one) <= len(alone)
    for found, expected in zip(round_of_one, alone, strict=False):
        np.testing.assert_array_equal(found, expected)


def test_xla_compiles_the_steps_of_clients_and_the_loop_of_central_training(federation):
    federation.write("", federated=ONE_CLIENT, jit_compile="True")
    round_of_one = list(arrays(federation.simulate()).values())
    for found, expected in zip(round_of_one, trained_alone(federation, epochs=2), strict=False):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_each_client_has_class_weights_of_its_own(federation):
    added = (
        CLASSES
        + """
from pathlib import Path

def class_weight(train_data, partition):
    return {0: 1.0, 1: 1.0} if partition == 0 else {0: 0.0, 1: 0.0}
"""
    )
    federation.write(added, federated='{"rounds": 1, "clients": 2}', loss='"sparse_categorical_crossentropy"')
    together = list(arrays(federation.simulate("two")).values())
    first = trained_alone(federation, client=0)
    # The second client's samples weigh nothing, so that its weights stay what they were.
    federation.write(added.replace("partition == 0", "False"), loss='"sparse_categorical_crossentropy"')
    untouched = list(arrays(federation.simulate("none")).values())
    for found, moved, same in zip(together, first, untouched, strict=False):
        np.testing.assert_allclose(found, (moved + same) / 2, rtol=1e-6, atol=1e-7)


def test_a_schedule_goes_by_the_steps_of_the_global_model_while_adam_begins_anew(federation):
    federation.write(
        """
        class Telling(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                optimizer = self.model.optimizer
                print("rate", float(optimizer.learning_rate), int(optimizer.iterations))

        def callbacks(partition):
            return [Telling()] if partition is not None else []
        """,
        federated='{"rounds": 2, "clients": 1, "min_clients": 1}',
        learning_rate="keras.optimizers.schedules.InverseTimeDecay(1e-3, 1, 1.0)",
        optimizer='"adam"',
    )
    told = federation.printed(federation.simulate)
    rates = [(float(line.split()[1]), int(line.split()[2])) for line in told if line.startswith("rate")]
    assert [steps for _, steps in rates] == [0, 1, 2, 3, 4] * 2
    np.testing.assert_allclose([rate for rate, _ in rates], [1e-3 / (1 + step) for step in range(10)], rtol=1e-6)


@pytest.mark.parametrize("keep", ["False", "True"])
def test_a_plateau_lowers_the_first_rate_of_clients_and_not_the_lowered_one(federation, keep):
    federation.write(
        """
        class Telling(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                print("rate", float(self.model.optimizer.learning_rate))

        def callbacks(partition):
            return [Telling()] if partition is not None else []
        """,
        federated='{"rounds": 4, "clients": 1, "min_clients": 1, "keep_optimizer": ' + keep + "}",
        reduce_lr_patience="1",
        reduce_lr_factor="0.5",
        reduce_lr_min_delta="1e9",
        min_learning_rate="0.005",
        optimizer='"adam"',
    )
    told = federation.printed(federation.simulate)
    found = [float(line.split()[1]) for line in told if line.startswith("rate")]
    np.testing.assert_allclose(found, [0.01, 0.01, 0.005, 0.005], rtol=1e-6)
