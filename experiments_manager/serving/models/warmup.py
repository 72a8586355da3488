"""Warming a version up before anybody asks it: with the requests that it brings along, or with zeros.

The requests are those of TensorFlow Serving: `assets.extra/tf_serving_warmup_requests`, a TFRecord of `PredictionLog`
messages. One that fails keeps the version from being served, as there. The zeros only try.
"""

from __future__ import annotations

import itertools
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from experiments_manager.protocol import messages
from experiments_manager.protocol.status import Code, ServingError, invalid_argument
from experiments_manager.serving.models import example_signatures
from experiments_manager.serving.models.signatures import Arrays, Model, Signature, TensorSpec, find_signature

logger = logging.getLogger(__name__)

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000
"""Requests in a file at most, as in TensorFlow Serving."""
_MAX_ZEROS = 64 * 2**20
"""Bytes of zeros that are made up at most."""


def warm_up(model: Model, path: Path) -> int:
    """Let a model answer what it will be asked.

    Args:
        model: The loaded version.
        path: Its folder.

    Returns:
        How many requests it answered.

    Raises:
        ServingError: The file is damaged, or the model fails on one of its requests.
    """
    file = path / WARMUP_FILE
    if not file.is_file():
        return _warm_up_with_zeros(model)
    count = 0
    for record in read_records(file):
        if count == MAX_RECORDS:
            raise invalid_argument(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}")
        try:
            log = messages.raw.PredictionLog.FromString(record)
        except DecodeError as error:
            raise invalid_argument(f"Failed to parse warmup record: {count} of {file}") from error
        _replay(model, log)
        count += 1
    logger.info("Warmed up %s with %d requests", path, count)
    return count


def recorded_inputs(model: Model, path: Path) -> Iterator[tuple[str, Arrays]]:
    """Yield the name of the signature and the inputs of each request for Predict that a version brings along.

    Raises:
        ServingError: The file is damaged, or a request does not fit the model.
        OSError: It cannot be read.
    """
    file = path / WARMUP_FILE
    for record in itertools.islice(read_records(file), MAX_RECORDS) if file.is_file() else ():
        log = messages.raw.PredictionLog.FromString(record)
        if log.WhichOneof("log_type") == "predict_log":
            request = log.predict_log.request
            signature = find_signature(model, request.model_spec.signature_name)
            yield signature.name, signature.check_inputs(signature.read_inputs(request.inputs, {}))


def read_records(file: Path) -> Iterator[bytes]:
    """Read a TFRecord file: each record is its length (8 bytes), a checksum (4), its content, and another checksum.

    Raises:
        ServingError: DATA_LOSS where it ends within a record.
    """
    with file.open("rb") as stream:
        size = file.stat().st_size
        while header := stream.read(12):
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else size
            if stream.tell() + length + 4 > size:
                raise ServingError(Code.DATA_LOSS, f"{file} is cut off within a record")
            yield stream.read(length)
            stream.read(4)


def _replay(model: Model, log: Any) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        request = log.predict_log.request
        signature = find_signature(model, request.model_spec.signature_name)
        inputs = signature.check_inputs(signature.read_inputs(request.inputs, {}))
        model.run(signature, inputs, signature.select_outputs(request.output_filter))
    elif kind == "classify_log":
        request = log.classify_log.request
        signature = example_signatures.find(model, request.model_spec, example_signatures.CLASSIFICATION)
        _replay_examples(model, signature, example_signatures.CLASSIFICATION, request.input)
    elif kind == "regress_log":
        request = log.regress_log.request
        signature = example_signatures.find(model, request.model_spec, example_signatures.REGRESSION)
        _replay_examples(model, signature, example_signatures.REGRESSION, request.input)
    elif kind == "multi_inference_log":
        request = log.multi_inference_log.request
        for signature, of in example_signatures.check_tasks(model, request.tasks):
            _replay_examples(model, signature, of, request.input)
    elif kind is not None:
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")


def _replay_examples(model: Model, signature: Signature, kind: example_signatures.ExampleTask, given: Any) -> None:
    inputs = signature.check_inputs({"inputs": example_signatures.serialize(given)})
    model.run(signature, inputs, kind.outputs_of(signature))


def _warm_up_with_zeros(model: Model) -> int:
    """Ask every signature once; those that compute the same tensors only once together."""
    asked: set[tuple[str, ...]] = set()
    for signature in model.signatures.values():
        tensors_of = tuple(sorted(spec.name for spec in [*signature.inputs.values(), *signature.outputs.values()]))
        inputs = _zeros(signature)
        if inputs is None or tensors_of in asked:
            continue
        try:
            model.run(signature, inputs, tuple(signature.outputs))
        except ServingError as error:  # zeros need not be a request that makes sense
            logger.info("Warming up signature %s with zeros failed: %s", signature.name, error)
            continue
        asked.add(tensors_of)
    return len(asked)


def _zeros(signature: Signature) -> dict[str, np.ndarray] | None:
    """Make one sample of zeros and empty strings; `None` where the shape is open."""
    arrays: dict[str, np.ndarray] = {}
    for name, spec in signature.inputs.items():
        if spec.shape is None or _size(spec) * max(1, spec.numpy_dtype.itemsize) > _MAX_ZEROS:
            return None
        shape = [1 if size is None else size for size in spec.shape]
        arrays[name] = np.full(shape, b"", object) if spec.dtype == "string" else np.zeros(shape, spec.numpy_dtype)
    return arrays


def _size(spec: TensorSpec) -> int:
    return int(np.prod([1 if size is None else size for size in spec.shape or ()], dtype=np.float64))
