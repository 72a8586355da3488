"""Long epochs of a shuffled pipeline, whose iterator is saved; float16 with a loss scale that grows often."""

import keras
import numpy as np
import tensorflow as tf

session_name = "half_precision"
epochs = 3
batch_size = 10
loss = "sparse_categorical_crossentropy"
metrics = ["accuracy"]
learning_rate = 0.003
mixed_precision = "float16"
checkpoint_every_steps = 23
log_every_steps = 5
histogram_every = 1


def dataset(split, batch_size):
    generator = np.random.default_rng(["train", "validation", "test"].index(split))
    x = generator.normal(size=(1200 if split == "train" else 300, 16)).astype("float32")
    pipeline = tf.data.Dataset.from_tensor_slices((x, (x[:, 0] > x[:, 1]).astype("int32") + (x[:, 2] > 0)))
    if split == "train":
        pipeline = pipeline.shuffle(1000).repeat(2)
    return pipeline.batch(batch_size).prefetch(2)


def optimizer(learning_rate):
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(learning_rate), dynamic_growth_steps=40)


def model():
    layers = keras.layers
    x = keras.Input([16], name="x")
    hidden = layers.Dropout(0.2)(layers.Dense(48, activation="relu")(x))
    return keras.Model(x, layers.Dense(3, activation="softmax", dtype="float32", name="kind")(hidden))
