# ruff: noqa
# fmt: off
"""A perceptron of one hidden layer, in the style of the legacy framework."""

import tensorflow as tf


def model(usersettings):
  x = tf.keras.layers.Input(shape=(1,), name=usersettings.served_input_names[0])
  hidden = tf.keras.layers.Dense(usersettings.hparams["hiddenNeurons"], activation="tanh")(x)
  prediction = tf.keras.layers.Dense(1, name=usersettings.served_head_names[0])(hidden)
  return tf.keras.Model(inputs=x, outputs=prediction)
