"""TensorFlow Lite models, run by LiteRT (the package `ai-edge-litert`, our extra `lite`).

The interpreter inside TensorFlow 2.21 computed wrong values here, so it is not used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import mmap
import os
import queue
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from experiments_manager.common.installation import install_command
from experiments_manager.protocol import messages
from experiments_manager.protocol.dtypes import dtype_number
from experiments_manager.protocol.status import Code, ServingError, invalid_argument
from experiments_manager.serving.models.signatures import (
    DEFAULT_SIGNATURE,
    PREDICT,
    Arrays,
    Shapes,
    Signature,
    TensorSpec,
)
from experiments_manager.serving.models.threads import processor

_ENTRY = b"signature_defs_metadata"


def read_definitions(file: Path, inputs: Collection[str], outputs: Collection[str]) -> dict[str, Any]:
    """Read the signatures of a file.

    Args:
        file: The file.
        inputs: Names of the model's input tensors.
        outputs: Names of its output tensors.

    Returns:
        `SignatureDef` messages by key, whose tensors have the names that they have in the file; empty without any.

    Raises:
        ServingError: INVALID_ARGUMENT for metadata that is damaged, INTERNAL where it names another tensor.
    """
    try:
        definitions = dict(_definitions(file))
    except Exception as error:  # whatever the readers of flat buffers come up with
        reason = f"{type(error).__name__}: {error}"
        raise invalid_argument(f"Invalid SignatureDefs found in TfLite model: {file}: {reason}") from error
    for definition in definitions.values():
        for infos, known, side in ((definition.inputs, inputs, "input"), (definition.outputs, outputs, "output")):
            for alias, info in infos.items():
                info.name = _name_in(known, info.name, f"{file}: Signature {side} {alias}")
    return definitions


def bare_names(names: Collection[str]) -> dict[str, str]:
    """Return the names that tensors have in a signature made up for them: without the number after a colon.

    Args:
        names: Names of tensors.

    Returns:
        Names of tensors by those names; where two would have the same, by themselves.
    """
    bare = [name.partition(":")[0] for name in names]
    return {short if bare.count(short) == 1 else name: name for short, name in zip(bare, names, strict=True)}


def _definitions(file: Path) -> Iterator[tuple[str, Any]]:
    from flatbuffers import flexbuffers

    packed = _packed_definitions(file)
    if not packed:
        return
    packed_map = flexbuffers.GetRoot(packed).AsMap
    for key, value in zip(packed_map.Keys, packed_map.Values, strict=True):
        content = value.AsBlob if value.IsBlob else value.AsStringBytes
        yield key.AsKey, messages.SignatureDef.FromString(content)


def _packed_definitions(file: Path) -> bytes:
    from ai_edge_litert.schema_py_generated import Model

    with file.open("rb") as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)  # weights need not be read
    model = Model.GetRootAs(content, 0)
    for number in range(model.MetadataLength()):
        entry = model.Metadata(number)
        if entry.Name() == _ENTRY:
            return bytes(model.Buffers(entry.Buffer()).DataAsNumpy())
    return b""


def _name_in(known: Collection[str], name: str, what: str) -> str:
    for candidate in (name, name.partition(":")[0]):
        if candidate in known:
            return candidate
    raise ServingError(Code.INTERNAL, f"{what} references an unknown tensor: Unknown tensor '{name}'.")


logger = logging.getLogger(__name__)

MODEL_FILE = "model.tflite"
_NAMES = {"float32": "float", "float64": "double", "float16": "half", "object": "string"}
"""TensorFlow's names of types that are not NumPy's."""


class LiteModel:
    """One version of a TensorFlow Lite model. See `signatures.Model`; make one with `load`.

    An interpreter answers one request at a time, so there are as many as processors; further ones are made when needed.
    """

    signatures: Mapping[str, Signature]
    definitions: Mapping[str, bytes]

    def __init__(self, file: Path, interpreter: Any, copies: int) -> None:
        self._file, self._copies, self._closed = file, copies, False
        self.path, self.engine = file.parent, f"litert {_litert_version()} {processor()}"
        self._free: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(copies - 1):
            self._free.put(None)  # one that is not made yet
        self._free.put(interpreter)
        self.signatures, self.definitions = _signatures(interpreter, file)

    @classmethod
    def load(cls, path: Path | str, *, copies: int | None = None) -> LiteModel:
        """Load `model.tflite` of a version's folder.

        Args:
            path: The folder, or the file itself.
            copies: Requests that are answered at the same time; as many as processors by default.

        Raises:
            ServingError: The file is missing or damaged, or LiteRT is not installed.
        """
        file = Path(path) / MODEL_FILE if Path(path).is_dir() else Path(path)
        return cls(file, _interpreter(file), copies or os.cpu_count() or 1)

    def run(self, signature: Signature, inputs: Arrays, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Compute outputs; see `signatures.Model.run`."""
        with self._free_interpreter() as interpreter:
            computed = _call(interpreter, signature, inputs)
        return {name: _plain(computed[name]) for name in outputs}

    def reason_rows_mix(self, signature: Signature, outputs: Sequence[str], shapes: Shapes) -> str:
        """Tell that the graph of a TensorFlow Lite model is not read; see `signatures.Model.reason_rows_mix`."""
        return "the graph of a TensorFlow Lite model is not read for what may mix samples"

    def close(self) -> None:
        """Wait for calls that are running, whose callers may have given up, and free the interpreters."""
        self._closed = True
        for _ in range(self._copies):
            self._free.get()
        for _ in range(self._copies):
            self._free.put(None)  # for those that wait for one, which then find none any more

    @contextlib.contextmanager
    def _free_interpreter(self) -> Iterator[Any]:
        interpreter = self._free.get()
        try:
            if self._closed:
                raise ServingError(Code.UNAVAILABLE, f"{self._file} is not served any more")
            interpreter = interpreter or _interpreter(self._file)
            yield interpreter
        finally:
            self._free.put(interpreter)


def _litert_version() -> str:
    try:
        return metadata.version("ai-edge-litert")
    except metadata.PackageNotFoundError:
        return ""


def _interpreter(file: Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f"{file} needs LiteRT, which is not installed. Run: {install_command('lite')}",
        ) from error
    try:
        interpreter = Interpreter(model_path=str(file), num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError, OSError) as error:
        reason = str(error).strip() or type(error).__name__
        raise ServingError(Code.INTERNAL, f"Loading {file} failed: {reason.splitlines()[0]}") from error
    return interpreter


def _call(interpreter: Any, signature: Signature, inputs: Arrays) -> dict[str, np.ndarray]:
    try:
        if isinstance(signature, _ConvertersSignature):
            return interpreter.get_signature_runner(signature.name)(**inputs)
        return _call_by_tensors(interpreter, signature, inputs)
    except (ValueError, RuntimeError, TypeError) as error:
        reason = str(error).strip() or type(error).__name__
        raise ServingError(Code.INVALID_ARGUMENT, f"The model cannot run on these inputs: {reason}") from error


def _call_by_tensors(interpreter: Any, signature: Signature, inputs: Arrays) -> dict[str, np.ndarray]:
    places = {detail["name"]: detail["index"] for detail in interpreter.get_input_details()}
    given = {places[signature.inputs[key].name]: array for key, array in inputs.items()}
    for place, array in given.items():
        interpreter.resize_tensor_input(place, array.shape)
    interpreter.allocate_tensors()
    for place, array in given.items():
        interpreter.set_tensor(place, array)
    interpreter.invoke()
    places = {detail["name"]: detail["index"] for detail in interpreter.get_output_details()}
    return {key: interpreter.get_tensor(places[spec.name]) for key, spec in signature.outputs.items()}


class _ConvertersSignature(Signature):
    """A signature that the converter wrote, by which the interpreter itself can be asked."""


def _signatures(interpreter: Any, file: Path) -> tuple[dict[str, Signature], dict[str, bytes]]:
    """Read the signatures: those of the metadata, else those of the converter, else one of the tensors themselves."""
    inputs = {detail["name"]: detail for detail in interpreter.get_input_details()}
    outputs = {detail["name"]: detail for detail in interpreter.get_output_details()}
    signatures: dict[str, Signature] = {}
    if described := read_definitions(file, inputs, outputs):
        for key, definition in described.items():
            given = {alias: inputs[info.name] for alias, info in definition.inputs.items()}
            computed = {alias: outputs[info.name] for alias, info in definition.outputs.items()}
            signatures[key] = _signature(
                interpreter, Signature(key, definition.method_name, _specs(given), _specs(computed))
            )
        return signatures, {key: one.SerializeToString(deterministic=True) for key, one in described.items()}
    for key in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(key)
        given, computed = _specs(runner.get_input_details()), _specs(runner.get_output_details())
        signatures[key] = _signature(interpreter, _ConvertersSignature(key, PREDICT, given, computed))
    if not signatures:
        given = {alias: inputs[name] for alias, name in bare_names(inputs).items()}
        computed = {alias: outputs[name] for alias, name in bare_names(outputs).items()}
        only = Signature(DEFAULT_SIGNATURE, PREDICT, _specs(given), _specs(computed))
        signatures[DEFAULT_SIGNATURE] = _signature(interpreter, only)
    if DEFAULT_SIGNATURE not in signatures and len(signatures) == 1:
        [signatures[DEFAULT_SIGNATURE]] = signatures.values()  # it keeps the name that the interpreter knows
    return signatures, {key: _definition(one) for key, one in signatures.items()}


def _signature(interpreter: Any, signature: Signature) -> Signature:
    """Return the signature with an open number of samples, where the model takes any."""
    if not _takes_any_number(interpreter, signature):
        return signature
    sides = {
        side: {key: _with_open_batch(spec) for key, spec in getattr(signature, side).items()}
        for side in ("inputs", "outputs")
    }
    return dataclasses.replace(signature, **sides)


def _definition(signature: Signature) -> bytes:
    definition = messages.SignatureDef(method_name=PREDICT)
    for specs, infos in ((signature.inputs, definition.inputs), (signature.outputs, definition.outputs)):
        for key, spec in specs.items():
            infos[key].name, infos[key].dtype = spec.name, spec.number
            infos[key].tensor_shape.SetInParent()
            for size in spec.shape or ():
                infos[key].tensor_shape.dim.add(size=-1 if size is None else size)
    return definition.SerializeToString(deterministic=True)


def _takes_any_number(interpreter: Any, signature: Signature) -> bool:
    """Try whether two samples go in and come out, also where the file says one: converters write that for any."""
    inputs = signature.inputs
    if not inputs or not all(spec.shape and spec.shape[0] in (None, 1) for spec in inputs.values()):
        return False
    if any(spec.dtype == "string" for spec in inputs.values()):
        return False
    one = {key: _sample(spec, 1) for key, spec in inputs.items()}
    try:
        computed = _call(interpreter, signature, {key: _sample(spec, 2) for key, spec in inputs.items()})
        works = all(computed[key].ndim > 0 and len(computed[key]) == 2 for key in signature.outputs)
    except ServingError:
        works = False
    with contextlib.suppress(ServingError):
        _call(interpreter, signature, one)  # back to the sizes of the file
    return works


def _sample(spec: TensorSpec, size: int) -> np.ndarray:
    return np.zeros([size, *(1 if own is None else own for own in spec.shape[1:])], spec.numpy_dtype)


def _with_open_batch(spec: TensorSpec) -> TensorSpec:
    shape = (None, *spec.shape[1:]) if spec.shape else spec.shape
    return TensorSpec(spec.name, spec.dtype, spec.numpy_dtype, shape, spec.number)


def _specs(details: Mapping[str, Mapping[str, Any]]) -> dict[str, TensorSpec]:
    return {key: _spec(detail) for key, detail in details.items()}


def _spec(detail: Mapping[str, Any]) -> TensorSpec:
    sizes = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    dtype = np.dtype(detail["dtype"])
    dtype = np.dtype(object) if dtype.kind in "SU" else dtype
    name = _NAMES.get(dtype.name, dtype.name)
    shape = tuple(None if size < 0 else int(size) for size in sizes)
    return TensorSpec(detail["name"], name, dtype, shape, dtype_number(dtype))


def _plain(array: np.ndarray) -> np.ndarray:
    return array.astype(object) if array.dtype.kind in "SU" else array
