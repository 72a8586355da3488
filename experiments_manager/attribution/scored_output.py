"""A model as what is explained: the score of a class as a function of one of its inputs."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.training.observe.inner_layers import has_own_call

_SQUASHING = ("softmax", "sigmoid")
_SMALLEST = 1e-6
"""Probabilities are kept this far from 0 and 1 before their logarithm is taken."""


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked of each sample: how much each part of `values` speaks for its class; the first axis is samples."""

    values: np.ndarray
    """The input that is explained, floats [n, …]."""
    others: list[np.ndarray]
    """The model's other inputs, which stay as they are, in the order of the flattened inputs."""
    classes: np.ndarray
    """The class that is asked for, int32 [n]."""
    regions: np.ndarray
    """Where an output has places: 1 for those that are asked for, 0 elsewhere, float32 [n, …]; else ones [n]."""
    baseline: np.ndarray
    """What stands for nothing, floats of the shape of `values`."""

    def __len__(self) -> int:
        return len(self.values)

    def part(self, where: slice) -> Question:
        """Return some of the samples."""
        others = [other[where] for other in self.others]
        return Question(self.values[where], others, self.classes[where], self.regions[where], self.baseline[where])


def _parts_of(question: Question) -> list[Any]:
    return [question.values, question.others, question.classes, question.regions, question.baseline]


Explainer = Callable[[Question], np.ndarray]
"""A method, compiled for a model: maps [n, …] for a question."""


@dataclasses.dataclass(frozen=True)
class ScoredOutput:
    """One head and one input of a model."""

    model: keras.Model
    structure: Any
    """The model's inputs as they are nested, of anything."""
    place: int
    """Place of the explained input among the flattened ones."""
    head: int
    """Place of the head among the flattened outputs."""
    has_channels: bool
    """Whether the last axis of the explained input counts channels, which are not told apart."""
    gives: Literal["probabilities", "logits"] = "probabilities"
    """What the head gives."""
    batch: int = 16
    """Samples that go through the model together."""

    @property
    def output_layer(self) -> keras.layers.Layer | None:
        """The layer that makes the head; `None` where the model's layers form no graph."""
        if has_own_call(self.model):
            return None
        outputs = getattr(self.model, "outputs", None)
        return _maker(self.model, outputs[self.head]) if outputs and self.head < len(outputs) else None

    @property
    def squashing(self) -> str:
        """How that layer makes probabilities of logits: `softmax`, `sigmoid` or nothing."""
        if isinstance(self.output_layer, keras.layers.Softmax):
            return "softmax" if self.output_layer.axis == -1 else ""
        name = getattr(getattr(self.output_layer, "activation", None), "__name__", "")
        return name if name in _SQUASHING else ""

    def score(self, values: tf.Tensor, others: Sequence[tf.Tensor], classes: tf.Tensor, regions: tf.Tensor) -> Any:
        """In the graph: the log odds of the class [n], as a mean over the region where the output has places.

        They are what a probability is before it is squashed, so that their gradient does not vanish where the model is
        sure; and unlike single logits before a softmax they do not depend on what is added to all of these.
        """
        squashing = self.squashing
        with _linear(self.output_layer) if squashing else contextlib.nullcontext():
            outputs = self._head(values, others)
        if self.gives == "probabilities" and not squashing:
            outputs = tf.clip_by_value(outputs, _SMALLEST, 1 - _SMALLEST)
            outputs = tf.math.log(outputs) - tf.math.log1p(-outputs)
        if outputs.shape[-1] == 1:
            outputs = tf.concat([-outputs, outputs], axis=-1)
        elif squashing == "softmax" or self.gives == "logits":
            return _mean(_log_odds(outputs, classes), regions)
        return _mean(_of_class(outputs, classes), regions)

    def probability(
        self, values: tf.Tensor, others: Sequence[tf.Tensor], classes: tf.Tensor, regions: tf.Tensor
    ) -> Any:
        """In the graph: the probability of the class [n], as a mean over the region where the output has places."""
        outputs = self._head(values, others)
        one = outputs.shape[-1] == 1
        if self.gives != "probabilities":
            outputs = tf.sigmoid(outputs) if one else tf.nn.softmax(outputs)
        if one:
            outputs = tf.concat([1 - outputs, outputs], axis=-1)
        return _mean(_of_class(outputs, classes), regions)

    def positions(self, values: np.ndarray) -> tuple[int, ...]:
        """Return the shape of a map: that of the input without samples and channels."""
        return values.shape[1:-1] if self.has_channels else values.shape[1:]

    def as_map(self, attributions: Any) -> Any:
        """In the graph: sum attributions [n, …] over the channels, if there are any."""
        return tf.reduce_sum(attributions, axis=-1) if self.has_channels else attributions

    def with_channel(self, maps: tf.Tensor) -> tf.Tensor:
        """In the graph: give maps [n, …] an axis that stands for the channels, if there are any."""
        return maps[..., tf.newaxis] if self.has_channels else maps

    def compiled(self, function: Callable[..., Any], question: Question, *further: tf.TensorSpec) -> Callable[..., Any]:
        """Compile a function of a question's five parts and further tensors, now, for batches of any size."""
        specs = tf.nest.map_structure(
            lambda array: tf.TensorSpec([None, *array.shape[1:]], array.dtype), _parts_of(question)
        )
        traced = tf.function(function, input_signature=[*specs, *further], autograph=False)
        return traced.get_concrete_function()

    def in_batches(self, function: Callable[..., Any], question: Question, *further: np.ndarray) -> np.ndarray:
        """Call a compiled function batch by batch; `further` arrays have an axis of samples, too."""
        results = []
        for start in range(0, len(question), self.batch):
            where = slice(start, start + self.batch)
            given = [*_parts_of(question.part(where)), *(array[where] for array in further)]
            results.append(np.asarray(function(*tf.nest.map_structure(tf.convert_to_tensor, given))))
        return np.concatenate(results)

    def _head(self, values: tf.Tensor, others: Sequence[tf.Tensor]) -> tf.Tensor:
        parts = [*others[: self.place], values, *others[self.place :]]
        outputs = self.model(tf.nest.pack_sequence_as(self.structure, parts), training=False)
        head = tf.cast(tf.nest.flatten(outputs)[self.head], tf.float32)
        return head[..., tf.newaxis] if head.shape.rank == 1 else head


def _is_class(outputs: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Return which of outputs [n, …, classes] are of the class of their sample, bool [n, 1, …, classes]."""
    chosen = tf.one_hot(classes, outputs.shape[-1], on_value=True, off_value=False)
    return tf.reshape(chosen, [-1, *[1] * (outputs.shape.rank - 2), outputs.shape[-1]])


def _of_class(outputs: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Pick from outputs [n, …, classes] those of the class of each sample [n, …]."""
    return tf.reduce_sum(tf.where(_is_class(outputs, classes), outputs, 0.0), axis=-1)


def _log_odds(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Turn logits [n, …, classes] of a softmax into the log odds of the class of each sample [n, …]."""
    others = tf.where(_is_class(logits, classes), -math.inf, logits)
    return _of_class(logits, classes) - tf.reduce_logsumexp(others, axis=-1)


def _mean(values: tf.Tensor, regions: tf.Tensor) -> tf.Tensor:
    """Take the mean of values [n, …] over the region [n, …] of each sample, where they have places."""
    if values.shape.rank == 1:
        return values
    places = list(range(1, values.shape.rank))
    return tf.reduce_sum(values * regions, places) / tf.maximum(tf.reduce_sum(regions, places), 1.0)


def _maker(model: keras.Model, tensor: Any) -> keras.layers.Layer | None:
    """Find the innermost layer whose output a tensor of the graph of a model is."""
    for layer in getattr(model, "layers", ()):
        try:
            outputs = tf.nest.flatten(layer.output)
        except (AttributeError, ValueError, RuntimeError):  # never called, or more than once
            continue
        for number, output in enumerate(outputs):
            if output is not tensor:
                continue
            inner = getattr(layer, "outputs", None)
            return (inner and _maker(layer, inner[number])) or layer
    return None


@contextlib.contextmanager
def _linear(layer: keras.layers.Layer) -> Iterator[None]:
    """Take the activation of a layer away while its call is traced: gradients of a sure softmax are all zero."""
    name = "call" if isinstance(layer, keras.layers.Softmax) else "activation"
    is_own, before = name in vars(layer), getattr(layer, name)
    setattr(layer, name, lambda inputs, mask=None: inputs)
    try:
        yield
    finally:
        if is_own:
            setattr(layer, name, before)
        else:
            delattr(layer, name)
