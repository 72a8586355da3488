"""The gRPC face of the server: `PredictionService`, `ModelService`, `ProfilerService` and health.

Requests come in as bytes and are parsed here, so that a malformed one gets a status with a reason, and tensors are read
without making Python numbers of them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from experiments_manager.protocol import messages
from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.protocol.status import Code, ServingError, invalid_argument
from experiments_manager.serving.api.http.bodies import UNCOUNTED, ByteBudget
from experiments_manager.serving.api.http.memory import connections_possible
from experiments_manager.serving.api.predict import PredictCall
from experiments_manager.serving.api.profiler import SERVICE as PROFILER_SERVICE
from experiments_manager.serving.api.profiler import Profiler
from experiments_manager.serving.api.services import Handlers

if TYPE_CHECKING:
    from experiments_manager.serving.api.metrics import Metrics

logger = logging.getLogger(__name__)

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
_HEALTH_NAMES = ("", PREDICTION_SERVICE, MODEL_SERVICE, "PredictionService", "ModelService")
"""What the health service may be asked for: TensorFlow Serving knows the services by their short names."""
_COUNTED = frozenset({"Predict", "Classify", "Regress", "MultiInference"})
"""Methods that metrics count. Status and metadata are asked by watchers, and TensorFlow Serving leaves them out too."""
_STATUS = {Code(status.value[0]): status for status in grpc.StatusCode}
_MOST_STREAMS = 1024
"""Calls of one connection at once; a client that begins more keeps them back itself."""
_DETAILS_LIMIT = 4000
"""Characters of an error's message; it travels in a header, and clients refuse headers of more than 8 KiB or so."""


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


class _Call(Protocol):
    """One call of a method: what it asks for, and its answer."""

    asked: str
    """Name of the model, empty until that is known."""

    async def answer(self) -> bytes: ...


@dataclasses.dataclass(frozen=True)
class _Method:
    """One method of a service other than Predict.

    Attributes:
        api: Its name.
        message: The class of its requests.
        handler: Who answers.
    """

    api: str
    message: type
    handler: Callable[[Any], Awaitable[Any]]

    def begin(self, data: bytes) -> _Call:
        """Begin a call."""
        return _MethodCall(self, data)


class _MethodCall:
    """A call of a `_Method`."""

    def __init__(self, method: _Method, data: bytes) -> None:
        self._method, self._data, self.asked = method, data, ""

    async def answer(self) -> bytes:
        method = self._method
        try:
            request = method.message.FromString(self._data)
        except DecodeError as error:
            raise invalid_argument(f"The request is no valid message for {method.api}: {error}") from error
        self.asked = _model_name(request)
        return (await method.handler(request)).SerializeToString()


class GrpcServer:
    """Listens for gRPC and answers with `Handlers`.

    Args:
        handlers: The services.
        options: Where and how to listen.
        metrics: Counts requests.
        budget: Counts their bytes; without, they may have any number.
    """

    def __init__(
        self,
        handlers: Handlers,
        options: GrpcOptions,
        metrics: Metrics | None = None,
        budget: ByteBudget | None = None,
    ) -> None:
        self._handlers, self._options, self._metrics = handlers, options, metrics
        self._budget = budget or ByteBudget(sys.maxsize)
        self._health = health.aio.HealthServicer()
        self.port: int | None = None
        """The TCP port that it listens at, once it was started."""
        arguments = list(_channel_arguments(options).items())
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
            self._listen(f"unix:{options.socket_path}")
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
        """Take no more requests, and return those in flight so many seconds to finish."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)

    def _methods(self) -> dict[str, grpc.RpcMethodHandler]:
        handlers = self._handlers
        predict = functools.partial(PredictCall, handlers)
        predictions = [
            _Method("Classify", messages.ClassificationRequest, handlers.classify),
            _Method("Regress", messages.RegressionRequest, handlers.regress),
            _Method("MultiInference", messages.MultiInferenceRequest, handlers.multi_inference),
            _Method("GetModelMetadata", messages.GetModelMetadataRequest, handlers.get_model_metadata),
        ]
        models = [
            _Method("GetModelStatus", messages.GetModelStatusRequest, handlers.get_model_status),
            _Method("HandleReloadConfigRequest", messages.ReloadConfigRequest, handlers.reload_config),
        ]
        return {
            f"/{PREDICTION_SERVICE}/Predict": self._answering("Predict", predict),
            **{
                f"/{PREDICTION_SERVICE}/{method.api}": self._answering(method.api, method.begin)
                for method in predictions
            },
            **{f"/{MODEL_SERVICE}/{method.api}": self._answering(method.api, method.begin) for method in models},
            **(self._profiler_methods() if self._options.profiler else {}),
        }

    def _profiler_methods(self) -> dict[str, grpc.RpcMethodHandler]:
        profiler = Profiler(self._handlers.scheduler.in_thread)
        methods = [
            _Method("Profile", messages.ProfileRequest, profiler.profile),
            _Method("Terminate", messages.TerminateRequest, profiler.terminate),
            _Method("Monitor", messages.MonitorRequest, profiler.monitor),
        ]
        return {
            f"/{PROFILER_SERVICE}/{method.api}": self._answering(method.api, method.begin, admitted=False)
            for method in methods
        }

    def _answering(self, api: str, begin: Callable[[bytes], _Call], *, admitted: bool = True) -> grpc.RpcMethodHandler:
        """Return the handler of a method, which answers whatever the bytes are.

        Args:
            api: Its name.
            begin: Begins a call.
            admitted: Whether its calls count as requests in flight, which keep others out and from running at once.
        """
        handlers = self._handlers

        async def answer(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
            started = time.perf_counter()
            counted = len(data) - UNCOUNTED
            call, error = begin(data), None
            del data  # the call has it
            try:
                if not admitted:
                    return await call.answer()
                handlers.admit()
                try:
                    if counted > 0:
                        return await self._answer_large(call, counted)
                    return await call.answer()
                finally:
                    handlers.in_flight -= 1
            except ServingError as problem:
                error = problem.without_frames()
            except asyncio.CancelledError:
                error = ServingError(Code.CANCELLED, "the client gave up")
                raise
            except Exception as problem:
                logger.exception("%s failed in an unexpected way", api)
                error = ServingError(Code.INTERNAL, f"{type(problem).__name__}: {problem}")
            finally:
                self._count(api, call, error, time.perf_counter() - started)
            del call  # gRPC keeps this frame alive until the garbage collector comes
            await context.abort(_STATUS[error.code], error.message[:_DETAILS_LIMIT])
            raise AssertionError  # `abort` always raises

        return grpc.unary_unary_rpc_method_handler(answer)

    async def _answer_large(self, call: _Call, counted: int) -> bytes:
        self._budget.take(counted)
        try:
            return await call.answer()
        finally:
            self._budget.give_back(counted)

    def _count(self, api: str, call: _Call, error: ServingError | None, seconds: float) -> None:
        if self._metrics is not None and api in _COUNTED:
            name = call.asked if call.asked in self._handlers.manager.names else ""  # others would pile up
            self._metrics.observe_request(name, api, "GRPC", error.code.name if error else "OK", seconds)


class _Services(grpc.GenericRpcHandler):
    """Finds the handler of a method by its path."""

    def __init__(self, handlers: dict[str, grpc.RpcMethodHandler]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Return the handler; none for an unknown method, which gRPC answers with UNIMPLEMENTED."""
        return self._handlers.get(handler_call_details.method)


def _channel_arguments(options: GrpcOptions) -> dict[str, int | str]:
    """Return what gRPC's core can be told; the user's own arguments count for more."""
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


def _model_name(request: Any) -> str:
    if hasattr(request, "tasks"):
        return request.tasks[0].model_spec.name if request.tasks else ""
    return request.model_spec.name if hasattr(request, "model_spec") else ""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
