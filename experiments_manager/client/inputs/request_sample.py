"""One sample to ask the model about, and how arrays become one.

A sample is what the model's inputs take with one entry in the batch. Where an array has one dimension less than the
input, the batch is added; where it has as many, it is sent as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from experiments_manager.client.errors import ClientError
from experiments_manager.client.model_info import ModelInfo, TensorInfo, plain_name
from experiments_manager.common.suggestions import did_you_mean


class Sample(dict[str, Any]):
    """A request with a name: arrays by input name, with the batch as first dimension.

    Attributes:
        label: What the sample is called in tables of predictions: a file's name, or a number.
    """

    def __init__(self, label: str, inputs: Mapping[str, Any]) -> None:
        super().__init__(inputs)
        self.label = label


class SourceError(ClientError):
    """Samples cannot be read; the message names the file and the place in it."""


def only_input(info: ModelInfo, what: str) -> tuple[str, TensorInfo]:
    """Return the one input of a model.

    Args:
        info: The model.
        what: What could be sent to it, for the message.

    Raises:
        SourceError: The model has several.
    """
    if len(info.required) != 1:
        raise SourceError(
            f"{what} can be sent to a model with one input. Expected one array for each of "
            f"{', '.join(f'{name} ({tensor})' for name, tensor in info.inputs.items())}: "
            "use an .npz file or a `client` hook."
        )
    return next(iter(info.required.items()))


def as_request(name: str, array: np.ndarray, tensor: TensorInfo, where: str) -> np.ndarray:
    """Add the batch to a sample that lacks it.

    Raises:
        SourceError: The sample does not fit the input.
    """
    if tensor.dtype != object and array.dtype.kind in "SUO":
        raise SourceError(
            f"{where}: the array holds {plain_name(array.dtype)}. Expected {tensor} for the input {name}."
        )
    if tensor.shape is None or array.ndim == len(tensor.shape):
        batched = array
    elif array.ndim == len(tensor.shape) - 1:
        batched = array[None]
    else:
        batched = None
    fits = batched is not None and (
        tensor.shape is None
        or all(size is None or size == own for own, size in zip(batched.shape, tensor.shape, strict=True))
    )
    if not fits:
        raise SourceError(
            f"{where}: the array {list(array.shape)} does not fit the input {name}. Expected {tensor}, "
            "with the batch first; a single sample may lack the batch."
        )
    return batched


def samples_of_arrays(arrays: Mapping[str, np.ndarray], info: ModelInfo, where: str) -> Iterator[Sample]:
    """Take arrays apart into samples: along their first dimension, unless they are one sample that lacks the batch.

    Args:
        arrays: Arrays by input name.
        info: The model.
        where: The file, for messages.

    Raises:
        SourceError: They do not fit the model or each other, or are empty.
    """
    if unknown := [name for name in arrays if name not in info.inputs] or [n for n in info.required if n not in arrays]:
        hint = did_you_mean(unknown[0], [name for name in info.inputs if name not in arrays], shown="'{}'")
        raise SourceError(
            f"{where} holds {', '.join(arrays)}, which does not fit the model at {unknown[0]!r}. Expected "
            f"{', '.join(f'{name} ({tensor})' for name, tensor in info.inputs.items())}. "
            f"{hint}".rstrip()
        )
    if all(_lacks_batch(array, info.inputs[name]) for name, array in arrays.items()):
        yield Sample("0", {name: as_request(name, array, info.inputs[name], where) for name, array in arrays.items()})
        return
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise SourceError(f"{where}: the arrays have different numbers of samples: {listed}. Expected as many in each.")
    count = next(iter(counts.values()))
    if count == 0:
        raise SourceError(f"{where} holds no samples: {', '.join(arrays)} of length 0. Expected one or more.")
    for index in range(count):
        rows = {name: array[index : index + 1] for name, array in arrays.items()}
        yield Sample(
            str(index),
            {name: as_request(name, row, info.inputs[name], f"{where}[{index}]") for name, row in rows.items()},
        )


def _lacks_batch(array: np.ndarray, tensor: TensorInfo) -> bool:
    return array.ndim == 0 or (tensor.shape is not None and array.ndim == len(tensor.shape) - 1)
