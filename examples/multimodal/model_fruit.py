"""A branch an input, their features side by side, and a head a target."""

import keras
import numpy as np
from keras import layers, ops

# Middle and spread of weight, firmness, sound and temperature, so that the net gets numbers near zero.
MIDDLE, SPREAD = np.array([[110, 50, 650, 12], [50, 18, 150, 6]], "float32")


def model(hparams):
    """What `hparams["inputs"]` names, to the probabilities of the grades [n, 3] and the days [n, 1]."""
    inputs, features = {}, []
    if hparams["inputs"] in ("both", "image"):
        inputs["image"] = keras.Input((32, 32, 3), name="image")
        features.append(convolutions(inputs["image"], hparams["filters"]))
    if hparams["inputs"] in ("both", "table"):
        inputs["measurements"] = keras.Input((4,), name="measurements")
        inputs["variety"] = keras.Input((), name="variety", dtype="int32")
        features += [known(inputs["measurements"]), ops.one_hot(inputs["variety"], 3)]  # -1 is no variety: all zeros
    x = layers.Concatenate()(features) if len(features) > 1 else features[0]
    x = layers.Dense(hparams["units"], activation="relu")(x)
    x = layers.Dense(hparams["units"], activation="relu")(x)
    grade = layers.Dense(3, activation="softmax", name="grade")(x)
    days = layers.Dense(1, activation="softplus", name="days")(x)
    return keras.Model(inputs, {"grade": grade, "days": days})


def convolutions(image, filters):
    """Three pairs of a convolution and a pooling, then the mean and the largest value of each channel."""
    x = image
    for factor in (1, 2, 4):
        x = layers.Conv2D(factor * filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    return layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)])


def known(measurements):
    """Scaled measurements, zero where one was not made, and for each whether it was."""
    is_missing = ops.isnan(measurements)
    scaled = (ops.where(is_missing, MIDDLE, measurements) - MIDDLE) / SPREAD
    return layers.Concatenate()([scaled, 1 - ops.cast(is_missing, "float32")])
