"""A net that was trained before, first kept as it is and then tuned; and what is measured of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("experiments_manager")
class FrozenFirst(keras.layers.Layer):
    """Passes its input on, and no gradient back for the first steps: what comes before it is not trained until then.

    The number of steps is part of the layer's weights, and so of checkpoints: a resume goes on in the right stage.
    What comes before must neither decay its weights nor normalise batches in training.

    Args:
        steps: Training steps without a gradient; 0 passes it on at once.
        **options: `name` and the like, as for all layers.
    """

    def __init__(self, steps: int, **options: Any) -> None:
        super().__init__(**options)
        self.steps = steps

    def build(self, input_shape: Any) -> None:
        """Make the variable that counts training steps."""
        self.count = self.add_weight(name="count", shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the inputs; in training, stop their gradients for the first steps, and count these."""
        if not training:
            return inputs
        passes = ops.cast(self.count >= self.steps, inputs.dtype)
        self.count.assign_add(1)
        return passes * inputs + (1 - passes) * ops.stop_gradient(inputs)

    def get_config(self) -> dict[str, Any]:
        """Return what makes it again."""
        return {**super().get_config(), "steps": self.steps}


@keras.saving.register_keras_serializable("experiments_manager")
class SettledBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation by the averages that it has, also in training; its scale and offset are trained.

    That a layer of a graph was called with `training=False` does not hold once the whole model is in training.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise by the moving averages of the pretrained net, in training too."""
        del training
        return super().call(inputs, training=False, mask=mask)


def pretrained_backbone(
    image: Any, name: str = "MobileNetV2", *, weights: str | None = None, frozen_steps: int = 0, **options: Any
) -> Any:
    """Look at an image with a net of `keras.applications`.

    Args:
        image: Of shape [batch, height, width, 3] in 0..1.
        name: Of the net: `MobileNetV2`, `ResNet50V2` or another one that takes -1..1.
        weights: A file of weights without the top; `None` begins at random and trains all from the first step.
        frozen_steps: Steps in which a net with `weights` stays as it is; after these it is tuned. Its batch
            normalisation keeps its averages all the time, and it drops nothing.
        **options: As the net takes them, such as `alpha`.

    Returns:
        One vector an image, [batch, channels].
    """
    net = getattr(keras.applications, name)(
        input_shape=tuple(image.shape[1:]), include_top=False, pooling="avg", weights=weights, **options
    )
    scaled = keras.layers.Rescaling(2.0, offset=-1.0)(image)
    if weights is not None:
        return FrozenFirst(frozen_steps, name="stage")(_settled(net)(scaled, training=False))
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # averages over a thousand steps suit a longer training
    return net(scaled)


def _settled(net: keras.Model) -> keras.Model:
    """Return the same net that in training does what it does otherwise."""

    def settled(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if type(layer) is keras.layers.BatchNormalization:
            return SettledBatchNormalization.from_config(config)
        return type(layer).from_config(config | {"rate": 0.0} if isinstance(layer, keras.layers.Dropout) else config)

    copy = keras.models.clone_model(net, clone_function=settled)
    copy.set_weights(net.get_weights())
    return copy


def two_stages(first: float, second: float, frozen_steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return one learning rate for the steps in which a net is frozen, and another for those after."""
    return keras.optimizers.schedules.PiecewiseConstantDecay([max(0, frozen_steps - 1)], [first, second])


@keras.saving.register_keras_serializable("experiments_manager")
class ClassRecall(keras.metrics.Metric):
    """The share of one class's samples that are recognised, of labels [batch] and probabilities [batch, classes].

    Args:
        class_id: Index of the class.
        name: As for all metrics of Keras.
        dtype: As for all metrics of Keras.
    """

    def __init__(self, class_id: int, name: str = "recall", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.class_id = class_id
        self.hits = self.add_weight(name="hits", initializer="zeros")
        self.samples = self.add_weight(name="samples", initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count a batch; weights of samples do not count."""
        is_class = ops.equal(ops.reshape(ops.cast(y_true, "int32"), (-1,)), self.class_id)
        is_hit = ops.logical_and(is_class, ops.equal(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), self.class_id))
        self.hits.assign_add(ops.sum(ops.cast(is_hit, self.dtype)))
        self.samples.assign_add(ops.sum(ops.cast(is_class, self.dtype)))

    def result(self) -> Any:
        """Return the share; 0 where there were no such samples."""
        return ops.divide_no_nan(self.hits, self.samples)

    def get_config(self) -> dict[str, Any]:
        """Return what makes it again."""
        return {**super().get_config(), "class_id": self.class_id}


def classification_metrics(class_names: Sequence[str], top: int = 2) -> list[keras.metrics.Metric]:
    """Return `accuracy`, `top_<k>` (the class is among the k most probable), and `recall_<name>` of each class."""
    return [
        keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
        keras.metrics.SparseTopKCategoricalAccuracy(k=top, name=f"top_{top}"),
        *[ClassRecall(index, name=f"recall_{name}".replace(" ", "_")) for index, name in enumerate(class_names)],
    ]
