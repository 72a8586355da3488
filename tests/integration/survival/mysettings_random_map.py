"""Random augmentation in the pipeline's map, which TensorFlow cannot save; two inputs, accumulated gradients."""

import keras
import numpy as np
import tensorflow as tf

session_name = "random_map"
epochs = 4
batch_size = 10
loss = "mse"
learning_rate = 0.01
gradient_accumulation_steps = 3
checkpoint_every_steps = 29
figures = False
log_every_steps = 4


def dataset(split, batch_size):
    generator = np.random.default_rng(["train", "validation", "test"].index(split))
    size = 1200 if split == "train" else 200
    left, right = generator.normal(size=(2, size, 6)).astype("float32")
    y = (left * right).mean(axis=1, keepdims=True)
    pipeline = tf.data.Dataset.from_tensor_slices(({"left": left, "right": right}, y))
    if split == "train":
        pipeline = pipeline.shuffle(500).map(disturb)
    return pipeline.batch(batch_size).prefetch(2)


def disturb(x, y):
    return {name: value + tf.random.normal(tf.shape(value), stddev=0.05) for name, value in x.items()}, y


def model():
    layers = keras.layers
    inputs = {name: keras.Input([6], name=name) for name in ("left", "right")}
    hidden = layers.Dense(32, activation="relu")(layers.Concatenate()([inputs["left"], inputs["right"]]))
    return keras.Model(inputs, layers.Dense(1, name="product")(layers.Dropout(0.1)(hidden)))
