"""TensorFlow Lite models, run by LiteRT (the package `ai-edge-litert`, our extra `lite`).

The interpreter inside TensorFlow 2.21 computed wrong values here, so it is not used.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments_manager.serving import messages, tensors
from experiments_manager.serving.errors import Code, ServingError
from experiments_manager.serving.signatures import DEFAULT_SIGNATURE, PREDICT, Arrays, Signature, TensorSpec

logger = logging.getLogger(__name__)

MODEL_FILE = "model.tflite"
_NAMES = {"float32": "float", "float64": "double", "float16": "half", "object": "string"}
"""TensorFlow's names of types that are not NumPy's."""


class LiteModel:
    """One version of a TensorFlow Lite model. See `signatures.Model`; make one with `load`.

    An interpreter answers one request at a time, so there are as many as processors; further ones are made when needed.
    """

    def __init__(self, file: Path, interpreter: Any, copies: int) -> None:
        self._file, self._copies, self._closed = file, copies, False
        self._free: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(copies - 1):
            self._free.put(None)  # one that is not made yet
        self._free.put(interpreter)
        self.signatures: Mapping[str, Signature] = _signatures(interpreter)
        self.definitions = {name: _definition(signature) for name, signature in self.signatures.items()}

    @classmethod
    def load(cls, path: Path | str, *, copies: int | None = None) -> LiteModel:
        """Loads `model.tflite` of a version's folder.

        Args:
            path: The folder, or the file itself.
            copies: Requests that are answered at the same time; as many as processors by default.

        Raises:
            ServingError: The file is missing or damaged, or LiteRT is not installed.
        """
        file = Path(path) / MODEL_FILE if Path(path).is_dir() else Path(path)
        return cls(file, _interpreter(file), copies or os.cpu_count() or 1)

    def run(self, signature: Signature, inputs: Arrays, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Computes outputs; see `signatures.Model.run`."""
        with self._borrowed() as interpreter:
            found = _call(interpreter, signature.name, inputs)
        return {name: _plain(found[name]) for name in outputs}

    def close(self) -> None:
        """Waits for calls that are running, whose callers may have given up, and frees the interpreters."""
        self._closed = True
        for _ in range(self._copies):
            self._free.get()
        for _ in range(self._copies):
            self._free.put(None)  # for those that wait for one, which are told that there is none any more

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[Any]:
        interpreter = self._free.get()
        try:
            if self._closed:
                raise ServingError(Code.UNAVAILABLE, f"{self._file} is not served any more")
            interpreter = interpreter or _interpreter(self._file)
            yield interpreter
        finally:
            self._free.put(interpreter)


def _interpreter(file: Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f"{file} needs LiteRT, which is not installed. Run: pip install 'experiments-manager[lite]'",
        ) from error
    try:
        interpreter = Interpreter(model_path=str(file), num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError, OSError) as error:
        reason = str(error).strip() or type(error).__name__
        raise ServingError(Code.INTERNAL, f"Loading {file} failed: {reason.splitlines()[0]}") from error
    return interpreter


def _call(interpreter: Any, signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
    try:
        if signature in interpreter.get_signature_list():
            return interpreter.get_signature_runner(signature)(**inputs)
        return _call_without_signature(interpreter, inputs)
    except (ValueError, RuntimeError, TypeError) as error:
        reason = str(error).strip() or type(error).__name__
        raise ServingError(Code.INVALID_ARGUMENT, f"The model cannot run on these inputs: {reason}") from error


def _call_without_signature(interpreter: Any, inputs: Arrays) -> dict[str, np.ndarray]:
    details = {_bare(detail["name"]): detail["index"] for detail in interpreter.get_input_details()}
    for name, array in inputs.items():
        interpreter.resize_tensor_input(details[name], array.shape)
    interpreter.allocate_tensors()
    for name, array in inputs.items():
        interpreter.set_tensor(details[name], array)
    interpreter.invoke()
    return {
        _bare(detail["name"]): interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()
    }


def _signatures(interpreter: Any) -> dict[str, Signature]:
    """Reads the signatures; a file without any has one, whose inputs and outputs are named after their tensors."""
    found = {}
    for name in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(name)
        found[name] = _signature(interpreter, name, runner.get_input_details(), runner.get_output_details())
    if not found:
        inputs = {_bare(detail["name"]): detail for detail in interpreter.get_input_details()}
        outputs = {_bare(detail["name"]): detail for detail in interpreter.get_output_details()}
        found[DEFAULT_SIGNATURE] = _signature(interpreter, DEFAULT_SIGNATURE, inputs, outputs)
    if DEFAULT_SIGNATURE not in found and len(found) == 1:
        [only] = found.values()
        found[DEFAULT_SIGNATURE] = only  # it keeps the name that the interpreter knows
    return found


def _signature(
    interpreter: Any, name: str, inputs: Mapping[str, Mapping[str, Any]], outputs: Mapping[str, Mapping[str, Any]]
) -> Signature:
    given = {key: _spec(detail) for key, detail in inputs.items()}
    computed = {key: _spec(detail) for key, detail in outputs.items()}
    if _takes_any_number(interpreter, name, given, computed):
        given = {key: _with_open_batch(spec) for key, spec in given.items()}
        computed = {key: _with_open_batch(spec) for key, spec in computed.items()}
    return Signature(name, PREDICT, given, computed)


def _definition(signature: Signature) -> bytes:
    definition = messages.SignatureDef(method_name=PREDICT)
    for specs, infos in ((signature.inputs, definition.inputs), (signature.outputs, definition.outputs)):
        for key, spec in specs.items():
            infos[key].name, infos[key].dtype = spec.name, spec.number
            infos[key].tensor_shape.SetInParent()
            for size in spec.shape or ():
                infos[key].tensor_shape.dim.add(size=-1 if size is None else size)
    return definition.SerializeToString(deterministic=True)


def _takes_any_number(
    interpreter: Any, name: str, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]
) -> bool:
    """Tries whether two samples go in and come out, also where the file says one: converters write that for any."""
    if not inputs or not all(spec.shape and spec.shape[0] in (None, 1) for spec in inputs.values()):
        return False
    if any(spec.dtype == "string" for spec in inputs.values()):
        return False
    one = {key: _sample(spec, 1) for key, spec in inputs.items()}
    try:
        found = _call(interpreter, name, {key: _sample(spec, 2) for key, spec in inputs.items()})
        works = all(found[key].ndim > 0 and len(found[key]) == 2 for key in outputs)
    except ServingError:
        works = False
    with contextlib.suppress(ServingError):
        _call(interpreter, name, one)  # back to the sizes of the file
    return works


def _sample(spec: TensorSpec, size: int) -> np.ndarray:
    return np.zeros([size, *(1 if own is None else own for own in spec.shape[1:])], spec.numpy_dtype)


def _with_open_batch(spec: TensorSpec) -> TensorSpec:
    shape = (None, *spec.shape[1:]) if spec.shape else spec.shape
    return TensorSpec(spec.name, spec.dtype, spec.numpy_dtype, shape, spec.number)


def _spec(detail: Mapping[str, Any]) -> TensorSpec:
    sizes = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    dtype = np.dtype(detail["dtype"])
    dtype = np.dtype(object) if dtype.kind in "SU" else dtype
    name = _NAMES.get(dtype.name, dtype.name)
    shape = tuple(None if size < 0 else int(size) for size in sizes)
    return TensorSpec(detail["name"], name, dtype, shape, tensors.dtype_number(dtype))


def _plain(array: np.ndarray) -> np.ndarray:
    return array.astype(object) if array.dtype.kind in "SU" else array


def _bare(name: str) -> str:
    """A tensor's name without the number that converters add, as TensorFlow Serving has it."""
    return name.removesuffix(":0")
