"""The servers that `serving.py` compares, each as a process: `python serving_servers.py KIND MODEL_DIR PORT`.

`batched` and `unbatched` are the embedded engine; `echo` is a bare `grpc.aio` servicer that sends back what it gets;
`plain` is a `grpc.aio` servicer as one would write it with TensorFlow's own helpers. Each prints `ready` when it
listens.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def embedded(base_path: Path, port: int, *, batching: bool, poll_seconds: float = 0.1) -> None:
    """Run the engine of this package."""
    from experiments_manager.serving.api.grpc_server import GrpcOptions
    from experiments_manager.serving.batching.scheduler import BatchingOptions
    from experiments_manager.serving.models.loader import LoadingOptions
    from experiments_manager.serving.models.version_policy import ModelConfig
    from experiments_manager.serving.server.server import ServerOptions, run_server

    options = ServerOptions(
        [ModelConfig("model", base_path)],
        GrpcOptions(port=port),
        batching=BatchingOptions(max_batch_size=64) if batching else None,
        loading=LoadingOptions(poll_seconds=poll_seconds),
    )
    run_server(options, on_ready=lambda server: print("ready", flush=True))


def echo(base_path: Path, port: int) -> None:
    """Do as little as a `grpc.aio` server can do."""
    import grpc

    async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return request

    asyncio.run(_serve_grpc(port, grpc.unary_unary_rpc_method_handler(answer)))


def plain(base_path: Path, port: int) -> None:
    """TensorFlow's own loading, `tf.make_ndarray` and `tf.make_tensor_proto`, one call a request."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    model = tf.saved_model.load(str(base_path / "1"))
    function = model.signatures["serving_default"]

    async def answer(request: predict_pb2.PredictRequest, context: grpc.aio.ServicerContext) -> object:
        inputs = {name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        for name, value in function(**inputs).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
        return response

    handler = grpc.unary_unary_rpc_method_handler(
        answer, predict_pb2.PredictRequest.FromString, predict_pb2.PredictResponse.SerializeToString
    )
    asyncio.run(_serve_grpc(port, handler))


async def _serve_grpc(port: int, handler: object) -> None:
    import grpc

    class Services(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> object:
            return handler

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((Services(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


KINDS = {
    "batched": lambda path, port: embedded(path, port, batching=True),
    "unbatched": lambda path, port: embedded(path, port, batching=False),
    "echo": echo,
    "plain": plain,
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
