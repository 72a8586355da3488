import pytest

from experiments_manager.legacy.removed_keras_symbols import (
    REMOVED_ELSEWHERE,
    REMOVED_FROM_KERAS,
    REMOVED_FROM_TF_KERAS,
    removed_names,
)
from experiments_manager.settings.source.module_source import read_source


@pytest.fixture
def removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def removed_in(text):
        path = tmp_path / "module.py"
        path.write_text(text)
        return removed_names(read_source(path))

    return removed_in


@pytest.mark.parametrize(
    ("text", "name", "instead"),
    [
        ("import tensorflow_addons as tfa", "tensorflow_addons", "`ema_momentum`"),
        ("from tensorflow_addons.optimizers import AdamW", "tensorflow_addons.optimizers.AdamW", "Keras' own"),
        ("import tensorflow_model_optimization", "tensorflow_model_optimization", "TensorFlow Lite"),
        (
            "import tensorflow as tf\ntf.keras.optimizers.legacy.Adam()",
            "tf.keras.optimizers.legacy.Adam",
            "`keras.optimizers.`",
        ),
        (
            "from tensorflow import keras as K\nK.layers.experimental.preprocessing.Rescaling(2)",
            "K.layers.experimental.preprocessing.Rescaling",
            "`keras.layers.`",
        ),
        ("import keras.backend as B\nB.learning_phase()", "B.learning_phase", "`training=`"),
        ("import tensorflow as tf\nm = tf.keras.metrics.mean_squared_error", "", "`tf.keras.metrics.MSE`"),
        ("import tensorflow as tf\ntf.Session()", "tf.Session", "`tf.function`"),
        (
            "import tensorflow as tf\ntf.keras.optimizers.Adam(lr=0.1)",
            "tf.keras.optimizers.Adam(lr=…)",
            "`learning_rate=`",
        ),
        ("def f():\n    import tensorflow as tf\n    return tf.estimator.Estimator", "", "`keras.Model`"),
    ],
)
def test_what_is_gone_is_reported_with_what_to_write_instead(removed, text, name, instead):
    (problem,) = removed(text)
    assert problem.place == f"module.py:{len(text.splitlines())}"
    assert problem.name.startswith(name)
    assert instead in problem.text


@pytest.mark.parametrize(
    "text",
    [
        "import tensorflow as tf\ntf.keras.preprocessing.image.ImageDataGenerator()",
        "import tensorflow as tf\ntf.keras.optimizers.Adam(learning_rate=0.1)",
        "import keras\nkeras.losses.mean_squared_error",
        "class tf: pass\ntf.Session",
        "from .legacy import Adam",
        "try:\n    import tensorflow_addons as tfa\nexcept ImportError:\n    tfa = None",
    ],
)
def test_what_is_there_is_left_alone(removed, text):
    assert removed(text) == []


def test_one_use_is_reported_once(removed):
    assert (
        len(removed("import tensorflow as tf\nx = [tf.keras.optimizers.legacy.SGD, tf.keras.optimizers.legacy.Adam]"))
        == 1
    )


def _is_there(dotted):
    import keras
    import tensorflow as tf

    value = {"tensorflow": tf, "keras": keras}[dotted.split(".")[0]]
    for part in dotted.split(".")[1:]:
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


@pytest.mark.slow
def test_every_name_in_the_tables_is_really_gone(tensorflow):
    names = [name for name in REMOVED_ELSEWHERE if name.startswith("tensorflow.")]
    names += [f"{root}.{name}" for root in ("keras", "tensorflow.keras") for name in REMOVED_FROM_KERAS]
    names += [f"tensorflow.keras.{name}" for name in REMOVED_FROM_TF_KERAS]
    still_there = {name for name in names if _is_there(name)}
    # The optimizers of this name exist to raise an error that says what to use.
    assert still_there <= {"keras.optimizers.legacy", "tensorflow.keras.optimizers.legacy"}
