"""What those who watch a run may see of its model: weights, and samples with the outputs for them.

Looking leaves no trace: seeds, metrics and the random generators of Python and NumPy are as before, so that a run that
is looked at ends with the same bits as one that is not.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.events import ModelView, Samples
from experiments_manager.export.servable import output_names_of
from experiments_manager.training.feeds.feed import x_and_y
from experiments_manager.training.observe.inner_layers import features_before_outputs
from experiments_manager.training.seeds import host_random_state, restore_host_random_state
from experiments_manager.training.setup.experiment import Experiment

logger = logging.getLogger(__name__)


class Viewer:
    """Makes views of one experiment's model; what has to be compiled for them is compiled once.

    Args:
        experiment: What is trained.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._functions: dict[tuple[str, ...] | None, Callable[[Any], tuple[dict, dict]]] = {}

    def view(
        self,
        epoch: int,
        global_step: int,
        logs: Mapping[str, float],
        *,
        validated: bool,
        in_place: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> ModelView:
        """Describe the model as it is at this moment.

        Args:
            epoch: The epoch whose weights are in place, counted from 1.
            global_step: The step that they were reached at.
            logs: Loss and metrics of that epoch.
            validated: Whether the metrics hold what a validation left in them.
            in_place: Brings the weights that are looked at into the model, where they are not there.
        """
        metrics = self._experiment.model.metrics if validated else ()

        def weights() -> dict[str, np.ndarray]:
            with in_place():
                return self._weights()

        def samples(*wanted: Any, **options: Any) -> Samples | None:
            with in_place():
                return self._samples(*wanted, **options)

        return ModelView(epoch, global_step, dict(logs), weights, samples, tuple(metrics))

    def graph(self) -> bytes | None:
        """Trace the model as it is served, and return its graph as a serialised `GraphDef` without any weights."""
        model, (inputs, _) = self._experiment.model, x_and_y(self._experiment.train.spec)

        @tf.function(autograph=False)
        def serve(x: Any) -> Any:
            return model(x, training=False)

        try:
            with self._untouched():
                graph = serve.get_concrete_function(inputs).graph
            return graph.as_graph_def(add_shapes=True).SerializeToString()
        except Exception as error:  # a model that is drawn is not worth a run
            logger.info("The model's graph cannot be drawn: %s", error)
            return None

    def _weights(self) -> dict[str, np.ndarray]:
        return {weight.path: np.asarray(weight) for weight in self._experiment.model.weights}

    def _samples(
        self, count: int, layers: Sequence[str] | None = (), reduce: Callable[[Any], Any] = lambda batch: batch
    ) -> Samples | None:
        experiment = self._experiment
        feed = experiment.validation or experiment.train
        if feed.kind == "irreproducible":
            return None
        with self._untouched():
            batches, found, dataset = [], 0, feed.as_dataset()
            dataset = dataset if feed.steps is None else dataset.take(feed.steps)  # it may never end
            function = self._function(layers if layers is None else tuple(layers), x_and_y(dataset.element_spec)[0])
            for batch in dataset:
                x, y = x_and_y(batch)
                outputs, inner = function(x)
                targets = [] if y is None else [y]  # so that what is not there is no array
                parts = zip((x, targets, outputs, inner), _FILLERS, strict=True)
                batches.append(reduce(tuple(_arrays(part, missing) for part, missing in parts)))
                found += len(tf.nest.flatten(batches[-1][0])[0])
                if found >= count:
                    break
        if not batches:
            return None
        x, targets, outputs, inner = (
            _joined(parts, count, missing) for parts, missing in zip(zip(*batches, strict=True), _FILLERS, strict=True)
        )
        y = targets[0] if targets else None
        names = experiment.settings.output_names
        if names and len(names) == len(outputs):
            named = dict(zip(outputs, names, strict=True))
            y = {named[head]: y[head] for head in y} if isinstance(y, dict) and set(y) == set(named) else y
            outputs = {named[head]: output for head, output in outputs.items()}
        return Samples(feed.split, x, y, outputs, inner)

    def _function(self, layers: tuple[str, ...] | None, spec: Any) -> Callable[[Any], tuple[dict, dict]]:
        if layers not in self._functions:
            self._functions[layers] = _forward(self._experiment, layers, spec)
        return self._functions[layers]

    @contextlib.contextmanager
    def _untouched(self) -> Iterator[None]:
        """Put back what reading data and running the model may change."""
        state = self._experiment.state
        kept, random = state.keep_transient(), host_random_state()
        try:
            yield
        finally:
            state.restore_transient(kept)
            restore_host_random_state(random)


_FILLERS = (0, -1, 0, 0)
"""What stands for elements that inputs, targets, outputs and layers lack; for floating-point targets, NaN does."""


def _arrays(nested: Any, missing: int) -> Any:
    """NumPy arrays of tensors; those that are ragged or sparse are filled up with `missing`."""

    def array(tensor: Any) -> np.ndarray:
        if isinstance(tensor, tf.SparseTensor):
            tensor = tf.sparse.to_dense(tensor)
        if isinstance(tensor, tf.RaggedTensor):
            tensor = tf.cast(tensor, tf.int64) if missing and tensor.dtype.is_unsigned else tensor
            tensor = tensor.to_tensor(_filler(tensor.dtype.as_numpy_dtype, missing))
        return np.asarray(tensor)

    return tf.nest.map_structure(array, nested)


def _joined(parts: Sequence[Any], count: int, missing: int) -> Any:
    """Return the first `count` samples of batches, which are filled up where they differ in shape."""

    def join(*arrays: np.ndarray) -> np.ndarray:
        if len({array.shape[1:] for array in arrays}) > 1:
            inner = np.max([array.shape[1:] for array in arrays], axis=0)
            arrays = tuple(_filled_up(array, inner, missing) for array in arrays)
        return np.concatenate(arrays)[:count]

    return tf.nest.map_structure(join, *parts)


def _filled_up(array: np.ndarray, inner: np.ndarray, missing: int) -> np.ndarray:
    array = array.astype(np.int64) if missing and array.dtype.kind == "u" else array
    filled = np.full((len(array), *inner), _filler(array.dtype, missing), array.dtype)
    filled[tuple(slice(size) for size in array.shape)] = array
    return filled


def _filler(dtype: Any, missing: int) -> Any:
    kind = np.dtype(dtype).kind
    if kind in "OSU":
        return b""
    return missing if kind in "iu" else float("nan") if missing and kind == "f" else 0


def _forward(experiment: Experiment, layers: tuple[str, ...] | None, spec: Any) -> Callable[[Any], tuple[dict, dict]]:
    """Compile the model together with the outputs of some of its layers, once for batches of any size."""
    model = experiment.model
    if layers is None:
        observed = features_before_outputs(model)
    else:
        observed = {name: model.get_layer(name).output for name in layers}
    whole = keras.Model(model.inputs, [model.outputs, list(observed.values())]) if observed else None

    def forward(x: Any) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        outputs, inner = whole(x, training=False) if whole else (model(x, training=False), [])
        flat = tf.nest.flatten(outputs)
        names = output_names_of(model, outputs)  # the model's own, by which targets are named
        names = names if len(names) == len(flat) else [f"output_{number}" for number in range(len(flat))]
        return dict(zip(names, flat, strict=True)), dict(zip(observed, inner, strict=True))

    # With the data's own signature a last, smaller batch does not compile it again; other kinds of tensors have none.
    dense = all(type(part) is tf.TensorSpec for part in tf.nest.flatten(spec))
    return tf.function(forward, autograph=False, input_signature=[spec] if dense else None, reduce_retracing=True)
