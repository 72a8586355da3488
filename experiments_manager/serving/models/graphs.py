"""The graph of a SavedModel, and the signatures that it has; versions that share it byte for byte have it once."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from experiments_manager.compat.tensorflow import meta_graph_pb2, saved_model_pb2
from experiments_manager.protocol.status import Code, ServingError
from experiments_manager.serving.models.row_analysis.graph_checks import has_loops, reason_to_run_alone
from experiments_manager.serving.models.signatures import Signature, TensorSpec

TAG = "serve"
BINARY, TEXT = "saved_model.pb", "saved_model.pbtxt"
"""A SavedModel is one of these files; the first counts."""
INIT_SIGNATURE = "__saved_model_init_op"
TRAIN_SIGNATURE = "__saved_model_train_op"
_OF_FIXED_RANK = re.compile("Conv(?!ert)|Pool|Quant")
"""Operations among whose kernels are some that end the process where what they get has another rank: found by trying
fifty kinds of operation with TensorFlow 2.21, of which the others refuse it. No other shapes did."""


class LoadError(ServingError):
    """A version cannot be loaded; the message says why, and the code is the one that TensorFlow's own loader has."""

    def __init__(self, message: str, code: Code = Code.INTERNAL) -> None:
        super().__init__(code, message)


@dataclasses.dataclass(eq=False)
class Graph:
    """What versions share: the graph, and what the SavedModel says of it.

    Attributes:
        graph: The graph.
        meta_graph: The rest of the SavedModel.
        signatures: What can be asked.
        definitions: Every serialised `SignatureDef` by its key.
        row_reasons: What it tells of samples that may mix, by what is asked; see `row_flow`.
    """

    graph: tf.Graph
    meta_graph: meta_graph_pb2.MetaGraphDef
    signatures: dict[str, Signature]
    definitions: dict[str, bytes]
    row_reasons: dict[Any, str] = dataclasses.field(default_factory=dict)


_graphs: weakref.WeakValueDictionary[bytes, Graph] = weakref.WeakValueDictionary()
_graphs_lock = threading.Lock()


def read_graph(path: Path) -> Graph:
    """Read the graph of a version, or find it where another version brought the same one.

    Args:
        path: The version's folder.

    Raises:
        LoadError: It is missing, damaged, or not for serving.
    """
    file = path / BINARY
    if not file.exists() and (path / TEXT).exists():
        file = path / TEXT
    try:
        content = file.read_bytes()
    except OSError as error:
        raise LoadError(
            f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}: {error.strerror}",
            Code.NOT_FOUND,
        ) from error
    # The graph is by far the slower part of a load, and holds the interpreter's lock; versions of one run share it.
    digest = hashlib.sha256(file.name.encode() + b"/" + hashlib.sha256(content).digest()).digest()
    with _graphs_lock:
        known = _graphs.get(digest)
        if known is None:
            known = _graphs[digest] = _import_graph(_parsed(content, file), path)
        return known


def _parsed(content: bytes, file: Path) -> saved_model_pb2.SavedModel:
    try:
        if file.name == TEXT:
            return text_format.Parse(content, saved_model_pb2.SavedModel())
        return saved_model_pb2.SavedModel.FromString(content)
    except Exception as error:
        form = "text" if file.name == TEXT else "binary"
        text = f"Can't parse {file} as {form} proto: it is damaged or not whole"
        raise LoadError(text, Code.DATA_LOSS) from error


def _import_graph(saved_model: saved_model_pb2.SavedModel, path: Path) -> Graph:
    tags = [sorted(meta_graph.meta_info_def.tags) for meta_graph in saved_model.meta_graphs]
    servable = [meta_graph for meta_graph in saved_model.meta_graphs if list(meta_graph.meta_info_def.tags) == [TAG]]
    if not servable:
        raise LoadError(
            f"Could not find meta graph def matching supplied tags: {{ {TAG} }} in {path}. "
            f"Expected a graph exported for serving, got the tags {tags}",
            Code.NOT_FOUND,
        )
    meta_graph = servable[0]
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(meta_graph.graph_def, name="")
    graph.finalize()
    fixed_ranks = _has_operation_of_fixed_rank(meta_graph.graph_def)
    signatures = {
        name: _signature(name, definition, graph, meta_graph.graph_def, fixed_ranks=fixed_ranks)
        for name, definition in sorted(meta_graph.signature_def.items())
        if name not in (INIT_SIGNATURE, TRAIN_SIGNATURE)
    }
    meta_graph.graph_def.Clear()  # it lives on in the graph
    definitions = {
        name: definition.SerializeToString(deterministic=True)
        for name, definition in sorted(meta_graph.signature_def.items())
    }
    meta_graph.object_graph_def.Clear()
    return Graph(graph, meta_graph, signatures, definitions)


def _has_operation_of_fixed_rank(graph_def: Any) -> bool:
    bodies = [graph_def.node, *(function.node_def for function in graph_def.library.function)]
    types = {node.op for nodes in bodies for node in nodes}
    return any(map(_OF_FIXED_RANK.search, types))


def _signature(
    name: str, definition: meta_graph_pb2.SignatureDef, graph: tf.Graph, graph_def: Any, *, fixed_ranks: bool
) -> Signature:
    outputs = [info.name for info in definition.outputs.values()]
    return Signature(
        name=name,
        method_name=definition.method_name,
        inputs={key: _spec(info, _dtype_in(graph, info)) for key, info in sorted(definition.inputs.items())},
        outputs={key: _spec(info) for key, info in sorted(definition.outputs.items())},
        defaults={key: tf.make_ndarray(value) for key, value in definition.defaults.items()},
        fixed_ranks=fixed_ranks,
        alone=reason_to_run_alone(graph_def, outputs),
        loops=has_loops(graph_def, outputs),
    )


def _dtype_in(graph: tf.Graph, info: meta_graph_pb2.TensorInfo) -> tf.DType | None:
    """Return the type of the tensor that is fed: signatures converted from older formats may name another one."""
    try:
        return graph.get_tensor_by_name(info.name).dtype.base_dtype
    except (KeyError, ValueError):  # a signature of several tensors, or of one that does not exist
        return None


def _spec(info: meta_graph_pb2.TensorInfo, fed: tf.DType | None = None) -> TensorSpec:
    dtype = fed or tf.dtypes.as_dtype(info.dtype)
    shape = None
    if not info.tensor_shape.unknown_rank:
        shape = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
    try:
        numpy_dtype = np.dtype(dtype.as_numpy_dtype)
    except (TypeError, KeyError):
        numpy_dtype = np.dtype(object)
    text = {"float32": "float", "float64": "double", "float16": "half"}.get(dtype.name, dtype.name)
    return TensorSpec(info.name, text, numpy_dtype, shape, dtype.as_datatype_enum)
