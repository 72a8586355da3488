"""A temporal convolutional net, whose last step knows the whole window."""

import keras
from scaling import absolute, relative

from experiments_manager.models.temporal import last_step, temporal_convolutions


def model(hparams, settings):
    """Quantiles [horizon, quantiles] from a past of values and calendar [past, columns]."""
    past = keras.Input((hparams["past"], len(settings.experiment_settings.columns)), name="past")
    values, last, scale = relative(past)
    x = keras.layers.Concatenate()([values, past[..., 1:]])
    x = temporal_convolutions(x, hparams["filters"], dilations=(1, 2, 4, 8, 16), dropout=hparams["dropout"])
    shape = (hparams["horizon"], len(settings.experiment_settings.quantiles))
    forecast = keras.layers.Reshape(shape)(keras.layers.Dense(shape[0] * shape[1])(last_step(x)))
    return keras.Model(past, absolute(forecast, last, scale))
