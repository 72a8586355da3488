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
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from aiohttp import web
from google.protobuf import json_format

from experiments_manager.protocol import messages
from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.protocol.status import Code, ServingError, invalid_argument
from experiments_manager.serving.api import metrics
from experiments_manager.serving.api.http import responses as answers
from experiments_manager.serving.api.http.bodies import Body, ByteBudget, RefusedBodyError
from experiments_manager.serving.api.http.connection_limits import ConnectionLimits
from experiments_manager.serving.api.http.listener import HttpServer
from experiments_manager.serving.api.http.rest_requests import (
    HTTP_STATUS,
    Call,
    decompressed,
    parse_path,
    unpacked_limit,
)
from experiments_manager.serving.api.json import responses
from experiments_manager.serving.api.json.examples import read_examples
from experiments_manager.serving.api.json.requests import Document, read_predict
from experiments_manager.serving.api.security import Tls, Tokens
from experiments_manager.serving.api.services import Handlers, ModelRef
from experiments_manager.serving.models.signatures import DEFAULT_SIGNATURE

if TYPE_CHECKING:
    from experiments_manager.serving.models.manager import Lease
    from experiments_manager.serving.models.signatures import Signature

logger = logging.getLogger(__name__)

_LARGE = 1 << 18
"""Bytes of JSON, or values, from which they are read and written in a thread, so that other requests go on."""
_LARGE_PACKED = 1 << 12
"""The same for bytes that are compressed, which may become a thousand times as many."""
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
    metrics_path: str | None = metrics.DEFAULT_PATH
    connections: ConnectionLimits = ConnectionLimits()


class RestServer:
    """Listens for HTTP and answers with `Handlers`.

    Args:
        handlers: The services.
        options: Where to listen, and how to behave.
        counted: Where requests are counted.
        tokens: Who may ask; `None` for everybody.
        budget: Counts the bytes of requests; without, they may have any number.
    """

    def __init__(
        self,
        handlers: Handlers,
        options: RestOptions | None = None,
        counted: metrics.Metrics | None = None,
        tokens: Tokens | None = None,
        budget: ByteBudget | None = None,
    ) -> None:
        self._handlers, self._tokens = handlers, tokens
        self._metrics = counted or metrics.Metrics()
        self._options = options or RestOptions()
        self._budget = budget or ByteBudget(sys.maxsize)
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
        headers = dict(_CORS) if self._options.cors else {}
        body = Body(self._budget, self._options.max_body_bytes)
        try:
            return await self._answer_to(request, body, headers)
        except ServingError as error:
            status = error.http_status if isinstance(error, RefusedBodyError) else HTTP_STATUS[error.code]
            return answers.error(error.without_frames(), status, headers)
        finally:
            body.release()

    async def _answer_to(self, request: web.BaseRequest, body: Body, headers: dict[str, str]) -> web.Response:
        path = request.rel_url.raw_path
        if request.method == "OPTIONS" and path.lower().startswith("/v1/"):
            return answers.preflight(request, headers)
        if self._tokens is not None and (refusal := self._tokens.refusal(request.headers.get("Authorization"))):
            raise ServingError(Code.UNAUTHENTICATED, refusal)
        body.expect(request.content_length)
        if expected := request.headers.get("Expect"):
            await answers.go_on(request, expected)
        await body.read(request.content)  # whatever is asked, so that the connection can be used again
        if path == self._options.metrics_path:
            return answers.text(self._metrics.page(), headers, kind=metrics.CONTENT_TYPE)
        if not path.lower().startswith("/v1/"):
            raise ServingError(Code.NOT_FOUND, f"There is nothing at {path}. Expected /v1/models/NAME.")
        encoding = request.headers.get("Content-Encoding", "identity").lower()
        text = await self._called(self._parsed(request.method, path), body, encoding)
        return answers.text(text, headers)

    def _parsed(self, method: str, path: str) -> Call:
        """Read a path; one that means nothing is counted, too."""
        try:
            return parse_path(method, path)
        except ServingError as error:
            self._metrics.observe_request("", "", "REST", error.code.name, 0.0)
            raise

    async def _called(self, call: Call, body: Body, encoding: str) -> str:
        """Do what a path asks for, in time, and counts it."""
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
        except asyncio.CancelledError:  # the client went away
            status = Code.CANCELLED
            raise
        except Exception as error:
            logger.exception("answering %s of %s failed", call.method, call.ref)
            status = Code.INTERNAL
            raise ServingError(status, f"{type(error).__name__}: {error}") from error
        finally:
            # A name that is no model of ours is not counted under itself: names are free, and counters are not.
            model = call.ref.name if call.ref.name in self._handlers.manager.names else ""
            self._metrics.observe_request(model, call.api, "REST", status.name, time.perf_counter() - started)

    async def _answered(self, call: Call, body: Body, encoding: str) -> str:
        size = len(body)
        if size and encoding not in ("identity", ""):
            limit = unpacked_limit(size, self._options.max_body_bytes)
            plain = await _maybe_in_thread(size > _LARGE_PACKED, decompressed, body.take(), encoding, limit)
            body.put(plain)
            del plain
        return await self._services[call.method](self, call.ref, body.take())

    async def _predict(self, ref: ModelRef, body: bytes) -> str:
        large = len(body) > _LARGE
        document = await _maybe_in_thread(large, Document, body)
        with self._handlers.borrow(ref) as lease:  # one version reads the request and answers it
            signature = _signature(lease, document.signature_name)
            inputs, form = await _maybe_in_thread(large, read_predict, document, signature.inputs)
            outputs = (await self._handlers.predict(lease, signature, inputs)).outputs
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


_threads = ThreadPoolExecutor(2, "json")
"""For large bodies. As JSON they take many times their bytes, and the interpreter's lock lets one be read at a time."""


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
