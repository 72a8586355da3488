"""Functions of TensorFlow on the symbolic tensors of a model: one table of them, then what a model made of them can."""

import numpy as np
import pytest

X = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")

FUNCTIONS = {
    "one argument": lambda tf, K, x: tf.square(x),
    "positional and named arguments": lambda tf, K, x: tf.reduce_mean(x, axis=[1], keepdims=True),
    "tensors in a list": lambda tf, K, x: tf.concat([x, x], axis=-1),
    "a dtype": lambda tf, K, x: tf.cast(x, tf.float64),
    "tensors and constants": lambda tf, K, x: tf.where(tf.greater(x, 0.0), x, 0.0),
    "several outputs in a list": lambda tf, K, x: tf.split(x, 2, axis=1)[1],
    "several outputs in a named tuple": lambda tf, K, x: tf.math.top_k(x, 2).values,
    "operators with eager tensors": lambda tf, K, x: 1.0 - tf.constant(2.0) * tf.sigmoid(x),
    "python around functions": lambda tf, K, x: tf.nn.moments(x, axes=[1])[1],
    "a function that asks for get_shape": lambda tf, K, x: tf.image.sobel_edges(x[..., tf.newaxis]),
    "a shape in parts": lambda tf, K, x: tf.reshape(x, [tf.shape(x)[0], tf.shape(x)[1] * tf.shape(x)[2]]),
    "a computed shape": lambda tf, K, x: tf.reshape(x, tf.stack([tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])])),
    "a shape that is unpacked": lambda tf, K, x: tf.reshape(x, [-1, (lambda n, h, w: h * w)(*tf.shape(x))]),
    "a shape to fill": lambda tf, K, x: x + tf.ones(tf.shape(x)),
    "a tensor as index": lambda tf, K, x: x[:, tf.constant(1)],
    "a name": lambda tf, K, x: tf.reduce_sum(x, axis=-1, name="total"),
    "its old name": lambda tf, K, x: tf.compat.v1.squeeze(tf.expand_dims(x, -1), squeeze_dims=[3]),
    "the backend of Keras": lambda tf, K, x: K.mean(K.concatenate([x, x]), axis=1),
    "shapes by the backend of Keras": lambda tf, K, x: K.batch_flatten(K.reshape(x, (-1, K.int_shape(x)[1] * 3))),
}


@pytest.fixture(scope="module")
def made(tensorflow):
    """A model, by the function that makes its output from an input of shape (4, 3)."""
    import keras

    from experiments_manager.training.setup.tensorflow_functions import accept_symbolic_tensors

    accept_symbolic_tensors()

    def make(function):
        inputs = keras.Input((4, 3), name="series")
        return keras.Model(inputs, function(tensorflow, tensorflow.keras.backend, inputs))

    return make


@pytest.mark.parametrize("what", FUNCTIONS)
def test_a_model_gives_what_the_functions_give_before_and_after_saving(what, made, tensorflow):
    import keras

    model = made(FUNCTIONS[what])
    expected = FUNCTIONS[what](tensorflow, tensorflow.keras.backend, tensorflow.constant(X)).numpy()
    assert model.output.shape[1:] == expected.shape[1:], "a layer after it must know these"
    for same in (model, keras.models.clone_model(model), keras.Model.from_config(model.get_config())):
        np.testing.assert_array_equal(np.asarray(same(X)), expected)


def test_names_are_those_of_keras_2(made, tensorflow):
    tensorflow.keras.utils.clear_session()
    model = made(lambda tf, K, x: tf.reshape(tf.reshape(x, [-1, 12]), [-1, 6, 2]))
    assert [operation.name for operation in model.operations] == ["series", "tf.reshape", "tf.reshape_1"]
    assert model.output_names == ["tf.reshape_1"]


def test_a_saved_and_an_exported_model_give_the_same(made, tensorflow, tmp_path):
    import keras

    def outputs(tf, K, x):
        return keras.layers.Dense(2)(tf.reshape(tf.tile(x, [1, 2, 1]), [-1, 24]))

    model = made(outputs)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(X), model(X))
    model.export(tmp_path / "served", verbose=False)
    served = tensorflow.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(X), model(X), rtol=1e-6)


def test_it_is_trained_as_with_functions_of_keras(made, tensorflow):
    import keras

    def trained(reshape):
        keras.utils.set_random_seed(1)
        model = made(lambda tf, K, x: keras.layers.Dense(1)(reshape(keras.layers.Dense(5)(x))))
        model.compile("sgd", "mse")
        model.fit(X, np.ones((2, 1), "float32"), epochs=3, verbose=0)
        return model.get_weights()

    ours, theirs = trained(lambda x: tensorflow.reshape(x, [-1, 20])), trained(lambda x: keras.ops.reshape(x, [-1, 20]))
    for left, right in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(left, right)


def test_random_operations_are_seen_in_the_graph_of_a_step(made, tensorflow):
    from experiments_manager.training.state.graph_state import operations

    model = made(lambda tf, K, x: tf.nn.dropout(x, 0.5))
    graph = tensorflow.function(model).get_concrete_function(tensorflow.constant(X)).graph
    assert any(operation.is_random for operation in operations(graph))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda tf, K, x: tf.map_fn(lambda row: row, x), "KerasTensor"),
        (
            lambda tf, K, x: tf.numpy_function(lambda rows: rows, [x], tf.float32),
            "`tf.numpy_function` cannot be applied here",
        ),
        (lambda tf, K, x: list(x), "cannot be iterated over"),
        (lambda tf, K, x: tf.reshape(x, [-1, 7, 0.5]), "`tf.reshape` cannot be applied here: Value passed"),
        (lambda tf, K, x: K.mean(x, axis=9), "Invalid reduction dimension"),
    ],
)
def test_what_cannot_be_done_is_refused_by_an_error(function, message, made):
    with pytest.raises((TypeError, ValueError), match=message):
        made(function)


def test_functions_of_tensors_stay_as_they_are(made, tensorflow):
    from experiments_manager.training.setup.tensorflow_functions import TensorFlowFunction

    assert tensorflow.reshape(tensorflow.zeros([2, 3]), [-1]).shape == (6,)
    with pytest.raises((ValueError, tensorflow.errors.InvalidArgumentError)):
        tensorflow.reshape(tensorflow.zeros([2, 3]), [4])
    for name in ("tf.nothing", "os.system", "tf.saved_model.load"):
        with pytest.raises(ValueError, match="no function for tensors"):
            TensorFlowFunction(name)
