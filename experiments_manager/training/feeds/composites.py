"""Batches as Kafka's records hold them, made into tensors that are dense, ragged or sparse; and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.kafka.formats.composite import Ragged, Sparse
from experiments_manager.training.errors import DataError

MOST_BYTES = 2**32
"""What samples of different shapes may take when they are padded."""


def from_tensors(batch: Any) -> Any:
    """Return a batch with arrays, `Ragged` and `Sparse` instead of tensors, for the producer.

    Args:
        batch: A nest of tensors (dense, ragged or sparse) or of what NumPy makes an array of.
    """
    return tf.nest.map_structure(_from_tensor, batch)


def to_tensors(batch: Any) -> Any:
    """Return a batch of tensors; dense samples that differ in shape are padded.

    Args:
        batch: A nest of arrays, `Ragged` and `Sparse`, as decoders give it.

    Raises:
        DataError: The padded samples would be too large.
    """
    return tf.nest.map_structure(to_tensor, batch)


def to_tensor(array: Any) -> Any:
    """Return the tensor of one leaf of a batch; as `to_tensors`."""
    if array is None:
        return None
    if isinstance(array, Ragged):
        return tf.RaggedTensor.from_nested_row_lengths(array.values, array.row_lengths, validate=False)
    if isinstance(array, Sparse):
        return tf.SparseTensor(array.indices, array.values, array.shape)
    return tf.convert_to_tensor(padded(array))


def padded(samples: np.ndarray) -> np.ndarray:
    """Return an array of samples that may differ in shape, with zeros or empty strings after what is smaller.

    Args:
        samples: An array, or one of objects with an array of each sample; all have the same rank.

    Returns:
        The array itself, or one `[batch, …]` with the largest size of each dimension.

    Raises:
        DataError: It would take more than 4 GiB.
    """
    if not (samples.dtype.kind == "O" and samples.ndim == 1 and len(samples) and isinstance(samples[0], np.ndarray)):
        return samples
    shapes, dtype = np.array([sample.shape for sample in samples]), samples[0].dtype
    # What is empty needs no place, however large its other dimensions are said to be.
    largest = np.where((shapes > 0).all(axis=1, keepdims=True), shapes, 0).max(axis=0)
    shape = (len(samples), *np.where((shapes == shapes[0]).all(axis=0), shapes[0], largest).tolist())
    if np.prod(shape, dtype=np.float64) * dtype.itemsize > MOST_BYTES:
        raise DataError(
            f"Samples of different shapes make a batch of shape {shape} {dtype}. "
            f"Expected at most {MOST_BYTES // 2**30} GiB. Lower batch_size, or produce these samples as ragged tensors."
        )
    batch = np.full(shape, b"", object) if dtype.kind == "O" else np.zeros(shape, dtype)
    for row, sample in zip(batch, samples, strict=True):
        if sample.size:
            row[tuple(map(slice, sample.shape))] = sample
    return batch


def _from_tensor(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, tf.RaggedTensor):
        lengths = tuple(level.numpy().astype(np.int64) for level in value.nested_row_lengths())
        return Ragged(value.flat_values.numpy(), lengths)
    if isinstance(value, tf.SparseTensor):
        return Sparse(value.indices.numpy(), value.values.numpy(), tuple(value.dense_shape.numpy().tolist()))
    return np.asarray(value)
