"""Show which files of the package one gRPC Predict and one REST predict visit, from bytes in to bytes out.

    python tools/trace_request.py

A server runs in this process with a model that computes 2 x + 1. Of each API some requests are sent one after the
other, of which the one is shown that visits the fewest files (a request that the system interrupts for long goes to a
thread, as those for slow models do), then some at once, which share a batch. Control enters a file when a function of
it is called, or resumed, from another one.
"""

from __future__ import annotations

import asyncio
import collections
import http.client
import struct
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parents[1]))

import experiments_manager

ROOT = str(Path(experiments_manager.__file__).parent) + "/"
ONE_BY_ONE, TOGETHER = 24, 4
GRPC_METHOD = "/tensorflow.serving.PredictionService/Predict"


class Trace:
    """Counts how often control enters each file of the package while it is on."""

    def __init__(self) -> None:
        self.on = False
        self.entries: collections.Counter[str] = collections.Counter()
        sys.setprofile(self)
        threading.setprofile(self)

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Note a call; see `sys.setprofile`."""
        name = frame.f_code.co_filename
        if self.on and event == "call" and name.startswith(ROOT) and name != _caller(frame):
            self.entries[name.removeprefix(ROOT)] += 1

    def taken(self) -> collections.Counter[str]:
        """Return what was counted, and begin again."""
        taken, self.entries = self.entries, collections.Counter()
        return taken


def report(title: str, entries: collections.Counter[str]) -> None:
    """Print what was counted."""
    print(f"{title}: {len(entries)} files, entered {entries.total()} times")
    for name, count in entries.items():
        print(f"  {count:3} {name}")


def _caller(frame: FrameType) -> str:
    return frame.f_back.f_code.co_filename if frame.f_back else ""


async def trace_requests(base_path: Path) -> None:
    """Start a server, send it requests, and print what they visit."""
    import grpc

    from experiments_manager.protocol import messages
    from experiments_manager.serving.api.grpc_server import GrpcOptions
    from experiments_manager.serving.api.http.rest_server import RestOptions, RestServer
    from experiments_manager.serving.batching.options import BatchingOptions
    from experiments_manager.serving.models.loader import LoadingOptions
    from experiments_manager.serving.models.version_policy import ModelConfig
    from experiments_manager.serving.server.server import Server, ServerOptions

    trace = Trace()
    options = ServerOptions(
        [ModelConfig("linear", base_path)],
        GrpcOptions(port=0),
        BatchingOptions(),
        LoadingOptions(poll_seconds=0),
        rest=lambda handlers: RestServer(handlers, RestOptions(port=0)),
    )
    server = Server(options)
    await server.start()
    request = messages.PredictRequest()
    request.model_spec.name = "linear"
    tensor = request.inputs["x"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add().size = 1
    tensor.tensor_shape.dim.add().size = 3
    tensor.tensor_content = struct.pack("<3f", 1, 2, 3)
    body = b'{"instances": [[1, 2, 3]]}'
    loop, threads = asyncio.get_running_loop(), ThreadPoolExecutor(TOGETHER)

    connections = [http.client.HTTPConnection("127.0.0.1", server.rest.port) for _ in range(TOGETHER)]

    def post() -> None:
        connection = connections.pop()
        connection.request("POST", "/v1/models/linear:predict", body)
        connection.getresponse().read()
        connections.append(connection)

    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc.port}") as channel:
        call = channel.unary_unary(GRPC_METHOD)
        senders = {
            "gRPC Predict": lambda: call(request.SerializeToString()),
            "REST predict": lambda: loop.run_in_executor(threads, post),
        }
        for title, send in senders.items():
            counted = []
            for _ in range(ONE_BY_ONE):
                trace.on = True
                await send()
                trace.on = False
                await asyncio.sleep(0)
                counted.append(trace.taken())
            report(title, min(counted, key=lambda entries: (len(entries), entries.total())))
            trace.on = True
            await asyncio.gather(*(send() for _ in range(TOGETHER)))
            trace.on = False
            report(f"{title}, {TOGETHER} at once", trace.taken())
    for connection in connections:
        connection.close()
    await server.stop()


def main() -> None:
    """Make the model, and trace."""
    import tensorflow as tf

    class Linear(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": 2 * x + 1}

    with tempfile.TemporaryDirectory() as folder:
        model = Linear()
        tf.saved_model.save(model, f"{folder}/linear/1", {"serving_default": model.serve})
        asyncio.run(trace_requests(Path(folder, "linear")))


if __name__ == "__main__":
    main()
