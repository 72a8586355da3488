"""What `metrics` may give, what a metric of an earlier file sees, and which one is named when it fails."""

import types

import pytest

from experiments_manager.settings import SettingsError

FLAT_TARGETS = """
    def dataset(split):
        x = np.random.default_rng(samples[split]).normal(size=(samples[split], 3)).astype("float32")
        return x, (x.sum(axis=1) > 0).astype("float64")

    def model(hparams):
        return keras.Sequential([keras.Input([3]), keras.layers.Dense(1, activation="sigmoid")])

    loss = "binary_crossentropy"
    epochs = 1
"""

TWO_OUTPUTS = """
    def dataset(split):
        x = np.random.default_rng(samples[split]).normal(size=(samples[split], 3)).astype("float32")
        return x, {"sum": x.sum(axis=1, keepdims=True), "first": x[:, :1]}

    def model(hparams):
        x = keras.Input([3])
        return keras.Model(x, {name: keras.layers.Dense(1, name=name)(x) for name in ("sum", "first")})

    epochs = 1
"""


@pytest.fixture
def measured(settings_file, tensorflow):
    """Builds the model of a settings file, and gives the names of what is measured beside the loss."""
    from experiments_manager.settings import load_settings
    from experiments_manager.training.setup.compilation import compiled_model
    from experiments_manager.training.setup.datasets import feed_for

    def build(*sources):
        settings = load_settings(settings_file(*sources))
        model = compiled_model(settings, feed_for(settings, "train"))
        return set(model.get_metrics_result()) - {"loss", "sum_loss", "first_loss"}

    return build


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("'mae'", {"mae"}),
        ("keras.metrics.MeanAbsoluteError()", {"mean_absolute_error"}),
        ("keras.losses.mean_absolute_error", {"mean_absolute_error"}),
        ("worst", {"worst"}),
        ("['mae', ['mse']]", {"mae", "mse"}),
        ("{'height': 'mae'}", {"mae"}),
        ("{'height': 'mae', 'width': None}", {"mae"}),
        ("('mae',)", {"mae"}),
        ("None", set()),
        ("[]", set()),
        ("{}", set()),
    ],
)
@pytest.mark.parametrize("hook", ["get_metrics(model, loss)", "metrics()"])
def test_every_form_is_taken(measured, given, names, hook):
    worst = "def worst(y_true, y_pred):\n    return tf.reduce_max(abs(y_true - y_pred), -1)\n"
    assert measured(worst, f"def {hook}:\n    return {given}\n") == names


def both(name):
    return {f"sum_{name}", f"first_{name}"}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("'mae'", both("mae")),
        ("keras.metrics.MeanAbsoluteError()", both("mean_absolute_error")),
        ("['mae', keras.metrics.MeanSquaredError()]", both("mae") | both("mean_squared_error")),
        ("['mae']", both("mae")),
        ("{'sum': 'mae', 'first': ['mse', keras.losses.log_cosh]}", {"sum_mae", "first_mse", "first_log_cosh"}),
        ("{'sum': keras.metrics.MeanAbsoluteError()}", {"sum_mean_absolute_error"}),
        ("[['mae'], ['mse']]", {"sum_mse", "first_mae"}),
    ],
)
def test_in_an_earlier_file_a_flat_list_is_meant_for_each_of_several_outputs(measured, given, names):
    assert measured(TWO_OUTPUTS, f"def get_metrics(model, loss):\n    return {given}\n") == names


def test_a_model_that_does_not_tell_its_outputs_keeps_their_names(measured):
    model = """
        def model(hparams):
            class Two(keras.Model):
                def __init__(self):
                    super().__init__()
                    self.sum, self.first = keras.layers.Dense(1), keras.layers.Dense(1)
                def call(self, x):
                    return {"sum": self.sum(x), "first": self.first(x)}
            return Two()
        def get_metrics(model, loss):
            return {"sum": "mae", "first": ["mse"]}
    """
    assert measured(TWO_OUTPUTS, model) == {"sum_mae", "first_mse"}


def test_in_a_file_of_today_a_list_has_one_entry_an_output_as_in_keras(measured):
    assert measured(TWO_OUTPUTS, "metrics = ['mae', 'mse']\n") == {"sum_mse", "first_mae"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("3", "Expected a name, a Keras metric or a function .* got int"),
        ("[keras.metrics.AUC]", r"got the class AUC. Write `AUC\(\)`"),
        ("['nosuch']", "Unknown Keras metric 'nosuch'"),
    ],
)
def test_what_is_no_metric_is_refused_at_its_line(measured, given, message):
    with pytest.raises(SettingsError, match=rf"mysettings_curve.py:\d+: get_metrics: .*{message}"):
        measured(f"def get_metrics(model, loss):\n    return {given}\n")


@pytest.mark.parametrize(
    "metric",
    [
        "tf.keras.metrics.binary_crossentropy",
        "'binary_crossentropy'",
        "keras.metrics.BinaryCrossentropy()",
        "'accuracy'",
        "keras.metrics.AUC()",
    ],
)
def test_metrics_of_an_earlier_file_take_targets_without_a_last_dimension(measured, metric):
    assert len(measured(FLAT_TARGETS, f"def get_metrics(model, loss):\n    return [{metric}]\n")) == 1


def test_a_function_of_an_earlier_file_sees_targets_in_rank_and_type_of_the_predictions(experiment):
    source = """
        seen = []
        def mine(y_true, y_pred):
            seen.append((y_true.shape.rank, y_true.dtype.name, y_pred.dtype.name))
            return tf.reduce_mean(abs(y_true - y_pred), -1)
        def get_metrics(model, loss):
            return mine
    """
    trained = experiment([FLAT_TARGETS, source])
    assert set(trained.settings.module.seen) == {(2, "float32", "float32")}
    assert "val_mine" in trained.epochs[0].logs


@pytest.mark.parametrize("name", ["KLD", "kullback_leibler_divergence", "logcosh", "huber", "MSE"])
def test_names_of_keras_2_are_known_in_an_earlier_file(measured, name):
    assert measured(FLAT_TARGETS, f"def get_metrics(model, loss):\n    return ['{name}']\n") == {name}


@pytest.mark.parametrize("name", ["kullback_leibler_divergence", "logcosh", "huber_loss"])
def test_losses_by_names_of_keras_2_are_known_in_an_earlier_file(measured, name):
    assert measured(FLAT_TARGETS, f"def get_total_loss(model):\n    return '{name}'\n") == set()


def test_a_metric_that_fails_is_named_itself_and_not_the_data_set(measured):
    with pytest.raises(SettingsError, match="metrics: the metric 'binary_crossentropy' cannot be computed: .* rank"):
        measured(FLAT_TARGETS, "metrics = [keras.metrics.binary_crossentropy]\n")


def test_a_metric_of_the_users_is_named_at_the_line_that_raised(measured, settings_file):
    source = """
        class Own(keras.metrics.Metric):
            def update_state(self, y_true, y_pred, sample_weight=None):
                raise KeyError("no such column")
            def result(self):
                return 0.0
        def get_metrics(model, loss):
            return [Own(name="own")]
    """
    with pytest.raises(SettingsError, match="the metric 'own' cannot be computed: .*no such column") as caught:
        measured(source)
    [problem] = caught.value.problems
    lines = settings_file(source).read_text().splitlines()
    assert 'raise KeyError("no such column")' in lines[problem.line - 1]


def test_a_metric_whose_result_fails_is_named(measured):
    source = """
        class Own(keras.metrics.Metric):
            def update_state(self, y_true, y_pred, sample_weight=None):
                pass
            def result(self):
                raise RuntimeError("nothing was counted")
        def get_metrics(model, loss):
            return ["mae", Own(name="own")]
    """
    with pytest.raises(SettingsError, match="the metric 'own' cannot be computed: nothing was counted"):
        measured(source)


def test_metrics_for_an_output_that_there_is_not_are_named(measured):
    with pytest.raises(SettingsError, match="metrics: They do not fit the model's outputs"):
        measured(TWO_OUTPUTS, "metrics = {'nosuch': 'mae'}\n")


def test_a_callback_of_an_earlier_file_may_copy_the_model_with_metrics_and_losses_of_its_own(experiment):
    source = """
        def get_metrics(model, loss):
            class Local(keras.metrics.MeanAbsoluteError):
                pass
            return [Local()]

        def get_total_loss(model):
            def local_loss(y_true, y_pred):
                return tf.reduce_mean((y_true - y_pred) ** 2, -1)
            return local_loss

        copies = []
        def addon_callbacks(model, train_samples, val_samples):
            def copy(epoch, logs):
                copies.append(keras.models.clone_model(model))
            return {"copy": keras.callbacks.LambdaCallback(on_epoch_end=copy)}
    """
    assert len(experiment(source).settings.module.copies) == 2


def test_names_that_keras_does_not_know_are_none(tensorflow):
    import keras

    from experiments_manager.training.setup.metrics import known_name, metric_by_name

    assert known_name(keras.losses, "logcosh", {"logcosh": "log_cosh"}) == "log_cosh"
    assert known_name(keras.losses, "logcosh", {}) is None
    assert isinstance(metric_by_name("huber", {"logcosh": "log_cosh"}), types.FunctionType)
    assert metric_by_name("huber", {}) is None
