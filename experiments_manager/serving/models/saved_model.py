"""One version of a SavedModel, loaded and ready to run.

A SavedModel of TensorFlow 1 and one of TensorFlow 2 are both a graph, a way to restore its variables, and signatures
that name tensors in it; TensorFlow Serving runs either through a session, and so do we. From Python, too, a session is
the quicker road: a prepared callable takes NumPy arrays and gives NumPy arrays with one crossing into C++, which for a
small net is five to fifteen times faster than calling the restored function.

Versions that share their graph (`graphs`), as those of one run do, cost a session and the reading of their variables,
which happen outside the interpreter's lock.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.compat.tensorflow import config_pb2, meta_graph_pb2, session_callable
from experiments_manager.protocol.status import Code, ServingError, invalid_argument
from experiments_manager.serving.models.graphs import INIT_SIGNATURE, Graph, LoadError, read_graph
from experiments_manager.serving.models.row_analysis.row_flow import reason_rows_mix
from experiments_manager.serving.models.signatures import Arrays, Shapes, Signature
from experiments_manager.serving.models.threads import Threads, processor

__all__ = ["LoadError", "LoadedModel"]

_FAULTS_OF_SHAPE = frozenset({Code.ABORTED, Code.INTERNAL, Code.UNIMPLEMENTED, Code.UNKNOWN})
"""What kernels answer besides INVALID_ARGUMENT where a shape makes no sense to them; oneDNN's are always ABORTED."""
MAX_CALLABLES = 64
"""Combinations of outputs that are prepared for one signature; others compute all and leave out."""


class LoadedModel:
    """A version of a SavedModel. See `signatures.Model`; make one with `load`."""

    def __init__(self, path: Path, graph: Graph, session: tf.compat.v1.Session, engine: str = "") -> None:
        self.path, self.engine = path, engine
        self.signatures: Mapping[str, Signature] = graph.signatures
        self.definitions: Mapping[str, bytes] = graph.definitions
        self._graph, self._session = graph, session
        self._callables: dict[tuple[str, tuple[str, ...]], _Callable] = {}
        self._preparing = threading.Lock()
        self._running: list[None] = []
        """One element for each call that runs."""
        self._closed = False
        self._idle = threading.Condition()

    @classmethod
    def load(cls, path: Path | str, *, threads: Threads | None = None) -> LoadedModel:
        """Load a SavedModel.

        Args:
            path: The version's folder, with `saved_model.pb` or `saved_model.pbtxt` in it.
            threads: How TensorFlow shares out its work.

        Raises:
            LoadError: It is damaged, has no graph for serving, or cannot be restored.
        """
        path = Path(path)
        try:
            graph = read_graph(path)
            session = tf.compat.v1.Session(graph=graph.graph, config=_session_config(threads or Threads()))
            try:
                _restore(session, graph.meta_graph, path)
            except BaseException:
                session.close()
                raise
        except LoadError:
            raise
        except tf.errors.OpError as error:
            raise LoadError(f"Loading {path} failed: {_first_line(error.message)}", Code(error.error_code)) from error
        except Exception as error:
            raise LoadError(f"Loading {path} failed: {type(error).__name__}: {_first_line(str(error))}") from error
        return cls(path, graph, session, _engine(threads or Threads()))

    def run(self, signature: Signature, inputs: Arrays, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Compute outputs; see `signatures.Model.run`."""
        # Adding to a list and taking from it are one step each, so that counting the calls that run needs no lock.
        self._running.append(None)
        try:
            if self._closed:
                raise ServingError(Code.UNAVAILABLE, f"{self.path} is not served any more")
            outputs = tuple(outputs)
            call = self._callables.get((signature.name, outputs)) or self._prepare(signature, outputs)
            values = call.function(*[inputs[name] for name in call.inputs])
        except tf.errors.OpError as error:
            code = Code(error.error_code)
            if code in _FAULTS_OF_SHAPE and not signature.fits(inputs):
                code = Code.INVALID_ARGUMENT
            raise ServingError(code, _readable(error.message)) from error
        except UnicodeDecodeError as error:  # TensorFlow's message quotes strings of the request, and its code is lost
            raise invalid_argument(_readable(error.object.decode(errors="replace"))) from error
        finally:
            self._running.pop()
            if self._closed:
                with self._idle:
                    self._idle.notify_all()
        return {name: _array(values[place]) for name, place in call.places}

    def reason_rows_mix(self, signature: Signature, outputs: Sequence[str], shapes: Shapes) -> str:
        """Look in the graph for what may mix samples; see `signatures.Model.reason_rows_mix`."""
        key, known = (signature.name, tuple(outputs), tuple(sorted(shapes.items()))), self._graph.row_reasons
        if key not in known:
            inputs = {signature.inputs[name].name: shape for name, shape in shapes.items()}
            given = {signature.outputs[name].name: name for name in outputs}
            known[key] = reason_rows_mix(self._graph.graph, inputs, given)
        return known[key]

    def prepare(self, signature: Signature) -> None:
        """Build what a call of all outputs needs, so that the first request does not wait for it."""
        self._prepare(signature, tuple(signature.outputs))

    def close(self) -> None:
        """Wait for calls that are running, whose callers may have given up, and free the variables."""
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: not self._running)
        with self._preparing:
            self._callables.clear()
            self._session.close()

    def _prepare(self, signature: Signature, outputs: tuple[str, ...]) -> _Callable:
        with self._preparing:
            if self._closed:
                raise ServingError(Code.UNAVAILABLE, f"{self.path} is not served any more")
            known = self._callables.get((signature.name, outputs))
            if known is not None:
                return known
            if len(self._callables) < MAX_CALLABLES:
                call = _Callable.make(self._session, signature, outputs)
                self._callables[signature.name, outputs] = call
                return call
            key = (signature.name, tuple(signature.outputs))
            if key not in self._callables:
                self._callables[key] = _Callable.make(self._session, signature, key[1])
            return self._callables[key].only(outputs)


@dataclasses.dataclass(frozen=True)
class _Callable:
    """A prepared call: the function, the order of its arguments, and where each output is among its results."""

    function: Any
    inputs: tuple[str, ...]
    places: tuple[tuple[str, int], ...]

    @classmethod
    def make(cls, session: tf.compat.v1.Session, signature: Signature, outputs: tuple[str, ...]) -> _Callable:
        for name, spec in [*signature.inputs.items(), *((name, signature.outputs[name]) for name in outputs)]:
            if not spec.name:
                raise ServingError(
                    Code.UNIMPLEMENTED, f"{name} of signature {signature.name} is sparse or composite, not one tensor"
                )
        tensors = list(dict.fromkeys(signature.outputs[name].name for name in outputs))
        try:
            function = session_callable(session, [spec.name for spec in signature.inputs.values()], tensors)
        except tf.errors.OpError as error:
            raise ServingError(Code(error.error_code), _readable(error.message)) from error
        places = tuple((name, tensors.index(signature.outputs[name].name)) for name in outputs)
        return cls(function, tuple(signature.inputs), places)

    def only(self, outputs: tuple[str, ...]) -> _Callable:
        """Return the same call, of which some outputs are taken."""
        places = tuple((name, place) for name, place in self.places if name in outputs)
        return dataclasses.replace(self, places=places)


def _engine(threads: Threads) -> str:
    """Return what decides how numbers are rounded, besides the graph."""
    devices = [device.device_type for device in tf.config.get_visible_devices()]
    onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "")
    parts = ["tensorflow", tf.__version__, processor(), threads.intra_op, threads.inter_op, *devices, onednn]
    return " ".join(map(str, parts))


def _array(value: Any) -> np.ndarray:
    """Return an array also of a scalar, which a session gives as a plain value, strings as `bytes`."""
    if isinstance(value, np.ndarray):
        return value
    return np.array(value, object if isinstance(value, bytes) else None)


def _session_config(threads: Threads) -> config_pb2.ConfigProto:
    config = config_pb2.ConfigProto(
        intra_op_parallelism_threads=threads.intra_op,
        inter_op_parallelism_threads=threads.inter_op,
        allow_soft_placement=True,
    )
    config.gpu_options.allow_growth = True
    return config


def _restore(session: tf.compat.v1.Session, meta_graph: meta_graph_pb2.MetaGraphDef, path: Path) -> None:
    """Read variables and run the initialisers, as TensorFlow's own loader in C++ does."""
    assets = _assets(meta_graph, path)
    prefix = path / "variables" / "variables"
    saver = meta_graph.saver_def
    if saver.restore_op_name and prefix.with_suffix(".index").exists():
        session.run(saver.restore_op_name, {saver.filename_tensor_name: str(prefix), **assets})
    elif saver.restore_op_name and _has_variables(session.graph):
        text = f"The variables of {path} are missing: there is no {prefix.name}.index in {prefix.parent}"
        raise LoadError(text, Code.NOT_FOUND)
    initialiser = _initialiser(meta_graph)
    if initialiser:
        session.run(initialiser, assets)


def _has_variables(graph: tf.Graph) -> bool:
    names = {"VarHandleOp", "VariableV2", "Variable"}
    return any(operation.type in names for operation in graph.get_operations())


def _assets(meta_graph: meta_graph_pb2.MetaGraphDef, path: Path) -> dict[str, str]:
    definitions = list(meta_graph.asset_file_def)
    if not definitions:
        for value in meta_graph.collection_def["saved_model_assets"].any_list.value:
            definition = meta_graph_pb2.AssetFileDef()
            value.Unpack(definition)
            definitions.append(definition)
    return {definition.tensor_info.name: str(path / "assets" / definition.filename) for definition in definitions}


def _initialiser(meta_graph: meta_graph_pb2.MetaGraphDef) -> str | None:
    if INIT_SIGNATURE in meta_graph.signature_def:
        name = meta_graph.signature_def[INIT_SIGNATURE].outputs[INIT_SIGNATURE].name
        return name.split(":")[0]
    for key in ("saved_model_main_op", "legacy_init_op"):
        if key in meta_graph.collection_def and meta_graph.collection_def[key].node_list.value:
            return meta_graph.collection_def[key].node_list.value[0]
    return None


def _readable(message: str) -> str:
    """Return TensorFlow's message without its list of the places where each operation was defined."""
    message = message.removeprefix("Graph execution error:")  # the reason follows
    return message.split("\n\nOriginal stack trace")[0].split("\n\nErrors may have originated")[0].strip()


def _first_line(message: str) -> str:
    return next(iter(_readable(message).splitlines()), "no reason was given")
