"""Requests that a model server sends to a new version before anybody else does.

The file `assets.extra/tf_serving_warmup_requests` is a TFRecord of `tensorflow.serving.PredictionLog` messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from experiments_manager.export.servable import Servable
from experiments_manager.protocol import messages, tensors

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
BATCH = 8
"""Samples of the larger request: a graph may well take other paths for several samples than for one."""
MAX_BYTES = 4 * 2**20
"""Bytes of inputs above which only one sample is sent; each version holds a copy of the file."""


def warmup_requests(servable: Servable, batch: Any) -> list[dict[str, tf.Tensor]]:
    """Make the inputs of the requests: one sample, and several where the function takes any number.

    Args:
        servable: What will be served.
        batch: A batch of data, `x` or a tuple that begins with it.

    Returns:
        Inputs by name, for each request.
    """
    leading = {spec.shape[0] for spec in servable.inputs.values() if spec.shape.rank}
    if leading != {None}:  # it takes a certain number of samples only
        return [servable.probe(batch, max((size for size in leading if size), default=1))]
    requests = [servable.probe(batch, 1), servable.probe(batch, BATCH)]
    if sum(tensor.shape.num_elements() * tensor.dtype.size for tensor in requests[1].values()) > MAX_BYTES:
        del requests[1]
    return requests


def write_warmup_requests(
    saved_model: Path, requests: Sequence[Mapping[str, tf.Tensor]], model_name: str, signature: str = "serving_default"
) -> None:
    """Write the file into a SavedModel.

    Args:
        saved_model: Its folder.
        requests: Inputs by name, for each request.
        model_name: What the model is called; servers read the name of the signature alone.
        signature: The signature that is asked.

    Raises:
        OSError: It cannot be written.
    """
    if not requests:
        return
    file = saved_model / WARMUP_FILE
    file.parent.mkdir(exist_ok=True)
    try:
        with tf.io.TFRecordWriter(str(file)) as writer:
            for inputs in requests:
                writer.write(_prediction_log(inputs, model_name, signature))
    except tf.errors.OpError as error:
        raise OSError(f"{file}: {error.message}") from error


def _prediction_log(inputs: Mapping[str, tf.Tensor], model_name: str, signature: str) -> bytes:
    log = messages.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = model_name, signature
    for name, tensor in inputs.items():
        tensors.to_proto(tensor.numpy(), request.inputs[name])
    return log.SerializeToString(deterministic=True)
