"""A model server that does what it is told, to see what a client makes of it: `y = 2 x`, after a delay, or an error.

In a test, `FakeServer` runs in the process itself; `python fake_model_server.py PORT VERSION SECONDS` is one that can
be killed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np

from experiments_manager.protocol import messages, tensors

SERVICE = "tensorflow.serving.PredictionService"


class FakeServer:
    """Serves the model `double`: input `x` float32 [any, 2], outputs `y` = 2 `x` and `name`, a string for each row.

    Attributes:
        version: The version that answers.
        misbehave: Called with the number of the Predict request (from 0) and gRPC's context before it is answered.
        seen: The first element of `x` of each request, in the order of their coming.
        metadata: Invocation metadata of the last request.
        input_name: Name of the input.
        bad_answer: Whether answers are of a type that cannot be sent.
        default_input: Name of a further input, which may be left out; empty for none.
        at_once, most_at_once: How many Predict requests are being answered, and how many were at the most.
    """

    def __init__(self, port: int = 0, version: int = 1, credentials: Any = None, workers: int = 32) -> None:
        self.version, self.input_name = version, "x"
        self.misbehave: Callable[[int, grpc.ServicerContext], None] = lambda number, context: None
        self.seen: list[float] = []
        self.metadata: dict[str, Any] = {}
        self.bad_answer, self.default_input = False, ""
        self.at_once = self.most_at_once = self.count = 0
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._server = grpc.server(ThreadPoolExecutor(workers), options=[*unlimited, ("grpc.so_reuseport", 0)])
        methods = {
            "Predict": (self._predict, messages.raw.PredictRequest),
            "GetModelMetadata": (self._metadata, messages.GetModelMetadataRequest),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                method,
                request_deserializer=kind.FromString,
                response_serializer=lambda reply: reply.SerializeToString(),
            )
            for name, (method, kind) in methods.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        host = f"127.0.0.1:{port}"
        bound = self._server.add_secure_port(host, credentials) if credentials else self._server.add_insecure_port(host)
        self.address = f"127.0.0.1:{bound}"
        self._server.start()

    def stop(self) -> None:
        """Stops at once."""
        self._server.stop(None).wait()

    def wait(self) -> None:
        """Serves for ever."""
        self._server.wait_for_termination()

    def _predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        number, self.count = self.count, self.count + 1
        self.metadata = dict(context.invocation_metadata())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.misbehave(number, context)
        finally:
            self.at_once -= 1
        if set(request.inputs) != {self.input_name}:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "input tensor alias not found in signature.")
        x = tensors.to_array(request.inputs[self.input_name])
        self.seen.append(float(x.flat[0]) if x.size else -1.0)
        reply = messages.raw.PredictResponse()
        reply.model_spec.name = request.model_spec.name
        reply.model_spec.version.value = self.version
        tensors.to_proto(2 * x, reply.outputs["y"], typed=True)
        tensors.to_proto(np.array([f"row {row[0]:g}" for row in x.reshape(len(x), -1)], object), reply.outputs["name"])
        if self.bad_answer:
            reply.outputs["y"].dtype = 11  # DT_QINT8
        return reply

    def _metadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.model_spec.name != "double":
            details = f"Servable not found for request: Latest({request.model_spec.name})"
            context.abort(grpc.StatusCode.NOT_FOUND, details)
        signatures = messages.SignatureDefMap()
        signature = signatures.signature_def["serving_default"]
        for tensor, dtype, sizes in (
            (signature.inputs[self.input_name], 1, (-1, 2)),
            (signature.outputs["y"], 1, (-1, 2)),
            (signature.outputs["name"], 7, (-1,)),
        ):
            tensor.dtype = dtype
            for size in sizes:
                tensor.tensor_shape.dim.add(size=size)
        if self.default_input:
            signature.inputs[self.default_input].dtype = 1
            tensors.to_proto(np.float32(0.5), signature.defaults[self.default_input])
        signatures.signature_def["__saved_model_init_op"].SetInParent()  # as every SavedModel of TensorFlow 2 has it
        reply = messages.GetModelMetadataResponse()
        reply.model_spec.version.value = self.version
        reply.metadata["signature_def"].Pack(signatures)
        return reply


if __name__ == "__main__":
    server = FakeServer(int(sys.argv[1]), int(sys.argv[2]))
    server.misbehave = lambda number, context: time.sleep(float(sys.argv[3]))
    print(server.address, flush=True)
    server.wait()
