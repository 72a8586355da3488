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
import logging
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web
from google.protobuf import json_format

from experiments_manager.serving import json_responses, messages, metrics
from experiments_manager.serving.errors import (
    Code,
    ServerStartError,
    ServingError,
    failed_precondition,
    invalid_argument,
)
from experiments_manager.serving.handlers import Handlers, ModelRef
from experiments_manager.serving.json_examples import read_examples
from experiments_manager.serving.json_requests import Document, read_predict
from experiments_manager.serving.rest_requests import (
    HTTP_STATUS,
    BodyTooLargeError,
    Call,
    decompressed,
    parse_path,
    unpacked_limit,
)
from experiments_manager.serving.security import Tls, Tokens
from experiments_manager.serving.signatures import DEFAULT_SIGNATURE

if TYPE_CHECKING:
    from experiments_manager.serving.manager import Lease
    from experiments_manager.serving.signatures import Signature

logger = logging.getLogger(__name__)
_http_logger = logging.getLogger(f"{__name__}.http")
_http_logger.setLevel(logging.CRITICAL)  # it would tell of every client that sends what is no HTTP, with a traceback

_LARGE = 1 << 18
"""Bytes of JSON, or values, from which they are read and written in a thread, so that other requests go on."""
_LARGE_PACKED = 1 << 12
"""The same for bytes that are compressed, which may become a thousand times as many."""
_HEADER_LIMIT = 1 << 16
"""Bytes of one header at most; some proxies put more than aiohttp's 8 KiB into one."""
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
    """

    host: str = "127.0.0.1"
    port: int = 8501
    tls: Tls | None = None
    timeout_seconds: float = 30.0
    max_body_bytes: int = 512 * 2**20
    cors: bool = False
    metrics_path: str | None = metrics.DEFAULT_PATH


class RestServer:
    """Listens for HTTP and answers with `Handlers`.

    Args:
        handlers: The services.
        options: Where to listen, and how to behave.
        counted: Where requests are counted.
        tokens: Who may ask; `None` for everybody.
    """

    def __init__(
        self,
        handlers: Handlers,
        options: RestOptions | None = None,
        counted: metrics.Metrics | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self._handlers, self._tokens = handlers, tokens
        self._metrics = counted or metrics.Metrics()
        self._options = options or RestOptions()
        self._runner: web.AppRunner | None = None
        self.port: int | None = None
        """The port that it listens at, once it was started."""

    def application(self) -> web.Application:
        """Gives the aiohttp application."""
        application = web.Application(client_max_size=self._options.max_body_bytes)
        application.router.add_route("*", "/{path:.*}", self._answer)
        return application

    async def start(self, grace: float = 10.0) -> None:
        """Begins to listen.

        Args:
            grace: Seconds for which requests in flight may go on when it is stopped.

        Raises:
            ServerStartError: The port cannot be had.
        """
        options = self._options
        # aiohttp waits for ever for the end of a compressed body that is cut short, so we decompress bodies ourselves.
        self._runner = web.AppRunner(
            self.application(),
            access_log=None,
            logger=_http_logger,
            auto_decompress=False,
            max_line_size=_HEADER_LIMIT,
            max_field_size=_HEADER_LIMIT,
            shutdown_timeout=grace / 2,  # it waits for a request twice
        )
        await self._runner.setup()
        tls = options.tls.ssl_context() if options.tls else None
        site = web.TCPSite(self._runner, options.host, options.port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise ServerStartError(
                f"Cannot listen for REST at {options.host}:{options.port}: {error.strerror}. Expected a free port of "
                "this machine. Choose another one, or end the server that has it."
            ) from error
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stops listening, and lets requests in flight be answered."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        """Answers anything that comes; whatever goes wrong becomes a status."""
        path = request.rel_url.raw_path
        headers = dict(_CORS) if self._options.cors else {}
        try:
            if request.method == "OPTIONS" and path.lower().startswith("/v1/"):
                return _preflight(request, headers)
            if self._tokens is not None and (refusal := self._tokens.refusal(request.headers.get("Authorization"))):
                raise ServingError(Code.UNAUTHENTICATED, refusal)
            body = await self._read(request)  # whatever is asked, so that the connection can be used again
            if path == self._options.metrics_path:
                return _response(self._metrics.page(), headers, kind=metrics.CONTENT_TYPE)
            if not path.lower().startswith("/v1/"):
                raise ServingError(Code.NOT_FOUND, f"There is nothing at {path}. Expected /v1/models/NAME.")
            encoding = request.headers.get("Content-Encoding", "identity").lower()
            text = await self._called(self._parsed(request.method, path), body, encoding)
            return _response(text, headers)
        except BodyTooLargeError as error:
            return _error(error, 413, headers)
        except ServingError as error:
            return _error(error.without_frames(), HTTP_STATUS[error.code], headers)

    async def _read(self, request: web.Request) -> bytes:
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise BodyTooLargeError(self._options.max_body_bytes) from error

    def _parsed(self, method: str, path: str) -> Call:
        """Reads a path; one that means nothing is counted, too."""
        try:
            return parse_path(method, path)
        except ServingError as error:
            self._metrics.observe_request("", "", "REST", error.code.name, 0.0)
            raise

    async def _called(self, call: Call, body: bytes, encoding: str) -> str:
        """Does what a path asks for, in time, and counts it."""
        started = time.perf_counter()
        status = Code.OK
        try:
            with self._handlers.admitted():
                limit = self._options.timeout_seconds or None
                return await asyncio.wait_for(self._answered(call, body, encoding), limit)
        except ServingError as error:
            status = error.code
            raise
        except asyncio.TimeoutError as error:
            status = Code.DEADLINE_EXCEEDED
            raise ServingError(status, f"No answer within {self._options.timeout_seconds:g} s") from error
        except Exception as error:
            logger.exception("answering %s of %s failed", call.method, call.ref)
            status = Code.INTERNAL
            raise ServingError(status, f"{type(error).__name__}: {error}") from error
        finally:
            # A name that is no model of ours is not counted under itself: names are free, and counters are not.
            model = call.ref.name if call.ref.name in self._handlers.manager.names else ""
            self._metrics.observe_request(model, call.api, "REST", status.name, time.perf_counter() - started)

    async def _answered(self, call: Call, body: bytes, encoding: str) -> str:
        if body and encoding not in ("identity", ""):
            limit = unpacked_limit(len(body), self._options.max_body_bytes)
            body = await _maybe_in_thread(len(body) > _LARGE_PACKED, decompressed, body, encoding, limit)
        return await self._services[call.method](self, call.ref, body)

    async def _predict(self, ref: ModelRef, body: bytes) -> str:
        large = len(body) > _LARGE
        document = await _maybe_in_thread(large, Document, body)
        with self._handlers.borrow(ref) as lease:  # one version reads the request and answers it
            signature = _signature(lease, document.signature_name)
            inputs, form = await _maybe_in_thread(large, read_predict, document, signature.inputs)
            outputs = (await self._handlers.predict(lease, signature, inputs)).outputs
            large = sum(array.size for array in outputs.values()) > _LARGE // 8
            return await _maybe_in_thread(large, json_responses.write_predictions, outputs, form)

    async def _classify(self, ref: ModelRef, body: bytes) -> str:
        large = len(body) > _LARGE
        request = await _maybe_in_thread(large, _example_request, messages.ClassificationRequest(), ref, body)
        response = await self._handlers.classify(request)
        return json_responses.write_classifications(response.result)

    async def _regress(self, ref: ModelRef, body: bytes) -> str:
        large = len(body) > _LARGE
        request = await _maybe_in_thread(large, _example_request, messages.RegressionRequest(), ref, body)
        response = await self._handlers.regress(request)
        return json_responses.write_regressions(response.result)

    async def _status(self, ref: ModelRef, body: bytes) -> str:
        request = messages.GetModelStatusRequest()
        _fill_spec(request.model_spec, ref)
        return json.dumps(_as_json(await self._handlers.get_model_status(request)), indent=1)

    async def _metadata(self, ref: ModelRef, body: bytes) -> str:
        request = messages.GetModelMetadataRequest(metadata_field=["signature_def"])
        _fill_spec(request.model_spec, ref)
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


def _signature(lease: Lease, name: str) -> Signature:
    name = name or DEFAULT_SIGNATURE
    signature = lease.model.signatures.get(name)
    if signature is None:
        raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
    return signature


async def _maybe_in_thread(large: bool, function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments) if large else function(*arguments)


def _example_request(request: Any, ref: ModelRef, body: bytes) -> Any:
    document = Document(body)
    _fill_spec(request.model_spec, dataclasses.replace(ref, signature=document.signature_name))
    request.input.CopyFrom(read_examples(document))
    return request


def _fill_spec(spec: Any, ref: ModelRef) -> None:
    spec.name = ref.name
    if ref.version is not None:
        spec.version.value = ref.version
    if ref.label is not None:
        spec.version_label = ref.label
    if ref.signature:
        spec.signature_name = ref.signature


def _as_json(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _error(error: ServingError, status: int, headers: dict[str, str]) -> web.Response:
    if error.code == Code.UNAUTHENTICATED:
        headers = {**headers, "WWW-Authenticate": "Bearer"}
    return _response(json_responses.write_error(error), headers, status)


def _response(text: str, headers: dict[str, str], status: int = 200, kind: str = "application/json") -> web.Response:
    # As bytes: with text, aiohttp would name an encoding in the header, where TensorFlow Serving names none.
    return web.Response(body=text.encode(errors="replace"), status=status, content_type=kind, headers=headers)


def _preflight(request: web.Request, headers: dict[str, str]) -> web.Response:
    """Answers what a browser asks before a request to another origin; the headers say whether it may go on."""
    if not re.search("https?://", request.headers.get("Origin", "")):
        raise failed_precondition("Origin header is missing in CORS preflight")
    return web.Response(headers=headers)
