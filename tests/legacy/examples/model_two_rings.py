# ruff: noqa
# fmt: off
"""A small classifier, in the style of the legacy framework."""

import tensorflow as tf


def model(usersettings):
  hparams = usersettings.hparams
  point = tf.keras.layers.Input(shape=(2,), name="point")
  hidden = tf.keras.layers.Dense(8 * hparams["width"], activation="relu")(point)
  hidden = tf.keras.layers.Dropout(hparams["dropout"], seed=usersettings.random_seed)(hidden)
  ring = tf.keras.layers.Dense(len(usersettings.class_names) + 1, activation="softmax", name="ring")(hidden)
  return tf.keras.Model({"point": point}, {"ring": ring})
