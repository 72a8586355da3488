"""What graphs tell of their samples: proved apart, or refused, also where no value that is likely shows it."""

import functools

import keras
import pytest

from experiments_manager.serving.models.graphs import read_graph
from experiments_manager.serving.models.row_analysis.row_flow import reason_rows_mix

LAYERS = {
    "dense": lambda k: [k.Dense(5, "gelu"), k.Dense(3, "softmax")],
    "series": lambda k: [k.Reshape((4, 3)), k.Bidirectional(k.GRU(4, return_sequences=True)), k.LSTM(3)],
    "images": lambda k: [
        k.Reshape((2, 3, 2)),
        k.Conv2D(4, 2, padding="same"),
        k.BatchNormalization(),
        k.SeparableConv2D(4, 2, padding="same"),
        k.Conv2DTranspose(2, 2),
        k.MaxPool2D(2, padding="same"),
        k.GroupNormalization(2),
        k.UpSampling2D(),
        k.Flatten(),
    ],
    "normalised": lambda k: [k.LayerNormalization(), k.UnitNormalization(), k.Rescaling(2.0)],
}


def attention():
    given = keras.Input((12,))
    steps = keras.layers.Reshape((4, 3))(given)
    mixed = keras.layers.MultiHeadAttention(2, 3)(steps, steps) + steps
    return keras.Model(given, keras.layers.GlobalAveragePooling1D()(keras.layers.Dense(4)(mixed)))


def apart(tf):
    """Functions of [samples, 12] by name that keep samples apart, and the table that they use."""
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["1"], [5.0]), 0.0)

    def steps(x):
        state = tf.zeros([tf.shape(x)[0], 3])
        parts = tf.reshape(x, [-1, 4, 3])
        go_on = lambda step, state: step < tf.shape(parts)[1]  # noqa: E731
        return tf.while_loop(go_on, lambda step, state: (step + 1, state * 0.5 + parts[:, step]), [0, state])[1]

    def with_token(x):
        token = tf.tile(tf.ones([1, 1, 3]), [tf.shape(x)[0], 1, 1])
        return tf.concat([token, tf.reshape(x, [-1, 4, 3])], 1)[:, 0]

    functions = {
        "steps": steps,
        "with_token": with_token,
        "over others": lambda x: tf.cumsum(tf.reverse(x, [1]), 1) / tf.reduce_max(x, -1, keepdims=True),
        "back and forth": lambda x: tf.transpose(tf.reduce_sum(tf.transpose(x)[:6], 0, keepdims=True)),
        "looked up": lambda x: table.lookup(tf.as_string(tf.cast(x, tf.int32))),
        "gathered": lambda x: tf.gather(x, tf.argsort(x, 1), batch_dims=1) + tf.gather(x, [3], axis=1),
        "compiled": tf.function(lambda x: tf.nn.relu(x) * 2.0, jit_compile=True, autograph=False),
    }
    return functions, table


def mixing(tf):
    """Functions of [samples, 12] by name whose samples depend on each other, if only sometimes."""
    rows = lambda x: tf.shape(x)[0]  # noqa: E731
    return {
        "rarely": lambda x: x / tf.maximum(tf.reduce_max(x), 1e6),
        "by one number": lambda x: tf.cond(tf.reduce_any(x == 42.0), lambda: x[::-1], lambda: tf.identity(x)),
        "in a large call": lambda x: tf.cond(rows(x) > 100, lambda: x - tf.reduce_mean(x, 0), lambda: tf.identity(x)),
        "by its size": lambda x: x + tf.cast(rows(x) // 100, tf.float32),
        "one more": lambda x: x * tf.cast(tf.shape(tf.range(rows(x) + 1))[0], tf.float32),
        "by place": lambda x: x + tf.cast(tf.range(rows(x)), tf.float32)[:, None],
        "the first": lambda x: x + x[:1],
        "backwards": lambda x: tf.strided_slice(x, [0, 0], [0, 12], [-1, 1], begin_mask=1, end_mask=1),
        "turned": lambda x: tf.reshape(tf.transpose(x), tf.shape(x)),
        "in pairs": lambda x: tf.reshape(tf.cumsum(tf.reshape(x, [-1]), 0), [-1, 12]),
        "compared": lambda x: tf.cast(tf.equal(x[:, None, 0], x[None, :, 0]), tf.float32) @ x,
        "batch statistics": lambda x: tf.compat.v1.nn.fused_batch_norm(x[:, None, None], [1.0] * 12, [0.0] * 12)[0],
        "over a loop": lambda x: tf.while_loop(lambda y: tf.reduce_max(y) > 1e6, lambda y: [y * 0.5], [x])[0],
        "one after the other": lambda x: tf.scan(lambda a, row: tf.where(row > 1e6, a, row), x),
        "capacity": lambda x: x * tf.cast(tf.cumsum(tf.cast(x > 1e6, tf.int32), 0) < 2, tf.float32),
        "compiled": tf.function(lambda x: x / tf.maximum(tf.reduce_max(x), 1e6), jit_compile=True, autograph=False),
        "not known": lambda x: tf.raw_ops.MatrixBandPart(input=x, num_lower=0, num_upper=0),
    }


@pytest.fixture(scope="module")
def reasons(tensorflow, tmp_path_factory):
    """Saves functions of [samples, 12] as signatures of one SavedModel, and tells what its graph says of each."""
    tf = tensorflow

    def of(functions, held=()):
        module = tf.Module()
        module.held = list(held)
        spec = tf.TensorSpec([None, 12], tf.float32, name="x")
        module.functions = [tf.function(function, [spec], autograph=False) for function in functions.values()]
        signatures = {f"f{n}": function.get_concrete_function() for n, function in enumerate(module.functions)}
        path = tmp_path_factory.mktemp("saved")
        tf.saved_model.save(module, str(path), signatures)
        graph = read_graph(path)
        found = {}
        for n, name in enumerate(functions):
            [fed], [output] = graph.signatures[f"f{n}"].inputs.values(), graph.signatures[f"f{n}"].outputs.values()
            found[name] = reason_rows_mix(graph.graph, {fed.name: [12]}, {output.name: "y"})
        return found

    return of


def test_layers_keep_samples_apart(reasons):
    models = {name: keras.Sequential([keras.Input((12,)), *make(keras.layers)]) for name, make in LAYERS.items()}
    models["attention"] = attention()
    functions = {name: functools.partial(model, training=False) for name, model in models.items()}
    assert reasons(functions, models.values()) == dict.fromkeys(models, "")


def test_functions_that_keep_samples_apart_are_seen_to(reasons, tensorflow):
    functions, table = apart(tensorflow)
    assert reasons(functions, [table]) == dict.fromkeys(functions, "")


def test_functions_that_may_mix_samples_are_refused_however_rarely_they_do(reasons, tensorflow):
    found = reasons(mixing(tensorflow))
    assert not [name for name, reason in found.items() if not reason]
    assert found["rarely"] == "its operation Max (Max) goes over all samples"
