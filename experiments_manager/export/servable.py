"""What is served: the model under a signature with named inputs and outputs, as one function of named tensors."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.common.error_text import named_reason


class ExportError(Exception):
    """The model cannot be exported; the message says why and what to do."""


@dataclasses.dataclass
class Servable:
    """A traced serving function and everything that it reads.

    Attributes:
        function: The concrete function; takes its inputs by name and returns a dictionary of tensors.
        model_name: Second name of the signature, beside `serving_default`.
        variables: The variables that the function reads, in a fixed order.
        root: What is saved; it tracks the variables, and tables and other resources that the function uses.
        order: Names of the inputs in the order of a flattened batch; TensorFlow sorts those of the function.
    """

    function: Any
    model_name: str
    variables: list[tf.Variable]
    root: tf.Module
    order: list[str]

    @property
    def inputs(self) -> dict[str, tf.TensorSpec]:
        """Input specs by name, in `order`."""
        specs = self.function.structured_input_signature[1]
        return {name: specs[name] for name in self.order}

    def __call__(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Run the function on named tensors."""
        return self.function(**inputs)

    def probe(self, batch: Any, samples: int) -> dict[str, tf.Tensor]:
        """Make a small batch of inputs for this function: real samples where they fit its inputs, else ones.

        Args:
            batch: A training batch, `x` or a tuple that begins with it.
            samples: How many samples to use, where the function takes any number.
        """
        leaves = tf.nest.flatten(batch[0] if isinstance(batch, tuple) else batch)
        specs = self.inputs
        fits = len(leaves) == len(specs) and all(
            spec.dtype == leaf.dtype and spec.shape.is_compatible_with(leaf[:samples].shape)
            for spec, leaf in zip(specs.values(), leaves, strict=True)
        )
        if fits:
            return {name: leaf[:samples] for name, leaf in zip(specs, leaves, strict=True)}
        return {name: _ones(spec, samples) for name, spec in specs.items()}

    def save(self, path: Path) -> None:
        """Write the SavedModel with the variables' present values."""
        signatures = {"serving_default": self.function, self.model_name: self.function}
        tf.saved_model.save(self.root, str(path), signatures=signatures)


def servable_from_model(
    model: keras.Model,
    batch_x: Any,
    *,
    model_name: str,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> Servable:
    """Make the serving function of a model: `model(x, training=False)` for any number of samples.

    Args:
        model: Built model.
        batch_x: A batch of inputs, nested as the model takes them; gives shapes and types.
        model_name: Name of the second signature.
        input_names: Names for the inputs, in the order of the flattened nest; else the model's own.
        output_names: Names for the outputs, likewise.

    Returns:
        The servable.

    Raises:
        ExportError: If there are more or fewer names than tensors, or the model cannot be traced.
    """
    leaves = tf.nest.flatten(batch_x)
    names = input_names_of(model, batch_x, input_names)
    specs = {
        name: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype, name=name)
        for name, leaf in zip(names, leaves, strict=True)
    }

    def serve(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        x = tf.nest.pack_sequence_as(batch_x, [inputs[name] for name in names])
        outputs = model(x, training=False)
        flat = tf.nest.flatten(outputs)
        heads = _checked(output_names, output_names_of(model, outputs), "output_names", len(flat))
        return {name: tf.identity(value, name=name) for name, value in zip(heads, flat, strict=True)}

    return _trace(tf.function(serve, autograph=False), specs, model_name, model)


def servable_from_hook(served: Any, model: keras.Model, *, model_name: str, where: str) -> Servable:
    """Make the servable of what a `serving` hook returned.

    Args:
        served: A `tf.Module` with a `tf.function` called `served_model`, or such a function itself; it must have an
            `input_signature`.
        model: The model that it uses.
        model_name: Name of the second signature.
        where: Place of the hook, for messages.

    Raises:
        ExportError: If it is neither, or cannot be traced.
    """
    function = getattr(served, "served_model", served)
    if not hasattr(function, "get_concrete_function"):
        raise ExportError(
            f"{where}: serving: returned {type(served).__name__}. Expected a `tf.Module` with a `tf.function` named "
            "`served_model`, or a `tf.function`. Decorate it with `@tf.function(input_signature=[…])`."
        )
    if getattr(function, "input_signature", None) is None:
        raise ExportError(
            f"{where}: serving: the function has no input signature. Expected "
            "`@tf.function(input_signature=[tf.TensorSpec(shape, dtype, name=…)])`, got a function without. Add it."
        )
    try:
        arguments, _ = function.get_concrete_function().structured_input_signature
    except Exception as error:
        raise _cannot_be_traced(error) from error
    specs = {
        spec.name: spec for spec in tf.nest.flatten(arguments)
    }  # by the name in the signature, else the parameter's

    def serve(**inputs: tf.Tensor) -> Any:
        return function(*tf.nest.pack_sequence_as(arguments, [inputs[name] for name in specs]))

    return _trace(tf.function(serve, autograph=False), specs, model_name, model, served)


def _trace(
    function: Any, specs: Mapping[str, tf.TensorSpec], model_name: str, model: keras.Model, owner: Any = None
) -> Servable:
    try:
        concrete = function.get_concrete_function(**specs)
    except Exception as error:
        raise _cannot_be_traced(error) from error
    root = tf.Module()
    root.captured = _in_order(concrete.variables, model)
    root.resources = _resources(concrete, model, owner)
    return Servable(_with_named_outputs(concrete), model_name, list(root.captured), root, list(specs))


def _in_order(variables: Sequence[tf.Variable], model: keras.Model) -> list[tf.Variable]:
    """Sort as the model does, then by name: a function's own order changes from process to process."""
    places = {id(variable.value): number for number, variable in enumerate(model.variables)}
    return sorted(variables, key=lambda variable: (places.get(id(variable), len(places)), variable.name))


def _cannot_be_traced(error: Exception) -> ExportError:
    return ExportError(
        f"The model cannot be exported: tracing its serving function failed ({named_reason(error)}). "
        "Expected a function of tensors alone. Give a `serving` hook, or set `export = False`."
    )


def _with_named_outputs(concrete: Any) -> Any:
    if isinstance(concrete.structured_outputs, Mapping):
        return concrete
    raise ExportError(
        f"serving: the function returns {type(concrete.structured_outputs).__name__}. "
        "Expected a dictionary {name: tensor}. Return one."
    )


def _resources(concrete: Any, *owners: Any) -> list[Any]:
    """Find lookup tables and the like behind the handles that the function captured, so that they are saved too."""
    variables = {id(variable.handle) for variable in concrete.variables}
    handles = {
        id(tensor)
        for tensor, _ in concrete.graph.captures
        if tensor.dtype == tf.resource and id(tensor) not in variables
    }
    found: list[Any] = []
    for owner in owners if handles else ():
        if owner is None:
            continue
        for part in tf.train.TrackableView(owner).descendants():
            if id(getattr(part, "resource_handle", None)) in handles:
                found.append(part)
    return found


def _ones(spec: tf.TensorSpec, samples: int) -> tf.Tensor:
    shape = [samples if number == 0 else 1 for number in range(spec.shape.rank or 0)]
    shape = [own if size is None else size for own, size in zip(shape, spec.shape.as_list(), strict=True)]
    return tf.fill(shape, "") if spec.dtype == tf.string else tf.ones(shape, spec.dtype)


def input_names_of(model: keras.Model, batch_x: Any, wanted: Sequence[str] | None = None) -> list[str]:
    """Return names of a served model's inputs, in the order of the flattened `batch_x`.

    Args:
        model: The model.
        batch_x: A batch of inputs, or its specs, nested as the model takes them.
        wanted: The setting `input_names`.

    Raises:
        ExportError: There are more or fewer wanted names than inputs.
    """
    return _checked(wanted, _own_input_names(model, batch_x), "input_names", len(tf.nest.flatten(batch_x)))


def _own_input_names(model: keras.Model, batch_x: Any) -> list[str]:
    if isinstance(batch_x, dict):
        return [str(key) for key in sorted(batch_x)] if all(not tf.nest.is_nested(v) for v in batch_x.values()) else []
    inputs = getattr(model, "inputs", None) or []
    names = [_own_name(tensor, number, len(inputs)) for number, tensor in enumerate(inputs)]
    return names if len(set(names)) == len(names) else []


def output_names_of(model: keras.Model, outputs: Any) -> list[str]:
    """Return names of a model's outputs, in the order of the flattened nest; none where the model does not tell."""
    if isinstance(outputs, dict):
        return [str(key) for key in sorted(outputs)]
    if isinstance(model, keras.Sequential):
        return [model.layers[-1].name]
    names = getattr(model, "output_names", None)
    # One layer with several outputs, such as an LSTM that gives its state, has one name for all of them.
    return list(names) if names and len(set(names)) == len(names) else []


def _own_name(tensor: Any, number: int, count: int) -> str:
    """Return the name that the user gave an input, or a plain one where Keras made it up (`keras_tensor_12`)."""
    name = tensor.name.split(":")[0].split("/")[0]
    if count == 1:
        return "input" if re.fullmatch(r"(keras_tensor|input_layer|input)(_\d+)?", name) else name
    return f"input_{number}" if re.fullmatch(r"(keras_tensor|input_layer)(_\d+)?", name) else name


def _checked(wanted: Sequence[str] | None, own: list[str], setting: str, count: int) -> list[str]:
    if wanted is not None and len(wanted) != count:
        raise ExportError(
            f"{setting}: {len(wanted)} names for {count} tensors. Expected {count}, got {list(wanted)}. "
            "Name each tensor, in the order of the flattened structure."
        )
    default = setting.split("_")[0]
    fallback = [default if count == 1 else f"{default}_{number}" for number in range(count)]
    return list(wanted) if wanted is not None else own if len(own) == count else fallback
