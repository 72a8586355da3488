"""Layers that Keras does not have."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("experiments_manager")
class DepthToSpace(keras.layers.Layer):
    """Makes images larger by laying channels beside each other (Shi et al., "Sub-Pixel Convolution", 2016).

    [batch, height, width, factor² · channels] gives [batch, factor · height, factor · width, channels], in the order of
    `tf.nn.depth_to_space`.

    Args:
        factor: How many times as high and wide the result is.
        **options: As for all layers of Keras.
    """

    def __init__(self, factor: int, **options: Any) -> None:
        super().__init__(**options)
        self.factor = factor

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Check the number of channels.

        Raises:
            ValueError: It is not a multiple of the square of the factor.
        """
        if len(input_shape) != 4 or input_shape[-1] is None or input_shape[-1] % self.factor**2:
            raise ValueError(
                f"Invalid shape {tuple(input_shape)}: expected [batch, height, width, channels] with a multiple of "
                f"{self.factor**2} channels."
            )

    def call(self, inputs: Any) -> Any:
        """Rearrange [batch, height, width, factor² · channels]."""
        factor, (batch, height, width, _) = self.factor, ops.shape(inputs)
        channels = inputs.shape[-1] // factor**2
        x = ops.reshape(inputs, (batch, height, width, factor, factor, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (batch, factor * height, factor * width, channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the result."""
        batch, height, width, channels = input_shape
        larger = [None if side is None else self.factor * side for side in (height, width)]
        return (batch, *larger, channels // self.factor**2)

    def get_config(self) -> dict[str, Any]:
        """Return what makes it again."""
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("experiments_manager")
class ConcreteDropout(keras.layers.Layer):
    """Dropout whose rate is learnt (Gal, Hron and Kendall, "Concrete Dropout", NeurIPS 2017).

    The entropy of the rate is a loss of the layer. The paper's other term, for the kernel of the next layer, is a decay
    of weights: give that layer an L2 regularizer.

    Args:
        initial_rate: Share that is dropped at first.
        entropy_weight: Weight of the rate's entropy, times the number of features; the paper's 2 / N for N samples.
        temperature: How far the mask is from being 0 or 1; the paper has 0.1.
        seed: Of the mask.
        **options: As for all layers of Keras.
    """

    def __init__(
        self,
        initial_rate: float = 0.1,
        entropy_weight: float = 1e-5,
        temperature: float = 0.1,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not 0 < initial_rate < 1:
            raise ValueError(f"Invalid initial_rate: expected a share between 0 and 1, got {initial_rate}.")
        self.initial_rate, self.entropy_weight = initial_rate, entropy_weight
        self.temperature, self.seed = temperature, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the rate, as a logit."""
        logit = float(ops.log(self.initial_rate / (1 - self.initial_rate)))
        initializer = keras.initializers.Constant(logit)
        self.logit = self.add_weight((), initializer=initializer, name="logit", autocast=False)  # as losses are

    @property
    def rate(self) -> Any:
        """The share that is dropped now."""
        return ops.sigmoid(self.logit)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Add the entropy of the rate to the loss; in training, drop inputs softly (concrete dropout)."""
        rate = self.rate
        entropy = rate * ops.log(rate) + (1 - rate) * ops.log(1 - rate)
        self.add_loss(self.entropy_weight * inputs.shape[-1] * entropy)
        if not training:
            return inputs
        tiny = keras.config.epsilon()
        noise = keras.random.uniform(ops.shape(inputs), dtype=rate.dtype, seed=self.seed_generator)
        logit = ops.log(rate) - ops.log(1 - rate) + ops.log(noise + tiny) - ops.log(1 - noise + tiny)
        return inputs * ops.cast((1 - ops.sigmoid(logit / self.temperature)) / (1 - rate), inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what makes it again."""
        own = {name: getattr(self, name) for name in ("initial_rate", "entropy_weight", "temperature", "seed")}
        return {**super().get_config(), **own}
