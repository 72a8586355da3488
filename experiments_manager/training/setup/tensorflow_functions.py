"""Functions of TensorFlow on the symbolic tensors of a Keras model, such as `tf.reshape(x, [-1, 3])` in a `model` hook.

Keras 2 made an operation of the model of each such call; Keras 3 refuses it. TensorFlow asks whoever has registered for
it before it gives up on an argument, so the call becomes a `keras.Operation` here, as the functions of `keras.ops` are
themselves: the same graph is trained, exported, saved and cloned. The names are those that Keras 2 gave (`tf.reshape`,
`tf.reshape_1`), which are also the names of outputs. Nothing that Keras or TensorFlow accept by themselves is changed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.compat import keras as keras_compat
from experiments_manager.compat import tensorflow as tensorflow_compat

_SHAPE_ELEMENTS = 32
"""Integers that a tensor holds at the most to be taken for a shape or a part of one."""


@functools.cache
def accept_symbolic_tensors() -> None:
    """From now on, let TensorFlow's functions take symbolic Keras tensors, and index these as those of TensorFlow."""
    tensorflow_compat.dispatch_functions(_dispatched)
    keras_compat.wrap_backend_functions(_backend_function)
    keras_compat.extend_symbolic_tensors(
        get_shape=lambda tensor: tf.TensorShape(tensor.shape),
        __getitem__=_with_fallback(keras.KerasTensor.__getitem__, "tf.__operators__.getitem"),
        __iter__=_parts,
    )


def _dispatched(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Apply a function of TensorFlow as an operation; `NotImplemented` where that cannot be done."""
    name = tensorflow_compat.public_name(function)
    return NotImplemented if name is None else _as_operation(f"tf.{name}", args, kwargs)


def _as_operation(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not list(_symbolic((args, kwargs))):
        return NotImplemented
    return TensorFlowFunction(function).symbolic_call(*args, **kwargs)


def _backend_function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    return _with_fallback(function, f"tf.keras.backend.{name}")


def _with_fallback(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return a function that becomes an operation where it cannot do with symbolic tensors by itself."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (AttributeError, NotImplementedError, TypeError, ValueError):
            result = _as_operation(name, args, kwargs)
            if result is NotImplemented:
                raise
            return result

    return wrapped


def _parts(tensor: keras.KerasTensor) -> Iterator[keras.KerasTensor]:
    """Return the parts along the first axis, as of `height, width = tf.shape(x)[1:3]`.

    Raises:
        TypeError: It has none, or nobody knows how many.
    """
    if not tensor.shape or tensor.shape[0] is None:
        raise TypeError(
            f"a symbolic tensor of shape {tensor.shape} cannot be iterated over. Expected a known length of its first "
            "axis. Use `tf.unstack` with `num`, or do it in the `call` of a layer of your own."
        )
    return (tensor[index] for index in range(tensor.shape[0]))


def _symbolic(structure: Any) -> Iterable[keras.KerasTensor]:
    return (item for item in keras.tree.flatten(structure) if isinstance(item, keras.KerasTensor))


@keras.saving.register_keras_serializable(package="experiments_manager")
class TensorFlowFunction(keras.Operation):
    """A call of a function of TensorFlow within a Keras model."""

    def __init__(self, function: str, name: str | None = None) -> None:
        """Prepare the operation.

        Args:
            function: Its public name, such as `tf.math.reduce_mean`.
            name: Name of the operation, that of the function and a number by default.

        Raises:
            ValueError: TensorFlow has no such function for tensors.
        """
        super().__init__(name=name or _unused_name(function))
        self._written = function
        self._function = tensorflow_compat.function_named(function)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call TensorFlow's function on the tensors of the graph."""
        return self._function(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the function gives for symbolic tensors, whose shapes follow from those computed on the way.

        Where an argument is computed from shapes, as in `tf.reshape(x, [tf.shape(x)[0], -1])`, what computes it is part
        of what TensorFlow looks at: otherwise a `Dense` after it would not know its input's last dimension.

        Raises:
            ValueError: It cannot be applied to tensors of these shapes, or what it gives cannot be told beforehand.
        """
        try:
            return _Replayed(self._function, args, kwargs).output_spec()
        except (TypeError, ValueError) as error:
            _, _, cause = str(error).rpartition("Error encountered:")  # the rest of what Keras says is about itself
            cause = cause.removesuffix("\x1b[0m").strip().rstrip(".")
            raise ValueError(
                f"`{self._written}` cannot be applied here: {cause}. Expected arguments that it takes, and outputs "
                "whose rank follows from them. Check them, or do it in the `call` of a layer of your own."
            ) from error

    def get_config(self) -> dict[str, Any]:
        """Return what makes the same operation again."""
        return {"function": self._written, "name": self.name}


class _Replayed(keras.Operation):
    """A function together with what computes the shapes among its arguments."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self._function = function
        self._arguments = args, kwargs
        self._roots: dict[int, keras.KerasTensor] = {}
        for tensor in _symbolic(self._arguments):
            self._look_behind(tensor)

    def output_spec(self) -> Any:
        return self.compute_output_spec(*self._roots.values())

    def call(self, *roots: tf.Tensor) -> Any:
        values: dict[int, Any] = dict(zip(self._roots, roots, strict=True))
        args, kwargs = self._valued(self._arguments, values)
        return self._function(*args, **kwargs)

    def _look_behind(self, tensor: keras.KerasTensor) -> None:
        producer = keras_compat.producer_of(tensor) if _may_be_shape(tensor) else None
        if producer is None:
            self._roots[id(tensor)] = tensor
            return
        for before in _symbolic(producer.arguments):
            self._look_behind(before)

    def _valued(self, structure: Any, values: dict[int, Any]) -> Any:
        return keras.tree.map_structure(
            lambda item: self._value(item, values) if isinstance(item, keras.KerasTensor) else item, structure
        )

    def _value(self, tensor: keras.KerasTensor, values: dict[int, Any]) -> Any:
        if id(tensor) not in values:
            producer = keras_compat.producer_of(tensor)
            args, kwargs = self._valued(producer.arguments, values)
            outputs = keras.tree.flatten(producer.operation.call(*args, **kwargs))
            values.update(zip(map(id, producer.outputs), map(_folded, outputs), strict=True))
        return values[id(tensor)]


def _may_be_shape(tensor: keras.KerasTensor) -> bool:
    integral = tensor.dtype in ("int32", "int64")
    return integral and tensor.ndim <= 1 and None not in tensor.shape and math.prod(tensor.shape) <= _SHAPE_ELEMENTS


def _folded(value: tf.Tensor) -> tf.Tensor:
    """Return a constant where TensorFlow knows all sizes of which a shape is made, else the tensor itself."""
    if not value.dtype.is_integer or value.shape.rank is None or value.shape.rank > 1:
        return value
    try:
        known = tf.broadcast_to(0, value if value.shape.rank else [value]).shape
    except (TypeError, ValueError):  # no sizes, such as [-2, 1]
        return value
    return tf.constant(known.as_list(), value.dtype, value.shape) if known.is_fully_defined() else value


def _unused_name(function: str) -> str:
    number = keras.backend.get_uid(function)
    return function if number == 1 else f"{function}_{number - 1}"
