"""TensorFlow Serving's REST API over the services that gRPC uses too.

| request | answer |
| --- | --- |
| `POST /v1/models/NAME[/versions/N]:predict` | outputs; likewise `:classify` and `:regress` |
| `GET /v1/models/NAME[/versions/N]` | states of the versions |
| `GET /v1/models/NAME[/versions/N]/metadata` | signatures |
| `GET /monitoring/prometheus/metrics` | what was counted |

`/labels/L` may stand in the place of `/versions/N`. An error is `{"error": "…"}` with the HTTP status that TensorFlow
Serving gives for its code.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web
from google.protobuf import json_format

from experiments_manager.protocol import messages
from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.protocol.status import Code, ServingError, as_serving_error, invalid_argument
from experiments_manager.serving.api import prometheus
from experiments_manager.serving.api.http import rest_requests
from experiments_manager.serving.api.http.bodies import Body
from experiments_manager.serving.api.http.connection_limits import ConnectionLimits
from experiments_manager.serving.api.http.http_connection import SERVER, HttpServer
from experiments_manager.serving.api.json import responses
from experiments_manager.serving.api.json.requests import Document, read_examples, read_predict
from experiments_manager.serving.api.metrics import DEFAULT_PATH, Admitted
from experiments_manager.serving.api.security import Tls, Tokens
from experiments_manager.serving.api.services import Handlers
from experiments_manager.serving.models.registry import Lease
from experiments_manager.serving.models.signatures import DEFAULT_SIGNATURE, ModelRef, PredictRequest, Signature

_LARGE = 1 << 18
"""Bytes of JSON, or values, from which they are read and written in a thread, so that other requests go on."""
_LARGE_PACKED = 1 << 12
"""The same for bytes that are compressed, which may become a thousand times as many."""
_HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type, Authorization",
}


@dataclasses.dataclass(frozen=True)
class RestOptions:
    """How the REST API behaves.

    Attributes:
        host: Address to listen at.
        port: TCP port, 0 for any that is free.
        tls: Key and certificates; plain HTTP without.
        timeout_seconds: Longest time for an answer, 0 for any; beyond, DEADLINE_EXCEEDED.
        max_body_bytes: Largest body of a request; `rest_requests.unpacked_limit` says more of compressed ones.
        cors: Whether pages from other origins may read the answers.
        metrics_path: Where Prometheus finds the metrics; `None` for nowhere.
        connections: How many there may be, and how long each may take.
    """

    host: str = "127.0.0.1"
    port: int = 8501
    tls: Tls | None = None
    timeout_seconds: float = 30.0
    max_body_bytes: int = 512 * 2**20
    cors: bool = False
    metrics_path: str | None = DEFAULT_PATH
    connections: ConnectionLimits = ConnectionLimits()


class RestServer:
    """Listens for HTTP and answers with `Handlers`.

    Args:
        handlers: The services.
        options: Where to listen, and how to behave.
        tokens: Who may ask; `None` for everybody.
    """

    def __init__(
        self,
        handlers: Handlers,
        options: RestOptions | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self._handlers, self._tokens = handlers, tokens
        self._admission, self._scheduler = handlers.admission, handlers.scheduler
        self._options = options or RestOptions()
        self._http: HttpServer | None = None
        self._grace = 0.0
        self.port: int | None = None
        """The port that it listens at, once it was started."""

    async def start(self, grace: float = 10.0) -> None:
        """Begin to listen.

        Args:
            grace: Seconds for which requests in flight may go on when it is stopped.

        Raises:
            ServerStartError: The port cannot be had.
        """
        options = self._options
        tls = options.tls.ssl_context() if options.tls else None
        self._http, self._grace = HttpServer(self._answer, options.connections), grace
        try:
            self.port = await self._http.listen(options.host, options.port, tls)
        except OSError as error:
            raise ServerStartError(
                f"Cannot listen for REST at {options.host}:{options.port}: {error.strerror}. Expected a free port of "
                "this machine. Choose another one, or end the server that has it."
            ) from error

    async def stop(self) -> None:
        """Stop listening, and let requests in flight be answered."""
        if self._http is not None:
            await self._http.end(self._grace)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        """Answer anything that comes; whatever goes wrong becomes a status."""
        headers = {**SERVER, **(_CORS if self._options.cors else {})}
        try:
            with Admitted(self._admission, "REST") as admitted:
                body = Body(admitted, self._options.max_body_bytes)
                try:
                    return await self._answer_to(request, body, admitted, headers)
                finally:
                    body.clear()
        except Exception as problem:
            error = as_serving_error(problem, f"{request.method} {request.path}")
        if error.code == Code.UNAUTHENTICATED:
            headers["WWW-Authenticate"] = "Bearer"
        return _Answer(responses.write_error(error), headers, status=error.http_status or _HTTP_STATUS[error.code])

    async def _answer_to(
        self, request: web.BaseRequest, body: Body, admitted: Admitted, headers: dict[str, str]
    ) -> web.Response:
        path = request.rel_url.raw_path
        if request.method == "OPTIONS" and path.lower().startswith("/v1/"):
            return rest_requests.preflight(request, headers)
        if self._tokens is not None and (refusal := self._tokens.refusal(request.headers.get("Authorization"))):
            raise ServingError(Code.UNAUTHENTICATED, refusal)
        body.expect(request.content_length)
        if expected := request.headers.get("Expect"):
            await rest_requests.go_on(request, expected)
        await body.read(request.content)  # whatever is asked, so that the connection can be used again
        if path == self._options.metrics_path:
            return _Answer(prometheus.page(self._admission.metrics), headers, content_type=prometheus.CONTENT_TYPE)
        if not path.lower().startswith("/v1/"):
            raise ServingError(Code.NOT_FOUND, f"Not found: {path}. Expected /v1/models/NAME.")
        admitted.api = ""  # a path that means nothing is counted, too
        route = rest_requests.parse_path(request.method, path)
        admitted.api, admitted.model = route.api, route.ref.name
        admitted.begin()
        encoding = request.headers.get("Content-Encoding", "identity").lower()
        limit = self._options.timeout_seconds or None
        try:
            return _Answer(await asyncio.wait_for(self._answer_route(route, body, encoding), limit), headers)
        except asyncio.TimeoutError:
            raise ServingError(
                Code.DEADLINE_EXCEEDED, f"No answer within {self._options.timeout_seconds:g} s"
            ) from None

    async def _answer_route(self, route: rest_requests.Route, body: Body, encoding: str) -> str:
        size = len(body)
        if size and encoding not in ("identity", ""):
            limit = rest_requests.unpacked_limit(size, self._options.max_body_bytes)
            unpack = rest_requests.decompressed
            body.put(await _maybe_in_thread(size > _LARGE_PACKED, unpack, body.take(), encoding, limit))
        return await self._services[route.method](self, route.ref, body.take())

    async def _predict(self, ref: ModelRef, body: bytes) -> str:
        turn = await self._scheduler.turn(self._admission.in_flight <= 1)
        large = len(body) > _LARGE
        document = await _maybe_in_thread(large, Document, body)
        with self._handlers.manager.lease(ref) as lease:
            signature = _signature(lease, document.signature_name)
            inputs, form = await _maybe_in_thread(large, read_predict, document, signature.inputs)
            outputs = await self._scheduler.predict(lease, PredictRequest(signature, inputs), turn)
            large = sum(array.size for array in outputs.values()) > _LARGE // 8
            return await _maybe_in_thread(large, responses.write_predictions, outputs, form)

    async def _classify(self, ref: ModelRef, body: bytes) -> str:
        large = len(body) > _LARGE
        request = await _maybe_in_thread(large, _example_request, messages.ClassificationRequest(), ref, body)
        response = await self._handlers.classify(request)
        return responses.write_classifications(response.result)

    async def _regress(self, ref: ModelRef, body: bytes) -> str:
        large = len(body) > _LARGE
        request = await _maybe_in_thread(large, _example_request, messages.RegressionRequest(), ref, body)
        response = await self._handlers.regress(request)
        return responses.write_regressions(response.result)

    async def _status(self, ref: ModelRef, body: bytes) -> str:
        request = messages.GetModelStatusRequest()
        ref.fill(request.model_spec)
        return json.dumps(_as_json(await self._handlers.get_model_status(request)), indent=1)

    async def _metadata(self, ref: ModelRef, body: bytes) -> str:
        request = messages.GetModelMetadataRequest(metadata_field=["signature_def"])
        ref.fill(request.model_spec)
        response = await self._handlers.get_model_metadata(request)
        signatures = messages.SignatureDefMap.FromString(response.metadata["signature_def"].value)
        answer = {"model_spec": _as_json(response.model_spec), "metadata": {"signature_def": _as_json(signatures)}}
        return json.dumps(answer, indent=1)

    _services = {
        "predict": _predict,
        "classify": _classify,
        "regress": _regress,
        "metadata": _metadata,
        "": _status,
    }


_threads = ThreadPoolExecutor(2, "json")
"""For large bodies. As JSON they take many times their bytes, and the interpreter's lock lets one be read at a time."""


class _Answer(web.Response):
    """An answer of text, which is forgotten once it is sent; a connection keeps its last one until the next."""

    def __init__(self, text: str, headers: dict[str, str], content_type: str = "application/json", **more: Any) -> None:
        # As bytes: with text, aiohttp would name an encoding in the header, where TensorFlow Serving names none.
        super().__init__(body=text.encode(errors="replace"), headers=headers, content_type=content_type, **more)

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the body, and let go of its memory."""
        try:
            await super().write_eof(data)
        finally:
            self.body = None


def _signature(lease: Lease, name: str) -> Signature:
    name = name or DEFAULT_SIGNATURE
    signature = lease.model.signatures.get(name)
    if signature is None:
        raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
    return signature


async def _maybe_in_thread(large: bool, function: Callable[..., Any], *arguments: Any) -> Any:
    if not large:
        return function(*arguments)
    return await asyncio.get_running_loop().run_in_executor(_threads, function, *arguments)


def _example_request(request: Any, ref: ModelRef, body: bytes) -> Any:
    document = Document(body)
    ref._replace(signature=document.signature_name).fill(request.model_spec)
    request.input.CopyFrom(read_examples(document))
    return request


def _as_json(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
