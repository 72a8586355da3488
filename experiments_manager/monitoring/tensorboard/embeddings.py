"""From samples and what a model makes of them to points in a space: one vector a sample, and what is known of each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments_manager.events import Samples
from experiments_manager.monitoring.model_outputs import ModelOutput, read_model_outputs
from experiments_manager.monitoring.tensorboard.sprites import shrink

WIDEST_FLAT = 2048
"""Outputs of three and more dimensions with at most so many elements a sample are flattened, larger ones averaged."""
_MOST_TARGET_COLUMNS = 8
_TOO_MANY = "its numbers are too many for a table"


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Points of one model at one time."""

    vectors: dict[str, np.ndarray]
    """By output or layer, float32 `[samples, width]`."""
    columns: dict[str, np.ndarray]
    """What is known of each sample by name, numbers or text `[samples]`."""
    left_out: dict[str, str]
    """Outputs and targets that do not come up in the two above, and why."""


def embeddings_of(
    samples: Samples, class_names: Sequence[str] | None = None, *, with_outputs: bool = False
) -> Embeddings:
    """Make points of the layers that were read, or of the model's outputs where there are none.

    Args:
        samples: Inputs, targets, outputs and layers.
        class_names: Names of the classes, in their order.
        with_outputs: Whether to make points of the model's outputs beside those of layers, too.
    """
    outputs = dict(samples.layers or samples.outputs)
    if with_outputs:
        outputs = {
            f"layer {name}" if name in samples.outputs else name: layer for name, layer in samples.layers.items()
        }
        outputs = {**samples.outputs, **outputs}
    vectors, left_out = {}, {}
    for name, output in _leaves(outputs):
        array = _as_known_type(output)
        if array.dtype.kind not in "fiub" or array.ndim < 1:
            left_out[name] = f"it is {array.dtype} of shape {list(array.shape)}"
        else:
            vectors[name] = as_vectors(array)
    columns, unknown = _columns(samples, class_names)
    return Embeddings(vectors, columns, left_out | unknown)


def reduced(batch: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
    """Make of inputs, targets, outputs and layers of a batch what embeddings need, so that thousands fit into memory.

    Images are kept as thumbnails, and no other inputs; large outputs as the vectors that come of them; large targets,
    which no table can hold, not at all.
    """
    x, targets, outputs, layers = batch
    images, count = first_images(x), len(next(_leaves(x))[1])

    def vectors(leaf: Any) -> np.ndarray:
        leaf = _as_known_type(leaf)
        return as_vectors(leaf) if leaf.ndim > 2 and leaf.dtype.kind in "fiub" else leaf

    def small(leaf: np.ndarray) -> np.ndarray:
        return np.empty([count, 0]) if leaf[:1].size > WIDEST_FLAT else leaf

    x = np.empty([count, 0]) if images is None else shrink(images)
    large = any(leaf[:1].size > WIDEST_FLAT for _, leaf in _leaves(outputs))
    return x, _map(small, targets), _map(vectors, outputs) if large else outputs, _map(vectors, layers)


def as_vectors(output: np.ndarray) -> np.ndarray:
    """Return one vector a sample.

    Args:
        output: Numbers `[samples, …]`.

    Returns:
        float32 `[samples, width]`. Three and more dimensions are flattened where that makes at most `WIDEST_FLAT`
        elements; else the average over all but the first and the last is taken, or, where the last is 1, over blocks.
    """
    count, *inner = output.shape
    output = np.asarray(output, np.float32)
    if len(inner) <= 1 or math.prod(inner) <= WIDEST_FLAT:
        return output.reshape(count, math.prod(inner))
    if inner[-1] > 1:
        return output.mean(axis=tuple(range(1, output.ndim - 1)))
    middle = inner[:-1]
    block = math.ceil((math.prod(middle) / WIDEST_FLAT) ** (1 / len(middle)))
    kept = [max(1, size // block) for size in middle]
    blocks = [min(block, size) for size in middle]
    cropped = output[(slice(None), *(slice(n * size) for n, size in zip(kept, blocks, strict=True)), 0)]
    split = cropped.reshape(count, *(part for pair in zip(kept, blocks, strict=True) for part in pair))
    return split.mean(axis=tuple(range(2, split.ndim, 2))).reshape(count, -1)


def _columns(samples: Samples, class_names: Sequence[str] | None) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return what is known of each sample: its number, its targets, and what was predicted for them."""
    answers = read_model_outputs(samples, class_names)
    columns: dict[str, np.ndarray] = {}
    left_out: dict[str, str] = {}
    for answer in answers:
        found = _answer_columns(answer)
        if not found:
            left_out[f"the targets of {answer.head}"] = _TOO_MANY
        prefix = f"{answer.head} " if len(answers) > 1 else ""
        columns.update((prefix + name, values) for name, values in found.items())
    if not answers and samples.y is not None:
        for name, target in _leaves(samples.y, "target"):
            found = _plain_columns(name, np.asarray(target))
            if not found:
                left_out[name] = _TOO_MANY
            columns.update(found)
    columns["index"] = np.arange(len(next(_leaves(samples.x))[1]))
    return columns, left_out


def _answer_columns(answer: ModelOutput) -> dict[str, np.ndarray]:
    """Return classes by name, with a mark on those that are wrong; labels as a list; numbers where they are few."""
    truth, predicted = answer.truth, answer.predicted
    if answer.kind == "classes":
        names = np.array(answer.class_names)
        return {"label": names[truth], "prediction": names[predicted], "wrong": (truth != predicted).astype(int)}
    if answer.kind == "labels":
        wrong = (truth != predicted).any(axis=1).astype(int)
        texts = [_label_lists(values, answer.class_names) for values in (truth, predicted)]
        return {"label": texts[0], "prediction": texts[1], "wrong": wrong}
    if answer.kind == "values":
        return _plain_columns("target", truth) | _plain_columns("prediction", predicted)
    return {}


def _label_lists(chosen: np.ndarray, names: Sequence[str]) -> np.ndarray:
    return np.array([", ".join(name for name, has in zip(names, row, strict=True) if has) or "none" for row in chosen])


def _plain_columns(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Return a few numbers, or one text, a sample."""
    rows = values.reshape(len(values), -1) if values.ndim in (1, 2) else values
    if rows.ndim != 2 or rows.shape[1] > _MOST_TARGET_COLUMNS or rows.dtype.kind not in "fiubOSU":
        return {}
    if rows.dtype.kind in "OSU":
        texts = [[v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in row] for row in rows]
        rows = np.array(texts, dtype=str)
    if rows.shape[1] == 1:
        return {name: rows[:, 0]}
    return {f"{name} {number}": rows[:, number] for number in range(rows.shape[1])}


def _leaves(nested: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield arrays of a nested structure with the names that lead to them."""
    if isinstance(nested, Mapping):
        pairs = nested.items()
    elif isinstance(nested, list | tuple):
        pairs = enumerate(nested)
    else:
        yield name, nested
        return
    for key, value in pairs:
        yield from _leaves(value, f"{name}_{key}" if name else str(key))


def _map(function: Callable[[np.ndarray], np.ndarray], nested: Any) -> Any:
    """Change the arrays of a nested structure."""
    if isinstance(nested, Mapping):
        return {key: _map(function, value) for key, value in nested.items()}
    if isinstance(nested, list | tuple):
        return [_map(function, value) for value in nested]
    return function(np.asarray(nested))


def _as_known_type(array: Any) -> np.ndarray:
    """NumPy knows no bfloat16 of its own."""
    array = np.asarray(array)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def first_images(x: Any) -> np.ndarray | None:
    """Return the first input that is images `[samples, height, width, 1, 3 or 4 channels]`, or `None`."""
    for _, leaf in _leaves(x):
        array = np.asarray(leaf)
        if array.ndim == 4 and array.shape[-1] in (1, 3, 4) and array.dtype.kind in "fiub" and min(array.shape) > 0:
            return array
    return None
