"""The gRPC face of the server: `PredictionService`, `ModelService`, `ProfilerService` and health.

Requests come in as bytes and are parsed here, so that a malformed one gets a status with a reason, and tensors are read
without making Python numbers of them.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from experiments_manager.protocol import messages, tensors
from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.protocol.status import Code, ServingError, as_serving_error, invalid_argument
from experiments_manager.protocol.wire import LARGE, read_predict_request
from experiments_manager.serving.api.http.memory import connections_possible
from experiments_manager.serving.api.metrics import Admitted
from experiments_manager.serving.api.profiler import SERVICE as PROFILER_SERVICE
from experiments_manager.serving.api.profiler import Profiler
from experiments_manager.serving.api.services import Handlers
from experiments_manager.serving.models.signatures import ModelRef, PredictRequest, find_signature

_MOST_STREAMS = 1024
"""Calls of one connection at once; a client that begins more keeps them back itself."""


@dataclasses.dataclass(frozen=True)
class GrpcOptions:
    """How the gRPC server listens.

    Attributes:
        host: Address to listen at.
        port: TCP port, 0 for any that is free, `None` for none.
        socket_path: Path of a UNIX socket to listen at besides.
        max_message_bytes: Largest request and reply.
        handshake_seconds: Longest time for TLS and HTTP/2 to begin, 0 for gRPC's own.
        idle_seconds: Longest time of a connection without a call, 0 for any; after as long without a sign of life, a
            client with a call is asked whether it is still there.
        max_connections: Connections at once.
        channel_arguments: Further arguments of gRPC's core, such as `grpc.max_connection_age_ms`.
        credentials: TLS.
        interceptors: Interceptors for every call, such as one that checks tokens.
        profiler: Whether traces of what the server computes may be asked for.
    """

    host: str = "127.0.0.1"
    port: int | None = 8500
    socket_path: str | None = None
    max_message_bytes: int = (1 << 31) - 1
    handshake_seconds: float = 10.0
    idle_seconds: float = 60.0
    max_connections: int = 10_000
    channel_arguments: Sequence[tuple[str, int | str]] = ()
    credentials: grpc.ServerCredentials | None = None
    interceptors: Sequence[Any] = ()
    profiler: bool = True


def channel_arguments(options: GrpcOptions) -> dict[str, int | str]:
    """Return arguments of gRPC's core; the user's own count for more."""
    arguments: dict[str, int | str] = {
        "grpc.max_receive_message_length": options.max_message_bytes,
        "grpc.max_send_message_length": options.max_message_bytes,
        "grpc.so_reuseport": 0,
        "grpc.max_allowed_incoming_connections": connections_possible(options.max_connections),
        "grpc.max_concurrent_streams": _MOST_STREAMS,
    }
    if options.handshake_seconds:
        milliseconds = _milliseconds(options.handshake_seconds)
        arguments |= {"grpc.server_handshake_timeout_ms": milliseconds, "grpc.http2.settings_timeout": milliseconds}
    if options.idle_seconds:
        milliseconds = _milliseconds(options.idle_seconds)
        arguments |= {"grpc.max_connection_idle_ms": milliseconds, "grpc.keepalive_time_ms": milliseconds}
    return {**arguments, **dict(options.channel_arguments)}


def _milliseconds(seconds: float) -> int:
    return min(max(1, round(seconds * 1000)), (1 << 31) - 1)


__all__ = ["GrpcOptions", "GrpcServer"]

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
_HEALTH_NAMES = ("", PREDICTION_SERVICE, MODEL_SERVICE, "PredictionService", "ModelService")
"""What the health service may be asked for: TensorFlow Serving knows the services by their short names."""
_COUNTED = frozenset({"Predict", "Classify", "Regress", "MultiInference"})
"""Methods that metrics count. Status and metadata are asked by watchers, and TensorFlow Serving leaves them out too."""
_STATUS = {Code(status.value[0]): status for status in grpc.StatusCode}
_SOCKET_UMASK = 0o117
"""Leaves 0660: who may talk to the server by its socket are its user and group."""
_DETAILS_LIMIT = 4000
"""Characters of an error's message; it travels in a header, and clients refuse headers of more than 8 KiB or so."""

_PredictRequest = messages.raw.PredictRequest
_Answer = Callable[[bytes, Admitted], Awaitable[bytes]]
"""Answers a serialised request."""


class GrpcServer:
    """Listens for gRPC and answers with `Handlers`.

    Args:
        handlers: The services.
        options: Where and how to listen.
    """

    def __init__(self, handlers: Handlers, options: GrpcOptions) -> None:
        self._handlers, self._options = handlers, options
        self._admission, self._scheduler = handlers.admission, handlers.scheduler
        self._health = health.aio.HealthServicer()
        self.port: int | None = None
        """The TCP port that it listens at, once it was started."""
        arguments = list(channel_arguments(options).items())
        self._server = grpc.aio.server(options=arguments, interceptors=list(options.interceptors))
        self._server.add_generic_rpc_handlers((_Services(self._methods()),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            ServerStartError: The port or the socket cannot be had.
        """
        options = self._options
        if options.port is not None:
            self.port = self._listen(f"{_bracketed(options.host)}:{options.port}")
        if options.socket_path:
            others = os.umask(_SOCKET_UMASK)  # the system makes the socket with these rights, so that nobody is earlier
            try:
                self._listen(f"unix:{options.socket_path}")
            finally:
                os.umask(others)
        await self._server.start()

    def _listen(self, address: str) -> int:
        try:
            if self._options.credentials is not None:
                port = self._server.add_secure_port(address, self._options.credentials)
            else:
                port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            expected = (
                "a path in a folder that exists and may be written"
                if address.startswith("unix:")
                else "a free port of this machine"
            )
            raise ServerStartError(
                f"Cannot listen for gRPC at {address} ({error}). Expected {expected}. "
                "Choose another one, or end the server that has it."
            ) from error
        return port

    async def set_serving(self, serving: bool) -> None:
        """Say in the health service whether the server answers."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in _HEALTH_NAMES:
            await self._health.set(service, status)

    async def stop(self, grace: float = 10.0) -> None:
        """Take no more requests, and give those in flight so many seconds to finish."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)

    def _methods(self) -> dict[str, grpc.RpcMethodHandler]:
        handlers = self._handlers
        predictions = [
            ("Classify", messages.ClassificationRequest, handlers.classify),
            ("Regress", messages.RegressionRequest, handlers.regress),
            ("MultiInference", messages.MultiInferenceRequest, handlers.multi_inference),
            ("GetModelMetadata", messages.GetModelMetadataRequest, handlers.get_model_metadata),
        ]
        models = [
            ("GetModelStatus", messages.GetModelStatusRequest, handlers.get_model_status),
            ("HandleReloadConfigRequest", messages.ReloadConfigRequest, handlers.reload_config),
        ]
        profiler = Profiler(self._scheduler.in_thread)
        profiling = [
            ("Profile", messages.ProfileRequest, profiler.profile),
            ("Terminate", messages.TerminateRequest, profiler.terminate),
            ("Monitor", messages.MonitorRequest, profiler.monitor),
        ]
        services = {PREDICTION_SERVICE: predictions, MODEL_SERVICE: models}
        if self._options.profiler:
            services[PROFILER_SERVICE] = profiling
        by_path = {f"/{PREDICTION_SERVICE}/Predict": self._handler("Predict", self.predict)}
        for service, methods in services.items():
            for api, message, answer in methods:
                answer_bytes = functools.partial(_answer_message, api, message, answer)
                by_path[f"/{service}/{api}"] = self._handler(api, answer_bytes, in_flight=service != PROFILER_SERVICE)
        return by_path

    def _handler(self, api: str, answer: _Answer, *, in_flight: bool = True) -> grpc.RpcMethodHandler:
        """Return the handler of a method, which answers whatever the bytes are.

        Args:
            api: Its name.
            answer: Answers one request.
            in_flight: Whether its calls count as requests in flight, which keep others out and from running at once.
        """
        admission, counted_api = self._admission, api if api in _COUNTED else None

        async def handle(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
            try:
                with Admitted(admission, "GRPC", counted_api) as admitted:
                    if in_flight:
                        admitted.begin()
                        admitted.hold(len(data))
                    return await answer(data, admitted)
            except Exception as problem:
                error = as_serving_error(problem, api)
            del data  # gRPC keeps this frame alive until the garbage collector comes
            await context.abort(_STATUS[error.code], error.message[:_DETAILS_LIMIT])
            raise AssertionError  # `abort` always raises

        return grpc.unary_unary_rpc_method_handler(handle)

    async def predict(self, data: bytes, admitted: Admitted) -> bytes:
        """Answer a serialised `PredictRequest`."""
        turn = await self._scheduler.turn(self._admission.in_flight <= 1)
        try:
            small = len(data) < LARGE
            request, arrays = (_PredictRequest.FromString(data), {}) if small else read_predict_request(data)
        except DecodeError as error:
            raise invalid_argument(f"The request is no valid message for Predict: {error}") from error
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        ref = ModelRef.from_proto(request.model_spec)
        admitted.model = ref.name
        with self._handlers.manager.lease(ref) as lease:
            signature = find_signature(lease.model, ref.signature)
            inputs = signature.read_inputs(request.inputs, arrays)
            asked = PredictRequest(signature, inputs, request.output_filter)
            outputs = await self._scheduler.predict(lease, asked, turn)
            spec = tensors.answering_spec(lease.name, lease.version, signature.name)
        try:
            return tensors.write_predict_response(spec, outputs, content=self._handlers.tensor_content)
        except tensors.TensorError as error:
            raise ServingError(Code.INTERNAL, f"the outputs cannot be sent: {error}") from error


async def _answer_message(
    api: str, message: type, answer: Callable[[Any], Awaitable[Any]], data: bytes, admitted: Admitted
) -> bytes:
    """Answer a method other than Predict, whose requests and answers are small messages."""
    try:
        request = message.FromString(data)
    except DecodeError as error:
        raise invalid_argument(f"The request is no valid message for {api}: {error}") from error
    admitted.model = _model_name(request)
    return (await answer(request)).SerializeToString()


class _Services(grpc.GenericRpcHandler):
    """Handlers of methods by their paths."""

    def __init__(self, handlers: dict[str, grpc.RpcMethodHandler]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Return the handler; none for an unknown method, which gRPC answers with UNIMPLEMENTED."""
        return self._handlers.get(handler_call_details.method)


def _model_name(request: Any) -> str:
    if hasattr(request, "tasks"):
        return request.tasks[0].model_spec.name if request.tasks else ""
    return request.model_spec.name if hasattr(request, "model_spec") else ""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
