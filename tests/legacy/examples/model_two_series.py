# ruff: noqa
# fmt: off
"""A forecast from a series and a flag beside it, in the style of the legacy framework."""

import keras
import tensorflow as tf


def model(usersettings):
  hparams = usersettings.hparams
  past = tf.keras.layers.Input(shape=(hparams["past"], 1), name="past")
  isfree = tf.keras.layers.Input(shape=(1,), name="isfree")
  hidden = tf.keras.layers.Conv1D(4, 3, activation="relu")(past)
  hidden = tf.keras.layers.Concatenate()([tf.keras.layers.Flatten()(hidden), isfree])
  delta = tf.keras.layers.Dense(hparams["future"], kernel_regularizer=tf.keras.regularizers.l2(0.001))(hidden)
  future = past[:, -1:, :] + keras.ops.reshape(delta, [-1, hparams["future"], 1])
  return tf.keras.Model(inputs=[past, isfree], outputs=[future])
