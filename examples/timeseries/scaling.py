"""What both models have in common: a window is seen relative to its last value, and forecasts are put back."""

from keras import layers, ops


def relative(past):
    """Gives a window's values relative to the last one and to their changes [n, steps, 1], with both [n, 1, 1]."""
    values = past[..., :1]
    last = values[:, -1:]
    scale = ops.std(values[:, 1:] - values[:, :-1], axis=1, keepdims=True) + 1e-6
    return (values - last) / scale, last, scale


def absolute(forecast, last, scale):
    """Puts forecasts [n, steps, quantiles] back, and sorts the quantiles, which might cross."""
    return layers.Identity(name="quantiles")(ops.sort(forecast * scale + last, axis=-1))
