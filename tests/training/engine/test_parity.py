"""The engine's loop against `keras.Model.fit`: same data, seed and optimiser."""

import numpy as np
import pytest

SEQUENTIAL = """
    metrics = ["mae"]

    def optimizer(learning_rate):
        return keras.optimizers.SGD(learning_rate, momentum=0.9)

    def model(hparams):
        layers = keras.layers
        return keras.Sequential([keras.Input([3]), layers.Dense(5, activation="tanh"), layers.Dense(1)])
"""

MANY_INPUTS_AND_OUTPUTS = """
    loss = {"height": "mse", "sign": "binary_crossentropy"}
    loss_weights = {"height": 0.3, "sign": 2.0}
    metrics = {"sign": ["accuracy"]}

    def dataset(split):
        numbers = np.random.default_rng(samples[split])
        left, right = numbers.normal(size=(2, samples[split], 3)).astype("float32")
        height = (left * right).sum(axis=1, keepdims=True)
        return {"left": left, "right": right}, {"height": height, "sign": (height > 0).astype("float32")}

    def model(hparams):
        left, right = keras.Input([3], name="left"), keras.Input([3], name="right")
        hidden = keras.layers.Dense(6, activation="relu")(keras.layers.Concatenate()([left, right]))
        heads = {
            "height": keras.layers.Dense(1, name="height")(hidden),
            "sign": keras.layers.Dense(1, activation="sigmoid", name="sign")(hidden),
        }
        return keras.Model({"left": left, "right": right}, heads)
"""

OWN_TRAIN_STEP = """
    class Penalised(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(4, activation="tanh")
            self.head = keras.layers.Dense(1)

        def call(self, x):
            return self.head(self.hidden(x))

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                prediction = self(x, training=True)
                loss = self.compute_loss(y=y, y_pred=prediction) + 0.1 * tf.reduce_mean(prediction**2)
            self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
            for metric in self.metrics:
                metric.update_state(loss)
            return self.get_metrics_result()

    def model(hparams):
        return Penalised()
"""

RECURRENT_WITH_NOISE = """
    def dataset(split):
        x = np.random.default_rng(samples[split]).normal(size=(samples[split], 6, 2)).astype("float32")
        return x, x.sum(axis=(1, 2))[:, None]

    def model(hparams):
        layers = keras.layers
        return keras.Sequential(
            [
                keras.Input([6, 2]),
                layers.GRU(4),
                layers.BatchNormalization(),
                layers.Dropout(0.3),
                layers.Dense(1),
            ]
        )
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [SEQUENTIAL, MANY_INPUTS_AND_OUTPUTS, OWN_TRAIN_STEP, RECURRENT_WITH_NOISE],
    ids=["sequential", "many_inputs_and_outputs", "own_train_step", "recurrent_with_noise"],
)
def test_five_epochs_give_the_losses_of_keras_fit(experiment, keras_fit, model):
    trained = experiment(model, {"epochs": 5, "shuffle": False, "ema_momentum": None})
    expected = keras_fit(trained.settings)
    assert trained.history.keys() == expected.keys()
    assert expected["loss"][-1] < expected["loss"][0]
    for name, values in expected.items():
        np.testing.assert_allclose(trained.history[name], values, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "clipping", [{"gradient_clip_norm": 0.05}, {"gradient_clip_value": 0.01}], ids=["by_norm", "by_value"]
)
def test_gradients_are_clipped_as_keras_does(experiment, keras_fit, clipping):
    source = "def optimizer(learning_rate):\n    return keras.optimizers.SGD(learning_rate)\n"
    trained = experiment(source, {"shuffle": False, "ema_momentum": None, **clipping})
    names = {"gradient_clip_norm": "global_clipnorm", "gradient_clip_value": "clipvalue"}
    options = {names[name]: value for name, value in clipping.items()}
    assert trained.history["loss"] == pytest.approx(keras_fit(trained.settings, **options)["loss"], abs=1e-6)
    assert trained.history["loss"] != pytest.approx(keras_fit(trained.settings)["loss"], abs=1e-3)


@pytest.mark.slow
def test_gradients_are_accumulated_as_keras_does(experiment, keras_fit):
    source = "def optimizer(learning_rate):\n    return keras.optimizers.SGD(learning_rate)\n"
    trained = experiment(source, {"shuffle": False, "ema_momentum": None, "gradient_accumulation_steps": 2})
    expected = keras_fit(trained.settings, gradient_accumulation_steps=2)
    assert trained.history["loss"] == pytest.approx(expected["loss"], abs=1e-6)
    assert trained.history["loss"] != pytest.approx(keras_fit(trained.settings)["loss"], abs=1e-3)


CLASSES = """
    loss = "{loss}"

    def dataset(split):
        numbers = np.random.default_rng(samples[split])
        x = numbers.normal(size=(samples[split], 3)).astype("float32")
        y = numbers.integers(0, 3, samples[split])
        return x, {labels}

    def model(hparams):
        return keras.Sequential([keras.Input([3]), keras.layers.Dense(3, activation="softmax")])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        ("sparse_categorical_crossentropy", "y"),
        ("sparse_categorical_crossentropy", "y[:, None]"),
        ("categorical_crossentropy", "keras.utils.to_categorical(y, 3)"),
    ],
    ids=["indices", "indices_in_a_column", "one_hot"],
)
def test_class_weights_count_as_in_keras_fit(experiment, keras_fit, loss, labels):
    source = CLASSES.format(loss=loss, labels=labels) + "    class_weight = {0: 5.0, 2: 0.1}\n"
    trained = experiment(source, {"shuffle": False, "ema_momentum": None})
    expected = keras_fit(trained.settings, fit={"class_weight": {0: 5.0, 2: 0.1}})
    assert trained.history["loss"] == pytest.approx(expected["loss"], abs=1e-6)
    assert trained.history["val_loss"] == pytest.approx(expected["val_loss"], abs=1e-6)


@pytest.mark.slow
def test_sample_weights_count_as_in_keras_fit(experiment, keras_fit):
    source = """
        weighted_metrics = ["mae"]

        def dataset(split):
            x = np.random.default_rng(samples[split]).normal(size=(samples[split], 3)).astype("float32")
            return x, x.sum(axis=1, keepdims=True), np.linspace(0.0, 3.0, samples[split])
    """
    trained = experiment(source, {"shuffle": False, "ema_momentum": None})
    expected = keras_fit(trained.settings)
    assert trained.history["loss"] == pytest.approx(expected["loss"], abs=1e-6)
    assert trained.history["val_loss"] == pytest.approx(expected["val_loss"], abs=1e-6)


@pytest.mark.slow
def test_a_pipeline_gives_the_losses_of_keras_fit(experiment, keras_fit):
    source = """
        def dataset(split):
            x = np.random.default_rng(samples[split]).normal(size=(samples[split], 3)).astype("float32")
            return tf.data.Dataset.from_tensor_slices((x, x.sum(axis=1, keepdims=True))).batch(12)
    """
    trained = experiment(source, {"ema_momentum": None})
    assert trained.history["loss"] == pytest.approx(keras_fit(trained.settings)["loss"], abs=1e-6)


def test_a_metric_of_several_values_is_logged_under_a_number_each(experiment):
    source = CLASSES.format(loss="categorical_crossentropy", labels="keras.utils.to_categorical(y, 3)")
    trained = experiment(source + "    metrics = [keras.metrics.F1Score(name='f1')]\n")
    assert {"f1_0", "f1_1", "f1_2", "val_f1_2"} <= trained.history.keys()


def test_a_metric_that_gives_a_dictionary_is_logged_by_the_names_in_it(experiment):
    source = """
        monitor = "val_largest"

        class Extremes(keras.metrics.MeanMetricWrapper):
            def result(self):
                return {"largest": self.total, "count_of": self.count}

        def metrics():
            return [Extremes(lambda y, predicted: y, name="extremes")]
    """
    trained = experiment(source)
    assert {"largest", "count_of", "val_largest", "val_count_of"} <= trained.history.keys()
