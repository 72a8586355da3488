"""A multi-layer perceptron: two hidden layers on the pixels as they come."""

import keras
from keras import layers


def model(hparams):
    """Images [n, 8, 8, 1] in 0..1 to the probabilities of the ten digits [n, 10]."""
    image = keras.Input((8, 8, 1), name="image")
    x = layers.RandomTranslation(0.1, 0.1, fill_mode="constant")(image)
    x = layers.RandomRotation(0.03, fill_mode="constant")(x)
    x = layers.Flatten()(x)
    for _ in range(2):
        x = layers.Dense(hparams["hidden_units"], activation="relu")(x)
        x = layers.Dropout(hparams["dropout"])(x)
    return keras.Model(image, layers.Dense(10, activation="softmax", name="digit")(x))
