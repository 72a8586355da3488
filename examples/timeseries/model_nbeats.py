"""N-BEATS: blocks of dense layers that take away from the window what they explain."""

import keras
from scaling import absolute, relative

from experiments_manager.models.temporal import nbeats


def model(hparams, settings):
    """Quantiles [horizon, quantiles] from a past of values and calendar [past, columns]."""
    past = keras.Input((hparams["past"], len(settings.experiment_settings.columns)), name="past")
    values, last, scale = relative(past)
    seen = keras.layers.Concatenate()([keras.layers.Flatten()(values), past[:, -1, 1:]])
    forecast = nbeats(
        seen, hparams["horizon"], units=4 * hparams["filters"], outputs=len(settings.experiment_settings.quantiles)
    )
    return keras.Model(past, absolute(forecast, last, scale))
