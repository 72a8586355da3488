"""The gRPC face of the server: `PredictionService`, `ModelService` and health.

Requests come in as bytes and are parsed here, so that a malformed one gets a status with a reason, and tensors are read
without making Python numbers of them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from experiments_manager.serving import messages, wire
from experiments_manager.serving.errors import Code, ServerStartError, ServingError, invalid_argument
from experiments_manager.serving.handlers import Handlers

if TYPE_CHECKING:
    from experiments_manager.serving.metrics import Metrics

logger = logging.getLogger(__name__)

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
_STATUS = {Code(status.value[0]): status for status in grpc.StatusCode}
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
        channel_arguments: Further arguments of gRPC's core, such as `grpc.max_connection_age_ms`.
        credentials: TLS.
        interceptors: Interceptors for every call, such as one that checks tokens.
    """

    host: str = "127.0.0.1"
    port: int | None = 8500
    socket_path: str | None = None
    max_message_bytes: int = (1 << 31) - 1
    channel_arguments: Sequence[tuple[str, int | str]] = ()
    credentials: grpc.ServerCredentials | None = None
    interceptors: Sequence[Any] = ()


@dataclasses.dataclass(frozen=True)
class _Method:
    """One method of a service: how its request is parsed, and who answers."""

    api: str
    parse: Callable[[bytes], Any]
    answer: Callable[[Any], Awaitable[bytes]]
    model_of: Callable[[Any], str]


class GrpcServer:
    """Listens for gRPC and answers with `Handlers`.

    Args:
        handlers: The services.
        options: Where and how to listen.
        metrics: Counts requests.
    """

    def __init__(self, handlers: Handlers, options: GrpcOptions, metrics: Metrics | None = None) -> None:
        self._handlers, self._options, self._metrics = handlers, options, metrics
        self._health = health.aio.HealthServicer()
        self.port: int | None = None
        """The TCP port that it listens at, once it was started."""
        arguments = [
            ("grpc.max_receive_message_length", options.max_message_bytes),
            ("grpc.max_send_message_length", options.max_message_bytes),
            ("grpc.so_reuseport", 0),
            *options.channel_arguments,
        ]
        self._server = grpc.aio.server(options=arguments, interceptors=list(options.interceptors))
        self._server.add_generic_rpc_handlers((_Services(self._methods(), self._serve),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self) -> None:
        """Begins to listen.

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
        """Says in the health service whether every model answers."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", PREDICTION_SERVICE, MODEL_SERVICE):
            await self._health.set(service, status)

    async def stop(self, grace: float = 10.0) -> None:
        """Takes no more requests, and gives those in flight so many seconds to finish."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)

    def _methods(self) -> dict[str, _Method]:
        handlers = self._handlers

        def method(api: str, request: type, handler: Callable[[Any], Awaitable[Any]]) -> _Method:
            async def answer(request: Any) -> bytes:
                return (await handler(request)).SerializeToString()

            return _Method(api, request.FromString, answer, _first_task if api == "MultiInference" else _model_name)

        async def predict(request: tuple[Any, Any]) -> bytes:
            return await handlers.predict_bytes(*request)

        return {
            f"/{PREDICTION_SERVICE}/Predict": _Method(
                "Predict", wire.read_predict_request, predict, lambda request: request[0].model_spec.name
            ),
            f"/{PREDICTION_SERVICE}/Classify": method("Classify", messages.ClassificationRequest, handlers.classify),
            f"/{PREDICTION_SERVICE}/Regress": method("Regress", messages.RegressionRequest, handlers.regress),
            f"/{PREDICTION_SERVICE}/MultiInference": method(
                "MultiInference", messages.MultiInferenceRequest, handlers.multi_inference
            ),
            f"/{PREDICTION_SERVICE}/GetModelMetadata": method(
                "GetModelMetadata", messages.GetModelMetadataRequest, handlers.get_model_metadata
            ),
            f"/{MODEL_SERVICE}/GetModelStatus": method(
                "GetModelStatus", messages.GetModelStatusRequest, handlers.get_model_status
            ),
            f"/{MODEL_SERVICE}/HandleReloadConfigRequest": method(
                "HandleReloadConfigRequest", messages.ReloadConfigRequest, handlers.reload_config
            ),
        }

    async def _serve(self, method: _Method, data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        """Answers one call, whatever its bytes are."""
        started = time.perf_counter()
        request, error = None, None
        try:
            with self._handlers.admitted():
                try:
                    request = method.parse(data)
                except DecodeError as problem:
                    raise invalid_argument(f"The request is no valid message for {method.api}: {problem}") from problem
                del data  # a large request need not be there twice while the model runs
                return await method.answer(request)
        except ServingError as problem:
            error = problem
        except asyncio.CancelledError:
            error = ServingError(Code.CANCELLED, "the client gave up")
            raise
        except Exception as problem:
            logger.exception("%s failed in an unexpected way", method.api)
            error = ServingError(Code.INTERNAL, f"{type(problem).__name__}: {problem}")
        finally:
            if self._metrics is not None:
                asked = method.model_of(request) if request is not None else ""
                name = asked if asked in self._handlers.manager.names else ""  # names that exist nowhere would pile up
                status = error.code.name if error else "OK"
                self._metrics.observe_request(name, method.api, "GRPC", status, time.perf_counter() - started)
        await context.abort(_STATUS[error.code], error.message[:_DETAILS_LIMIT])
        raise AssertionError  # `abort` always raises


class _Services(grpc.GenericRpcHandler):
    """Finds the handler of a method by its path."""

    def __init__(self, methods: dict[str, _Method], serve: Callable[..., Awaitable[bytes]]) -> None:
        self._handlers = {path: self._handler(method, serve) for path, method in methods.items()}

    @staticmethod
    def _handler(method: _Method, serve: Callable[..., Awaitable[bytes]]) -> grpc.RpcMethodHandler:
        async def answer(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
            return await serve(method, data, context)

        return grpc.unary_unary_rpc_method_handler(answer)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Gives the handler; none for an unknown method, which gRPC answers with UNIMPLEMENTED."""
        return self._handlers.get(handler_call_details.method)


def _model_name(request: Any) -> str:
    return request.model_spec.name if hasattr(request, "model_spec") else ""


def _first_task(request: Any) -> str:
    return request.tasks[0].model_spec.name if request.tasks else ""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
