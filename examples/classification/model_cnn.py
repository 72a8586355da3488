"""A small convolutional net: two pairs of 3x3 convolutions, with a pooling between them."""

import keras
from keras import layers


def model(hparams):
    """Images [n, 8, 8, 1] in 0..1 to the probabilities of the ten digits [n, 10]."""
    image = keras.Input((8, 8, 1), name="image")
    x = layers.RandomTranslation(0.125, 0.125, fill_mode="constant")(image)
    x = layers.RandomRotation(0.05, fill_mode="constant")(x)
    x = layers.RandomZoom(0.1, 0.1, fill_mode="constant")(x)
    x = convolutions(x, hparams["filters"])
    x = layers.MaxPooling2D()(x)
    x = convolutions(x, 2 * hparams["filters"])
    x = layers.Dropout(hparams["dropout"])(layers.Flatten()(x))
    return keras.Model(image, layers.Dense(10, activation="softmax", name="digit")(x))


def convolutions(x, filters):
    """Two 3x3 convolutions that keep height and width, each normalised over its batch.

    An epoch has 20 steps, and the statistics that count outside of training start at values of their own: at Keras'
    momentum of 0.99, a fifth of these would still be in them after eight epochs.
    """
    for _ in range(2):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
    return x
