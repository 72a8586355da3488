"""Whether data, model, loss and class names go together, said before anything runs and in their own words.

What Keras and TensorFlow would say of the same comes from deep inside them, names neither input nor output, and for
some of it (labels that are no class on a GPU, targets that are broadcast) nothing is said at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.settings import Settings
from experiments_manager.settings.problems import shown
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.array_feed import ArrayFeed, AugmentedFeed
from experiments_manager.training.feeds.feed import Feed, Shape, x_and_y
from experiments_manager.training.feeds.stream_feed import StreamFeed

_SPARSE, _CATEGORICAL, _BINARY = "sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy"
_ONE_TO_ONE = {
    "mean_squared_error", "mse", "mean_absolute_error", "mae", "mean_absolute_percentage_error", "mape", "huber",
    "mean_squared_logarithmic_error", "msle", "log_cosh", "logcosh", "binary_focal_crossentropy", _BINARY,
}  # fmt: skip
"""Losses that compare each number of the output with one of the targets."""


def refuse_misfits(settings: Settings, model: keras.Model, feed: Feed, loss: Any = None) -> None:
    """Raise where the data of a split does not go with a model and its loss.

    Raises:
        DataError: With all that was found.
    """
    found = list(misfits(model, feed, loss))
    if not found:
        return
    hook = "kafka_topics" if feed.topic is not None else "dataset"
    texts = "\n".join(f"{hook}: model and data do not fit together: {text}" for text in found)
    raise DataError(f"{texts} A batch holds {Shape.of(feed.spec).text}.", settings.location(hook))


def misfits(model: keras.Model, feed: Feed, loss: Any) -> Iterator[str]:
    """Say how the data of a split does not go with a model that tells its inputs and outputs, and with its loss."""
    if type(model).train_step is not keras.Model.train_step:
        return
    where = f"the {feed.split} split" if feed.topic is None else f"topic {feed.topic}"
    if not isinstance(feed.spec, (tuple, dict)) and not hasattr(feed.spec, "shape"):
        return
    x, y = x_and_y(feed.spec)
    batched = _not_batched(model, x, feed)
    if batched is not None:
        yield batched
        return
    yield from _of_inputs(model, x, where)
    if y is not None and loss is not None:
        yield from _of_targets(model, y, loss, feed, where)


def symbolic(model: keras.Model, side: str) -> tuple[list[Any], list[str]]:
    """Return a model's inputs or outputs, and their names; nothing where it does not tell them before it is called."""
    try:
        tensors = [tensor for tensor in keras.tree.flatten(getattr(model, side)) if tensor is not None]
    except (AttributeError, ValueError):
        return [], []
    own = [tensor.name for tensor in tensors] if side == "inputs" else getattr(model, "output_names", None)
    names = list(own or ())
    if len(names) != len(tensors):
        names = [f"number {number}" for number in range(len(tensors))]
    return tensors, names


def _not_batched(model: keras.Model, x: Any, feed: Feed) -> str | None:
    """Say where a pipeline gives single samples."""
    if not isinstance(feed, StreamFeed):
        return None
    leaves = [leaf for leaf in tf.nest.flatten(x) if isinstance(leaf, tf.TensorSpec)]
    wanted, _ = symbolic(model, "inputs")
    alone = [leaf for leaf in tf.nest.flatten(feed.spec) if isinstance(leaf, tf.TensorSpec) and leaf.shape.rank == 0]
    like_samples = len(leaves) == len(wanted) and all(
        leaf.shape.rank is not None
        and leaf.shape.rank == len(tensor.shape) - 1
        and leaf.shape.rank > 0
        and leaf.shape[0] is not None
        and _dims_fit(leaf.shape, tensor.shape[1:])
        for leaf, tensor in zip(leaves, wanted, strict=True)
    )
    if not alone and not (like_samples and leaves):
        return None
    got = ", ".join(str(tuple(leaf.shape)) for leaf in tf.nest.flatten(feed.spec) if hasattr(leaf, "shape"))
    return (
        f"the pipeline of the {feed.split} split is not batched. Expected batches, whose first "
        "dimension is the sample, "
        f"got elements of shape {got}. Add `.batch(batch_size)` to the `tf.data.Dataset`."
    )


def _dims_fit(given: Sequence[int | None], wanted: Sequence[int | None]) -> bool:
    pairs = zip(given, wanted, strict=False)
    return len(given) == len(wanted) and all(None in (a, b) or a == b for a, b in pairs)


def _of_inputs(model: keras.Model, x: Any, where: str) -> Iterator[str]:
    tensors, names = symbolic(model, "inputs")
    if not tensors:
        return
    if isinstance(x, dict):
        missing = [name for name in names if name not in x]
        if missing and not (len(x) == len(names) == 1 or isinstance(getattr(model, "input", None), dict)):
            yield (
                f"x of {where} has no {', '.join(map(repr, missing))}. Expected the inputs of the model "
                f"{', '.join(map(repr, names))}, got {', '.join(map(repr, x))}. Rename the keys, or the inputs."
            )
            return
        leaves = [x[name] for name in names] if not missing else list(x.values())
    else:
        leaves = tf.nest.flatten(x)
        if len(leaves) != len(tensors):
            yield (
                f"x of {where} has {len(leaves)} part{'s' * (len(leaves) != 1)}. Expected {len(tensors)}, for the "
                f"inputs of the model {', '.join(map(repr, names))}, got {_listed(leaves)}. Give x as a dictionary by "
                "these names, or change the model."
            )
            return
    for leaf, tensor, name in zip(leaves, tensors, names, strict=False):
        text = _of_input(leaf, tensor)
        if text is not None:
            yield f"x of {where} does not fit the input {name!r} of the model. {text}"


def _of_input(leaf: Any, tensor: Any) -> str | None:
    if not isinstance(leaf, tf.TensorSpec) or leaf.shape.rank is None:
        return None
    given, wanted = tuple(leaf.shape), tuple(tensor.shape)
    if (leaf.dtype == tf.string) != (tensor.dtype == "string"):
        return (
            f"Expected numbers, {tensor.dtype}, got text ({leaf.dtype.name}). Turn it into numbers, e.g. by "
            "`keras.layers.StringLookup` or `TextVectorization`, or give the input `dtype='string'`."
            if leaf.dtype == tf.string
            else f"Expected text (string), got {leaf.dtype.name}. Correct `dataset`, or the input."
        )
    adapted = (len(given) == len(wanted) + 1 and given[-1] == 1) or (len(given) == len(wanted) - 1 and wanted[-1] == 1)
    if adapted or _dims_fit(given[1:], wanted[1:]) and len(given) == len(wanted):
        return None
    if len(given) == len(wanted) - 1 and _dims_fit(given[1:], wanted[1:-1]):
        remedy = "The last axis, the channels, is missing: add it by `x[..., np.newaxis]`, or change `keras.Input`."
    elif len(given) == len(wanted):
        remedy = "Change `dataset`, or the shape in `keras.Input`."
    else:
        remedy = "Reshape x, or change the shape in `keras.Input`."
    return f"Expected samples of shape {wanted[1:]}, got {given[1:]}. {remedy}"


def _listed(leaves: Sequence[Any]) -> str:
    return ", ".join(f"{tuple(leaf.shape)} {leaf.dtype.name}" for leaf in leaves if hasattr(leaf, "shape")) or "none"


def _of_targets(model: keras.Model, y: Any, loss: Any, feed: Feed, where: str) -> Iterator[str]:
    outputs, names = symbolic(model, "outputs")
    if not outputs:
        return
    values = first_targets(feed)
    if len(outputs) == 1:
        if not tf.nest.is_nested(y) and not tf.nest.is_nested(loss):
            yield from _of_target(y, outputs[0], loss, values, "y", where)
        return
    losses = _by_output(loss, names)
    targets = _by_output(y, names)
    if isinstance(y, dict) and not set(y) & set(names):
        yield (
            f"y of {where} has none of the model's outputs. Expected {', '.join(map(repr, names))}, got "
            f"{', '.join(map(repr, y))}. Rename the keys, or the output layers."
        )
        return
    if isinstance(y, (list, tuple)) and len(tf.nest.flatten(y)) != len(names):
        yield (
            f"y of {where} has {len(tf.nest.flatten(y))} parts. Expected {len(names)}, for the outputs of the model "
            f"{', '.join(map(repr, names))}. Give y as a dictionary by these names."
        )
        return
    all_values = _by_output(values, names)
    for output, name in zip(outputs, names, strict=True):
        if targets.get(name) is not None and losses.get(name) is not None:
            label = f"y[{name!r}]"
            yield from _of_target(targets[name], output, losses[name], all_values.get(name), label, where)


def _by_output(nest: Any, names: Sequence[str]) -> dict[str, Any]:
    if isinstance(nest, dict):
        return dict(nest)
    if isinstance(nest, (list, tuple)) and len(nest) == len(names):
        return dict(zip(names, nest, strict=True))
    return {} if tf.nest.is_nested(nest) else dict.fromkeys(names, nest)


def first_targets(feed: Feed) -> Any:
    """Return all targets of arrays, those of a first batch of anything else; `None` where there are none."""
    plain = feed.plain if isinstance(feed, AugmentedFeed) else feed
    if isinstance(plain, ArrayFeed):
        return x_and_y(plain.arrays)[1]
    if feed.never_ends or feed.topic is not None:
        return None
    return x_and_y(feed.sample_batch())[1]


def kind_of_loss(loss: Any) -> str | None:
    """Return a loss of Keras' own by its function's name; `None` for one of the user's."""
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:
            return None
    own = loss if hasattr(loss, "__name__") else type(loss)
    if not getattr(own, "__module__", "").startswith("keras."):
        return None
    return re.sub(r"(?<!^)(?=[A-Z])", "_", own.__name__).lower()


def _of_target(y: Any, output: Any, loss: Any, values: Any, label: str, where: str) -> Iterator[str]:
    kind = kind_of_loss(loss)
    if not isinstance(y, tf.TensorSpec) or kind is None or y.shape.rank is None:
        return
    given, wanted = tuple(y.shape), tuple(output.shape)
    text = _of_label_type(y, kind, values) or _of_label_shape(given, wanted, kind)
    if text is None and kind in (_SPARSE, _BINARY) and values is not None and tf.is_tensor(values):
        text = _of_label_values(np.asarray(values), wanted, loss, kind)
    if text is not None:
        yield f"{label} of {where} does not fit the loss {kind!r}. {text}"


def _of_label_type(y: tf.TensorSpec, kind: str, values: Any) -> str | None:
    if y.dtype != tf.string:
        return None
    example = ""
    if tf.is_tensor(values) and values.shape.num_elements():
        example = f" such as {shown(np.asarray(values).flat[0].decode('utf-8', 'replace'))}"
    remedy = (
        "Give each class its number, e.g. by `np.unique(labels, return_inverse=True)[1]`; `class_names` has the names."
    )
    return f"Expected numbers, got text{example}. {remedy}"


def _of_label_shape(given: tuple, wanted: tuple, kind: str) -> str | None:
    last = wanted[-1] if len(wanted) > 1 else None
    same_rank = len(given) == len(wanted)
    if kind == _SPARSE:
        if same_rank and last not in (None, 1) and given[-1] == last and len(given) == 2:
            return (
                f"It is one-hot, {given[1:]} a sample. Expected the number of a class. Take "
                "`np.argmax(y, axis=-1)`, or the loss 'categorical_crossentropy'."
            )
        if same_rank and given[-1] not in (None, 1) and last is not None and given[-1] != last:
            return (
                f"Expected the number of a class for outputs of shape {wanted[1:]}, got {given[1:]} a sample. Fix it."
            )
    if kind == _CATEGORICAL and last is not None:
        if len(given) == len(wanted) - 1 or (same_rank and given[-1] == 1 and last > 1):
            return (
                f"It holds numbers of classes. Expected one-hot vectors of {last} numbers, got shape {given[1:]} a "
                "sample. Take the loss 'sparse_categorical_crossentropy', or `keras.utils.to_categorical`."
            )
        if same_rank and given[-1] is not None and given[-1] != last:
            return f"Expected one-hot vectors of {last} numbers, as many as the output has, got {given[-1]}. Fix one."
    if kind in _ONE_TO_ONE and last is not None:
        if same_rank and not _dims_fit(given[1:], wanted[1:]):
            return f"Expected shape {wanted[1:]} a sample, as the output of the model has, got {given[1:]}. Change one."
        if len(given) == len(wanted) - 1 and last != 1 and not _dims_fit(given[1:], wanted[1:]):
            return f"Expected shape {wanted[1:]} a sample, as the output of the model has, got {given[1:]}. Change one."
    return None


def _of_label_values(values: np.ndarray, wanted: tuple, loss: Any, kind: str) -> str | None:
    if values.dtype.kind not in "biuf" or not values.size:
        return None
    if kind == _BINARY:
        bad = np.argwhere((values < -1e-3) | (values > 1 + 1e-3))  # rounding aside
        if not len(bad):
            return None
        value = values[tuple(bad[0])]
        return f"Expected 0 or 1, got {value:g} in sample {bad[0][0]}. Correct the labels, or take another loss."
    classes = wanted[-1]
    if classes is None:
        return None
    ignored = getattr(loss, "ignore_class", None)
    bad = np.argwhere(((values < 0) | (values >= classes)) & (values != (np.nan if ignored is None else ignored)))
    if not len(bad):
        return None
    value = values[tuple(bad[0])]
    remedy = (
        "Count classes from 0, or give the output one unit for each class."
        if value > 0
        else "Count classes from 0; samples without a class are left out, or named by `ignore_class` of the loss."
    )
    return (
        f"Expected classes 0 to {classes - 1}, for the output has {classes} units, got {value:g} in sample "
        f"{bad[0][0]}. {remedy}"
    )


def classes_misfit(settings: Settings, model: keras.Model, loss: Any) -> str | None:
    """Say where there are more or fewer names of classes than the output of a classifier has units."""
    outputs, _ = symbolic(model, "outputs")
    if not settings.class_names or len(outputs) != 1 or len(outputs[0].shape) < 2:
        return None
    units, names = outputs[0].shape[-1], len(settings.class_names)
    if units is None or names == units or kind_of_loss(loss) not in (_SPARSE, _CATEGORICAL):
        return None
    return (
        f"{names} names for {units} classes. Expected {units}, as many as the output of the model has units, got "
        f"{shown(settings.class_names)}. Name each class once, or change the model."
    )


def weights_misfit(model: keras.Model, loss: Any, weights: Mapping[int, float] | None) -> str | None:
    """Say where there are weights of classes that the output of a classifier does not have."""
    outputs, _ = symbolic(model, "outputs")
    kind = kind_of_loss(loss)
    if not weights or len(outputs) != 1 or len(outputs[0].shape) < 2 or kind not in (_SPARSE, _CATEGORICAL):
        return None
    units = outputs[0].shape[-1]
    beyond = [label for label in weights if units is not None and label >= units]
    if not beyond:
        return None
    return (
        f"there is no class {beyond[0]}. Expected classes 0 to {units - 1}, as many as the output of the model has "
        + (f"units, got weights of {', '.join(map(str, sorted(weights)))}. Correct the keys.")
    )


def names_misfit(model: keras.Model, given: Sequence[str] | None, side: str) -> str | None:
    """Say where there are more or fewer names than a model has `inputs` or `outputs`."""
    tensors, names = symbolic(model, side)
    if not tensors or given is None or len(given) == len(tensors):
        return None
    return (
        f"{len(given)} names for {len(tensors)} {side}. Expected {len(tensors)}, for {', '.join(map(repr, names))}, "
        f"got {shown(list(given))}. Name each, in their order."
    )


def keys_misfit(model: keras.Model, given: Any, *, any_for_one: bool = True) -> str | None:
    """Say where a dictionary by outputs (losses, metrics, weights) names no output, or a list has not as many."""
    outputs, names = symbolic(model, "outputs")
    if not outputs or not isinstance(given, (dict, list, tuple)):
        return None
    if isinstance(given, dict):
        unknown = [key for key in given if key not in names]
        if not unknown or (any_for_one and len(names) == 1):  # for one output Keras takes any name
            return None
        return (
            f"the model has no output {', '.join(map(repr, unknown))}. Expected some of {', '.join(map(repr, names))}, "
            "the names of the output layers. Rename it."
        )
    if len(given) != len(outputs):
        return f"{len(given)} entries for {len(outputs)} outputs. Expected {len(outputs)}. Give one for each output."
    return None
