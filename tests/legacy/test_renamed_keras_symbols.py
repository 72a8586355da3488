import ast
import logging

import pytest

from experiments_manager.legacy.renamed_keras_symbols import RENAMED, rename
from experiments_manager.settings import SettingsError, load_settings

TF = "import tensorflow as tf\n"

HOOKS = """
def get_input_pipeline(raw_data_files_folder, isTraining, batch_size, nbEpoch): pass
def get_learningRate(): return 0.1
def get_total_loss(model): return {loss}
model_file = 'model_a.py'
"""


def renamed(text):
    return ast.unparse(rename(ast.parse(text))[0])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (TF + "m = tf.keras.metrics.mean_squared_error", TF + "m = tf.keras.metrics.MSE"),
        (TF + "l = tf.keras.losses.mean_absolute_error(a, b)", TF + "l = tf.keras.losses.MAE(a, b)"),
        (TF + "l = tf.keras.losses.kl_divergence", TF + "l = tf.keras.losses.KLD"),
        (
            "from tensorflow.keras.metrics import AUC, mean_squared_error as error",
            "from tensorflow.keras.metrics import AUC\nfrom tensorflow.keras.metrics import MSE as error",
        ),
        (
            "from tensorflow.keras.losses import mean_squared_error",
            "from tensorflow.keras.losses import MSE as mean_squared_error",
        ),
        ("import keras\nl = keras.losses.mse", "import keras\nl = keras.losses.mean_squared_error"),
        (
            "from keras import metrics as m\nx = [m.KLD, m.AUC()]",
            "from keras import metrics as m\nx = [__import__('keras').losses.kl_divergence, m.AUC()]",
        ),
        (TF + "o = tf.keras.optimizers.legacy.Adam(0.1)", TF + "o = tf.keras.optimizers.Adam(0.1)"),
        (
            "from tensorflow.keras.optimizers.legacy import Adam\no = Adam(lr=0.1)",
            "from tensorflow.keras.optimizers import Adam as Adam\no = Adam(learning_rate=0.1)",
        ),
        (TF + "o = tf.keras.optimizers.SGD(lr=0.1)", TF + "o = tf.keras.optimizers.SGD(learning_rate=0.1)"),
        (TF + "o = tf.keras.optimizers.SGD(0.1, decay=0.0)", TF + "o = tf.keras.optimizers.SGD(0.1)"),
        (
            TF + "o = tf.keras.optimizers.SGD(rate, decay=0.5)",
            TF + "o = tf.keras.optimizers.SGD(__import__('keras').optimizers.schedules.InverseTimeDecay(rate, 1, 0.5))",
        ),
        (
            TF + "r = tf.keras.layers.experimental.preprocessing.Rescaling(2.0)",
            TF + "r = tf.keras.layers.Rescaling(2.0)",
        ),
        (
            "from tensorflow.keras.layers.experimental import preprocessing\nr = preprocessing.Rescaling(2.0)",
            "from tensorflow.keras import layers as preprocessing\nr = preprocessing.Rescaling(2.0)",
        ),
        (TF + "l = tf.keras.layers.CuDNNLSTM(3)", TF + "l = tf.keras.layers.LSTM(3)"),
        (
            TF + "s = tf.keras.saving.register_keras_serializable()",
            TF + "s = tf.keras.utils.register_keras_serializable()",
        ),
        (
            "from keras import backend as K\nx = K.mean(y)",
            "from tensorflow.keras import backend as K\nx = K.mean(y)",
        ),
        (
            "import keras.backend\nx = keras.backend.mean(y)",
            "import keras\nx = __import__('tensorflow').keras.backend.mean(y)",
        ),
        (
            "from tensorflow.keras.metrics import *\nx = 1",
            "from tensorflow.keras.metrics import *\nx = 1",
        ),
        (
            "try:\n    from tensorflow.keras.losses import mean_squared_error\nexcept ImportError:\n    pass",
            "try:\n    from tensorflow.keras.losses import mean_squared_error\nexcept ImportError:\n    pass",
        ),
        ("lr = dict(lr=1)", "lr = dict(lr=1)"),
    ],
)
def test_an_old_name_is_read_as_what_keras_3_has_for_it(old, new):
    assert renamed(old) == new


def test_the_tree_that_was_given_stays_as_it_is():
    tree = ast.parse(TF + "m = tf.keras.metrics.mean_squared_error")
    before = ast.dump(tree)
    rename(tree)
    assert ast.dump(tree) == before


def test_each_old_name_is_told_once_with_its_first_line():
    _, replaced = rename(ast.parse(TF + "a = tf.keras.losses.mean_squared_error\n" * 3))
    [item] = replaced
    assert (item.line, item.old, item.new) == (2, "tf.keras.losses.mean_squared_error", "tf.keras.losses.MSE")


@pytest.fixture
def stub_of_tensorflow(tmp_path, monkeypatch):
    """A `tensorflow` with the one name that is tried, so that nothing large is imported."""
    package = tmp_path / "stub" / "tensorflow"
    for folder in (package, package / "keras"):
        folder.mkdir(parents=True)
    (package / "__init__.py").write_text("from tensorflow import keras\n")
    (package / "keras" / "__init__.py").write_text("from tensorflow.keras import losses\n")
    (package / "keras" / "losses.py").write_text("MSE = 'the function'\n")
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(package.parent)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorflow"]:
        del sys.modules[name]


def test_a_file_of_the_legacy_framework_keeps_its_old_names_with_one_warning_each(write, stub_of_tensorflow, caplog):
    write(
        "import tensorflow as tf\ndef model(usersettings): return tf.keras.losses.mean_squared_error\n",
        "model_a.py",
        complete=False,
    )
    text = "import tensorflow as tf\nused = tf.keras.losses.mean_squared_error\n"
    with caplog.at_level(logging.WARNING):
        settings = load_settings(write(text + HOOKS.format(loss="tf.keras.losses.mean_squared_error"), complete=False))
    assert settings.resolve("loss", model=None) == settings.call("model") == settings.module.used == "the function"
    ours = [record.getMessage() for record in caplog.records]
    assert ours == [
        f"{place}: tf.keras.losses.mean_squared_error is not in Keras 3: tf.keras.losses.MSE is used instead. "
        "Replace it in the file."
        for place in ("mysettings_case.py:2", "model_a.py:2")
    ]


def test_a_file_with_canonical_names_is_told_to_write_the_new_one(write):
    text = "import tensorflow as tf\nx = tf.keras.losses.mean_squared_error\n"
    with pytest.raises(SettingsError, match=r"mean_squared_error: not available any more.*`tf.keras.losses.MSE`"):
        load_settings(write(text))


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("tf.keras.backend.learning_phase()", "`training=`"),
        ("tf.keras.layers.experimental.preprocessing.CategoryCrossing()", "HashedCrossing"),
        ("tf.estimator.Estimator()", "`keras.Model`"),
    ],
)
def test_what_has_no_equivalent_stops_a_file_of_the_legacy_framework_too(write, line, instead):
    write("def model(usersettings): pass\n", "model_a.py", complete=False)
    text = f"import tensorflow as tf\ndef f(): return {line}\n" + HOOKS.format(loss="'mse'")
    with pytest.raises(SettingsError, match=f"mysettings_case.py:2: .*: not available any more.*{instead}"):
        load_settings(write(text, complete=False))


@pytest.mark.slow
def test_every_new_name_is_really_there(tensorflow):
    import keras

    def is_there(dotted):
        value = {"tensorflow": tensorflow, "keras": keras}[dotted.split(".")[0]]
        for part in dotted.split(".")[1:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True

    offered = {new for new in RENAMED.values() if new.startswith(("keras.", "tensorflow.keras."))}
    assert {new for new in offered if not is_there(new)} == set()


@pytest.mark.slow
def test_the_schedule_for_decay_divides_the_rate_as_keras_2_did(tensorflow):
    names = {"tf": tensorflow, "rate": 0.5}
    tree = rename(ast.parse(TF + "o = tf.keras.optimizers.SGD(learning_rate=rate, decay=0.25)"))[0]
    exec(compile(tree, "file", "exec"), names)
    optimizer = names["o"]
    optimizer.iterations.assign(3)
    assert float(optimizer.learning_rate) == pytest.approx(0.5 / (1 + 0.25 * 3))


CLASS = (
    TF
    + """class Ours({base}):
    def __init__(self, name='ours', **kwargs):
        {call}
"""
)


@pytest.mark.parametrize(
    ("base", "old", "new"),
    [
        ("tf.keras.metrics.Metric", "super().__init__(name)", "super().__init__(name=name)"),
        ("tf.keras.metrics.Metric", "super(A, self).__init__(n, 'x')", "super(A, self).__init__(name=n, dtype='x')"),
        ("tf.keras.metrics.Metric", "Base.__init__(self, name)", "Base.__init__(self, name)"),
        ("tf.keras.losses.Loss", "super().__init__('none', name)", "super().__init__(reduction='none', name=name)"),
        ("tf.keras.layers.Layer", "super().__init__(True, name)", "super().__init__(trainable=True, name=name)"),
        ("tf.keras.metrics.Metric", "super().__init__(*given)", "super().__init__(*given)"),
        ("tf.keras.metrics.Metric", "super().__init__(name=name)", "super().__init__(name=name)"),
        ("object", "super().__init__(name)", "super().__init__(name)"),
    ],
)  # fmt: skip
def test_arguments_that_base_classes_took_by_position_get_their_names(base, old, new):
    assert renamed(CLASS.format(base=base, call=old)) == ast.unparse(ast.parse(CLASS.format(base=base, call=new)))
