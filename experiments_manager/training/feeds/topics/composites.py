"""Batches as Kafka's records hold them, made into tensors that are dense, ragged or sparse; and back."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.kafka.records.composite import Ragged, Sparse
from experiments_manager.kafka.records.structure import Leaf
from experiments_manager.training.errors import DataError

MOST_BYTES = 2**32
"""What samples of different shapes may take when they are padded."""


def from_tensors(batch: Any) -> Any:
    """Return a batch with arrays, `Ragged` and `Sparse` instead of tensors, for the producer.

    Args:
        batch: A nest of tensors (dense, ragged or sparse) or of what NumPy makes an array of.
    """
    return tf.nest.map_structure(_from_tensor, batch)


def to_tensor(array: Any, dtype: tf.DType | None = None) -> Any:
    """Return the tensor of one leaf of a batch; dense samples that differ in shape are padded.

    Args:
        array: An array, `Ragged` or `Sparse`.
        dtype: Of the tensor, if not that of the values.

    Raises:
        DataError: The padded samples would be too large.
    """
    if isinstance(array, Ragged):
        values = _of_dtype(array.values, dtype)
        return tf.RaggedTensor.from_nested_row_lengths(values, array.row_lengths, validate=False)
    if isinstance(array, Sparse):
        return tf.SparseTensor(array.indices, _of_dtype(array.values, dtype), array.shape)
    return _of_dtype(padded(array), dtype)


def batch_spec(leaf: Leaf, dtype: tf.DType | None = None) -> tf.TypeSpec:
    """Return what the batches of a leaf are as tensors.

    Args:
        leaf: One array of a sample.
        dtype: Of the tensors, if not that of the leaf.
    """
    dtype = dtype or tf.as_dtype(leaf.dtype)
    shape = [None, *leaf.shape]
    if leaf.ragged:
        return tf.RaggedTensorSpec(shape, dtype, ragged_rank=leaf.ragged, row_splits_dtype=tf.int64)
    return tf.SparseTensorSpec(shape, dtype) if leaf.sparse else tf.TensorSpec(shape, dtype)


def blank_batch(leaf: Leaf, dtype: tf.DType | None = None) -> Any:
    """Return a batch of one sample of zeros or empty strings, to build a model on while there is no other.

    Args:
        leaf: One array of a sample.
        dtype: Of the tensor, if not that of the leaf.
    """
    sizes = tuple(1 if size is None else size for size in leaf.shape)
    zero = b"" if leaf.is_string else 0
    if leaf.sparse:
        indices = np.zeros([0, 1 + len(sizes)], np.int64)
        return to_tensor(Sparse(indices, np.zeros(0, leaf.numpy_dtype), (1, *sizes)), dtype)
    if leaf.ragged:
        values = np.full((1, *sizes[leaf.ragged :]), zero, leaf.numpy_dtype)
        return to_tensor(Ragged(values, (np.ones(1, np.int64),) * leaf.ragged), dtype)
    return to_tensor(np.full((1, *sizes), zero, leaf.numpy_dtype), dtype)


def dtype_in_training(leaf: Leaf) -> tf.DType:
    """Return the dtype that a leaf has in training: float64 becomes Keras' `floatx`, as that of arrays does."""
    if leaf.is_string:
        return tf.string
    return tf.as_dtype(keras.config.floatx() if leaf.dtype == "float64" else leaf.numpy_dtype)


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


def _of_dtype(values: np.ndarray, dtype: tf.DType | None) -> tf.Tensor:
    if dtype is not None and values.dtype.kind != "O":
        values = values.astype(dtype.as_numpy_dtype, copy=False)
    # An array of objects that is empty does not say that it is of strings.
    return tf.convert_to_tensor(values, tf.string if values.dtype.kind == "O" else None)


def _from_tensor(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, tf.RaggedTensor):
        lengths = tuple(level.numpy().astype(np.int64) for level in value.nested_row_lengths())
        return Ragged(value.flat_values.numpy(), lengths)
    if isinstance(value, tf.SparseTensor):
        return Sparse(value.indices.numpy(), value.values.numpy(), tuple(value.dense_shape.numpy().tolist()))
    return np.asarray(value)
