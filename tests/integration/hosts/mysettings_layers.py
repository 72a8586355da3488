"""Models of many kinds of layers, each a branch of its own, that several processes may train."""

import keras
import numpy as np

session_name = "layers"
hparams = {"kinds": "same"}
epochs = 2
batch_size = 24
loss = "mean_squared_error"
learning_rate = 0.05
optimizer = "sgd"
strategy = "MultiWorkerMirroredStrategy"
early_stopping_patience = None
tensorboard = False
figures = False
export = False


def dataset(split):
    random = np.random.default_rng(0 if split == "train" else 1)
    x = random.normal(size=(144, 8, 4)).astype("float32")
    return x, x[:, :1, 0] * 2 + x[:, 1:2, 1] ** 2


class Running(keras.layers.Layer):
    """Keeps numbers of all kinds that are not trained."""

    def build(self, shape):
        def keep(name, dtype, **options):
            return self.add_weight(name=name, shape=(), dtype=dtype, initializer="zeros", trainable=False, **options)

        self.counters = [keep(dtype, dtype) for dtype in ("int32", "int64", "float16", "float32", "float64")]
        self.flag = keep("flag", "bool")
        self.averages = [
            self.add_weight(name=f"average_{dtype}", shape=shape[1:], dtype=dtype, initializer="zeros", trainable=False)
            for dtype in ("float32", "float64")
        ]
        self.declared = keep("declared", "float32", aggregation="mean")
        self.first = keep("first", "float32", aggregation="only_first_replica")

    def call(self, inputs, training=False):
        if training:
            for counter in self.counters:
                counter.assign(counter + keras.ops.cast(1, counter.dtype))
            self.flag.assign(True)
            for average in self.averages:
                mean = keras.ops.mean(keras.ops.cast(inputs, average.dtype), axis=0)
                average.assign(0.9 * average + 0.1 * mean)
            self.declared.assign(keras.ops.mean(inputs))
            self.first.assign(self.first + 1.0)
        return inputs


class Frozen(keras.layers.Layer):
    """The gradient of its factor is a variable that is not trained."""

    def build(self, shape):
        self.factor = self.add_weight(name="factor", shape=(1,), initializer="ones")
        self.constant = self.add_weight(name="constant", shape=(1,), initializer="ones", trainable=False)

    def call(self, inputs):
        self.add_loss(keras.ops.sum(self.factor * self.constant))
        return inputs * self.factor


def flat(*kinds):
    return keras.Sequential([*kinds, keras.layers.Flatten(), keras.layers.Dense(1)])


def branches_as_alone():
    """Branches that are, over several processes, mathematically the same as in one."""
    layers = keras.layers
    return {
        "dense": flat(layers.Dense(4, activation="gelu")),
        "einsum": flat(layers.EinsumDense("abc,cd->abd", output_shape=(8, 4), bias_axes="d")),
        "conv": flat(layers.Conv1D(4, 3)),
        "separable": flat(layers.SeparableConv1D(4, 3)),
        "depthwise": flat(layers.DepthwiseConv1D(3)),
        "transposed": flat(layers.Conv1DTranspose(4, 3)),
        "layer_norm": flat(layers.LayerNormalization()),
        "group_norm": flat(layers.GroupNormalization(2)),
        "rms_norm": flat(layers.RMSNormalization()),
        "unit_norm": flat(layers.UnitNormalization()),
        "synchronized": flat(layers.BatchNormalization(synchronized=True, momentum=0.9)),
        "spectral": flat(layers.SpectralNormalization(layers.Dense(4))),
        "normalization": flat(layers.Normalization(mean=[0.1] * 4, variance=[1.2] * 4)),
        "lstm": flat(layers.LSTM(3)),
        "bidirectional": flat(layers.Bidirectional(layers.GRU(2))),
        "attention": flat(attention()),
        "prelu": flat(layers.PReLU()),
        "pooled": flat(layers.AveragePooling1D(2), layers.Rescaling(0.5)),
        "embedding": flat(Signs(), layers.Embedding(2, 2)),
        "double": flat(layers.Dense(3, dtype="float64")),
        "frozen": flat(Frozen()),
        "numbers": flat(Running()),
    }


class Signs(keras.layers.Layer):
    def call(self, inputs):
        return keras.ops.cast(inputs > 0, "int32")


def attention():
    inputs = keras.Input((8, 4))
    return keras.Model(inputs, keras.layers.MultiHeadAttention(2, 2)(inputs, inputs))


def branches_of_shares():
    """Branches that see the rows of their process alone, draw at random, or round coarsely."""
    layers = keras.layers
    return {
        "batch_norm": flat(layers.Dense(4), layers.BatchNormalization(), layers.Dense(4)),
        "half": flat(layers.Dense(3, dtype="mixed_bfloat16")),
        "half_norm": flat(layers.BatchNormalization(dtype="float16")),
        "double_norm": flat(layers.BatchNormalization(dtype="float64")),
        "dropout": flat(layers.Dropout(0.2), layers.SpatialDropout1D(0.2)),
        "noise": flat(layers.GaussianNoise(0.1), layers.GaussianDropout(0.1)),
    }


def model(hparams):
    branches = branches_as_alone() if hparams["kinds"] == "same" else branches_of_shares()
    inputs = keras.Input((8, 4), name="x")
    for name, branch in branches.items():
        branch.name = name
    outputs = [
        keras.layers.Rescaling(1 / len(branches), dtype="float32")(branch(inputs)) for branch in branches.values()
    ]
    return keras.Model(inputs, keras.layers.Add(name="y")(outputs))
