"""What a model can be asked: its signatures, requests for them, and the interface that every kind of model has."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from experiments_manager.protocol.dtypes import kind_of_dtype
from experiments_manager.protocol.status import failed_precondition, invalid_argument
from experiments_manager.protocol.tensors import TensorError, to_array

DEFAULT_SIGNATURE = "serving_default"
PREDICT = "tensorflow/serving/predict"
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"

Arrays = Mapping[str, np.ndarray]
Shapes = Mapping[str, Sequence[int]]
"""Shapes of a sample's arrays by input name, without the first dimension."""


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One input or output of a signature.

    Attributes:
        name: Name of the tensor in the graph, e.g. `serving_default_image:0`.
        dtype: TensorFlow's name of the type: `float`, `double`, `int32`, `string` … as its error messages have it.
        numpy_dtype: The type of arrays that hold it; `object` for strings.
        shape: Sizes, `None` where any size will do; `None` as a whole where even the rank is open.
        number: TensorFlow's number of the type (`DataType`).
    """

    name: str
    dtype: str
    numpy_dtype: np.dtype
    shape: tuple[int | None, ...] | None
    number: int = 0

    def accepts(self, shape: Sequence[int]) -> bool:
        """Return whether an array of this shape is what the signature says."""
        if self.shape is None:
            return True
        if len(shape) != len(self.shape):
            return False
        return all(own is None or own == size for own, size in zip(self.shape, shape, strict=True))

    @property
    def any_batch(self) -> bool:
        """Whether the first dimension counts samples, as far as one can see."""
        return self.shape is None or (len(self.shape) > 0 and self.shape[0] is None)


@dataclasses.dataclass(frozen=True)
class Signature:
    """Named inputs and outputs of one way to call a model.

    Attributes:
        name: Its key in the SavedModel.
        method_name: `PREDICT`, `CLASSIFY`, `REGRESS`, or what the model's author wrote.
        inputs: Inputs by name.
        outputs: Outputs by name.
        defaults: Values of inputs that a request may leave out.
        fixed_ranks: Whether inputs must have as many dimensions as it says, lest the engine end the process.
        alone: Why its requests must not share calls, where the graph tells; empty where it does not.
        loops: Whether its graph has loops, which odd numbers may keep from ending.
    """

    name: str
    method_name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    defaults: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    fixed_ranks: bool = False
    alone: str = ""
    loops: bool = False

    @functools.cached_property
    def batchable(self) -> bool:
        """Whether samples of several requests may be put together along the first dimension.

        Where ranks of inputs are open, `[3]` may be three samples, or one of three numbers; only outputs of a known
        rank show that it is the former.
        """
        inputs, outputs = [*self.inputs.values()], [*self.outputs.values()]
        known = any(all(spec.shape is not None for spec in side) for side in (inputs, outputs))
        return bool(inputs) and known and all(spec.any_batch for spec in inputs + outputs)

    def fits(self, inputs: Arrays) -> bool:
        """Return whether checked inputs have the shapes that the signature says."""
        return all(spec.accepts(inputs[name].shape) for name, spec in self.inputs.items())

    def count_samples(self, inputs: Arrays) -> int | None:
        """Count the samples of a request, provided that they may be put together with those of others.

        Args:
            inputs: Checked inputs.

        Returns:
            The size of the first dimension. `None` for a request that has to run alone: shapes that the signature does
            not have, or inputs of different lengths. Whether these make sense is for TensorFlow to say.
        """
        if not self.batchable:
            return None
        count: int | None = None
        for name, spec in self.inputs.items():
            shape = inputs[name].shape
            if not shape or not spec.accepts(shape) or (count is not None and shape[0] != count):
                return None
            count = shape[0]
        return count

    @property
    def api(self) -> str:
        """The method that the signature is made for, by its name in the metrics."""
        return {CLASSIFY: "Classify", REGRESS: "Regress"}.get(self.method_name, "Predict")

    @functools.cached_property
    def all_outputs(self) -> tuple[str, ...]:
        """Names of all outputs."""
        return tuple(self.outputs)

    def select_outputs(self, output_filter: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the outputs to compute: those asked for, or all.

        Raises:
            ServingError: INVALID_ARGUMENT for an unknown or repeated name.
        """
        if not output_filter:
            return self.all_outputs
        for number, name in enumerate(output_filter):
            if name not in self.outputs:
                raise invalid_argument(
                    f"output tensor alias not found in signature: {name} "
                    f"Outputs expected to be in the set {{{_names(self.outputs)}}}."
                )
            if name in output_filter[:number]:
                raise invalid_argument(f"duplicate output tensor alias: {name}")
        return tuple(output_filter)

    def check_names(self, given: Mapping[str, object]) -> None:
        """Compare the names of a request's inputs with those that are needed.

        Raises:
            ServingError: INVALID_ARGUMENT, with TensorFlow Serving's sentence about what is missing and what too much.
        """
        if len(given) == len(self.inputs) and all(name in self.inputs for name in given):
            return
        extra, missing = given.keys() - self.inputs.keys(), self.inputs.keys() - given.keys() - self.defaults.keys()
        if len(given) > len(self.inputs) or (len(given) < len(self.inputs) and missing):
            raise invalid_argument(
                f"input size does not match signature: {len(given)}!={len(self.inputs)} "
                f"len({{{_names(given)}}}) != len({{{_names(self.inputs)}}}). "
                f"Sent extra: {{{_names(extra)}}}. Missing but required: {{{_names(missing)}}}."
            )
        for name in sorted(extra):
            raise invalid_argument(
                f"input tensor alias not found in signature: {name}. "
                f"Inputs expected to be in the set {{{_names(self.inputs)}}}."
            )

    def read_inputs(self, given: Mapping[str, Any], known: Arrays) -> dict[str, np.ndarray]:
        """Read a request's `TensorProto`s, after a look at their names: what nobody needs takes no memory.

        Args:
            given: The messages by input name.
            known: Arrays of those that were read before.

        Raises:
            ServingError: INVALID_ARGUMENT for a wrong name or a malformed tensor.
        """
        self.check_names(given)
        inputs = dict(known)
        for name, tensor in given.items():
            if name not in known:
                try:
                    inputs[name] = to_array(tensor)
                except TensorError as error:
                    raise invalid_argument(f"tensor parsing error: {name}: {error}") from error
        return inputs

    def check_inputs(self, given: Arrays) -> Arrays:
        """Check names and types of the inputs, and add the defaults of those that are missing.

        Shapes are left to TensorFlow, which computes many that the signature does not have.

        Returns:
            Exactly the inputs of the signature.

        Raises:
            ServingError: INVALID_ARGUMENT for a wrong name or type, or for a rank that would end the process.
        """
        self.check_names(given)
        for name, array in given.items():
            spec = self.inputs[name]
            if array.dtype != spec.numpy_dtype:
                raise invalid_argument(
                    f"Expects arg[{list(self.inputs).index(name)}] to be {spec.dtype} but "
                    f"{kind_of_dtype(array.dtype).text} is provided: input {name} ({spec.name})"
                )
            if self.fixed_ranks and spec.shape is not None and array.ndim != len(spec.shape):
                raise invalid_argument(
                    f"Shape of input {name} ({spec.name}) does not fit the signature: "
                    f"expected {shape_text(spec.shape)}, got {shape_text(array.shape)}"
                )
        if len(given) == len(self.inputs):
            return given
        return {name: given[name] if name in given else self.defaults[name] for name in self.inputs}


class ModelRef(NamedTuple):
    """The version that a request asks for, and the signature.

    Attributes:
        name: Name of the model.
        version: Its version, or `None`.
        label: Label of a version, or `None`.
        signature: Key of the signature, empty for the default.
    """

    name: str
    version: int | None = None
    label: str | None = None
    signature: str = ""

    @classmethod
    def from_proto(cls, spec: Any) -> ModelRef:
        """Read a `ModelSpec`."""
        choice = spec.WhichOneof("version_choice")
        version = spec.version.value if choice == "version" else None
        return cls(spec.name, version, spec.version_label if choice == "version_label" else None, spec.signature_name)

    def fill(self, spec: Any) -> None:
        """Write it into an empty `ModelSpec`."""
        spec.name, spec.signature_name = self.name, self.signature
        if self.version is not None:
            spec.version.value = self.version
        if self.label is not None:
            spec.version_label = self.label


class PredictRequest(NamedTuple):
    """What one request wants a leased version to compute.

    Attributes:
        signature: One of the version's signatures.
        inputs: Arrays by input name; strings as `bytes` in arrays of dtype `object`.
        output_filter: Names of the outputs that are wanted, empty for all.
    """

    signature: Signature
    inputs: Arrays
    output_filter: Sequence[str] = ()


class Model(Protocol):
    """One loaded version, whatever engine runs it. All methods may be called from several threads at once."""

    path: Path
    """Its folder."""
    engine: str
    """What decides how numbers are rounded, besides the model."""
    signatures: Mapping[str, Signature]
    definitions: Mapping[str, bytes]
    """Every serialised `SignatureDef` by its key, of those too that cannot be asked, such as the initialiser's."""

    def run(self, signature: Signature, inputs: Arrays, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Compute outputs from checked inputs.

        Args:
            signature: One of `signatures`.
            inputs: Exactly its inputs, of its types, strings as `bytes` in arrays of `object`.
            outputs: Names of outputs; all must be its.

        Raises:
            ServingError: The model refused; with the code that TensorFlow gave.
        """

    def reason_rows_mix(self, signature: Signature, outputs: Sequence[str], shapes: Shapes) -> str:
        """Look, without computing anything, for what may make samples of one call depend on each other.

        Args:
            signature: One of `signatures`.
            outputs: Names of outputs.
            shapes: Shapes of a sample.

        Returns:
            Why it is not certain that they do not; empty where it is.
        """

    def close(self) -> None:
        """Free what the model holds; nothing runs in it any more."""


def find_signature(model: Model, name: str) -> Signature:
    """Find a signature for Predict.

    Args:
        model: The model.
        name: Its key; empty for `serving_default`.

    Raises:
        ServingError: FAILED_PRECONDITION, as TensorFlow Serving answers.
    """
    signature = model.signatures.get(name or DEFAULT_SIGNATURE)
    if signature is None:
        raise failed_precondition(f'Serving signature key "{name or DEFAULT_SIGNATURE}" not found.')
    return signature


def _names(names: Mapping[str, object] | set[str]) -> str:
    return ",".join(sorted(names))


def shape_text(shape: Sequence[int | None]) -> str:
    """Write a shape as TensorFlow does: `[2,3]`, with `?` where any size will do."""
    return "[" + ",".join("?" if size is None else str(size) for size in shape) + "]"
