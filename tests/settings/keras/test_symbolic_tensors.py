import sys
import types

import pytest

from experiments_manager.settings import UserCodeError, load_settings
from experiments_manager.settings.keras.operations import TARGETS, keras_operation

REFUSAL = "A KerasTensor cannot be used as input to a TensorFlow function. And a page of text."


class _Refuses:
    """Stands for TensorFlow, whose functions refuse symbolic Keras tensors."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Refuses()

    def __call__(self, *_, **__):
        raise ValueError(REFUSAL)


@pytest.fixture
def failing_model(write, monkeypatch):
    """Gives the message for a `model` hook with some lines."""
    stub = types.ModuleType("tensorflow")
    stub.__getattr__ = lambda name: getattr(_Refuses(), name)
    monkeypatch.setitem(sys.modules, "tensorflow", stub)
    monkeypatch.setitem(sys.modules, "tensorflow.nn", _Refuses())

    def message(*lines, imports="import tensorflow as tf"):
        body = "".join(f"    {line}\n" for line in lines)
        path = write(
            f"{imports}\ndef model(hparams):\n    x = None\n{body}    return x\n",
            complete=False,
            name="mysettings_case.py",
        )
        text = path.read_text() + "def dataset(split): pass\nloss = 'mse'\nlearning_rate = 0.1\n"
        path.write_text(text)
        with pytest.raises(UserCodeError) as caught:
            load_settings(path).call("model")
        return str(caught.value)

    return message


def test_the_function_and_its_equivalent_are_named_at_the_line(failing_model):
    assert failing_model("x = tf.reshape(x, [-1, 3])") == (
        "mysettings_case.py:4: model: `tf.reshape` cannot be applied to a symbolic Keras tensor. Expected an operation "
        "of Keras 3. Write `keras.ops.reshape`, with `import keras`, or do it in the `call` of a layer of your own."
    )


def test_what_will_fail_next_in_the_same_function_is_named_as_well(failing_model):
    message = failing_model("x = tf.reshape(x, [-1, 3])", "y = tf.slice(x, [0], [1])", "x = tf.concat([x, y], -1)")
    assert message.endswith(
        "The same may hold for line 5 (`tf.slice`: `keras.ops.slice`), line 6 (`tf.concat`: `keras.ops.concatenate`)."
    )


@pytest.mark.parametrize(
    ("line", "imports", "written", "instead"),
    [
        ("x = tf.concat([x, x], -1)", "import tensorflow as tf", "tf.concat", "keras.ops.concatenate"),
        ("x = tf.nn.relu(x)", "import tensorflow as tf", "tf.nn.relu", "keras.ops.relu"),
        ("x = nn.relu(x)", "from tensorflow import nn", "nn.relu", "keras.ops.relu"),
        ("x = cut(x, 1, 2)", "from tensorflow import slice as cut", "cut", "keras.ops.slice"),
        ("x = tf.math.reduce_mean(x)", "import tensorflow as tf", "tf.math.reduce_mean", "keras.ops.mean"),
        ("x = tf.image.resize(x, (2, 2))", "import tensorflow as tf", "tf.image.resize", "keras.ops.image.resize"),
        ("x = 2 * tf.square(\n        tf.gather(x, 1))", "import tensorflow as tf", "tf.gather", "keras.ops.take"),
    ],
)
def test_the_call_is_found_under_every_name_and_within_others(failing_model, line, imports, written, instead):
    message = failing_model(line, imports=imports)
    assert f"`{written}` cannot be applied" in message
    assert f"Write `{instead}`" in message


def test_a_function_without_an_equivalent_is_named_all_the_same(failing_model):
    message = failing_model("x = tf.sequence_mask(x)")
    assert "`tf.sequence_mask` cannot be applied to a symbolic Keras tensor" in message
    assert "Look for its like in `keras.ops`" in message


def test_a_member_that_symbolic_tensors_lack_is_named(failing_model):
    lines = ("class KerasTensor: pass", "KerasTensor().get_shape()")
    assert "a symbolic Keras tensor has no `get_shape`" in failing_model(*lines)
    assert "Write `.shape`" in failing_model(*lines)


def test_other_errors_stay_as_they_are(failing_model):
    assert failing_model("raise ValueError('odd')").endswith("model: ValueError: odd")


@pytest.mark.parametrize(
    ("function", "instead"),
    [
        ("tensorflow.keras.backend.permute_dimensions", "keras.ops.transpose"),
        ("keras.backend.mean", "keras.ops.mean"),
        ("tensorflow.linalg.matmul", "keras.ops.matmul"),
        ("tensorflow.random.normal", "keras.random.normal"),
        ("tensorflow.image.central_crop", None),
        ("tensorflow.py_function", None),
        ("numpy.mean", None),
    ],
)
def test_equivalents(function, instead):
    assert keras_operation(function) == instead


@pytest.mark.slow
def test_every_equivalent_is_really_there(tensorflow):
    import keras

    def is_there(dotted):
        value = keras
        for part in dotted.split(".")[1:]:
            value = getattr(value, part, None)
        return value is not None

    assert {name for name in TARGETS if not is_there(name)} == set()


@pytest.mark.slow
def test_the_refusal_of_keras_itself_is_understood(write, tensorflow):
    text = "import keras\nimport tensorflow as tf\ndef model(hparams):\n    x = keras.Input((3,))\n    {}\n"
    text += "def dataset(split): pass\nloss = 'mse'\nlearning_rate = 0.1\n"
    for line, said in {
        "return float(x)": "has no values yet",
    }.items():
        with pytest.raises(UserCodeError) as caught:
            load_settings(write(text.format(line), complete=False)).call("model")
        assert str(caught.value).startswith("mysettings_case.py:5: model: ")
        assert said in str(caught.value)
