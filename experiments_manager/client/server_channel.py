"""A channel to a model server: sending one message, and what its errors mean.

Only what is peculiar to gRPC is here; `client.py` knows models, `stream.py` many requests at a time.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from experiments_manager.client.credentials import ClientTls
from experiments_manager.client.errors import ClientError
from experiments_manager.client.faults import FaultHistory, is_permanent, short, unreachable
from experiments_manager.common.machine.addresses import is_loopback
from experiments_manager.protocol.status import Code

logger = logging.getLogger(__name__)

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"

_FOR_EVER = 1e8
"""Seconds from which on no deadline is set: gRPC takes what it cannot count for a deadline that is over."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds before a request is sent again; each pause is twice as long as the one before."""


class Connection:
    """A channel to one server, with the patience to find it gone for a while.

    Args:
        address: `host:port`, or `unix:/path` of a socket.
        timeout: Seconds that a server may take for one answer.
        patience: Seconds that a server may be out of reach before that is an error.
        max_message_bytes: Largest message, in bytes, either way.
        tls: TLS; without it the connection is not encrypted.
        token: Bearer token.

    Raises:
        ClientError: The address is invalid, or a time is no number.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float,
        patience: float,
        max_message_bytes: int,
        tls: ClientTls | None = None,
        token: str | None = None,
    ) -> None:
        _check_address(address)
        for name, seconds in (("timeout", timeout), ("patience", patience)):
            if not seconds >= 0:
                raise ClientError(f"{name} is {seconds:g}. Expected seconds, 0 or more.")
        self.address, self.timeout, self.patience = address, timeout, patience
        self.retries = 0
        self._metadata = (("authorization", f"Bearer {token}"),) if token else None
        self._channel = _channel(address, max_message_bytes, tls)
        self._tls = tls
        self._calls: dict[str, Any] = {}
        self._outage: RetryState | None = None
        self._closed = False

    def send(self, path: str, message: bytes, timeout: float | None = None) -> PendingCall:
        """Send a message and do not wait for its answer.

        Args:
            path: The method.
            message: The request, serialised.
            timeout: Seconds that the answer may take, where that is not the connection's.
        """
        sent = PendingCall(path, message, self.timeout if timeout is None else timeout)
        self._send(sent)
        return sent

    def _send(self, sent: PendingCall) -> None:
        call = self._calls.get(sent.path)
        if self._closed:
            raise ClientError("The client is closed. Create a new one.")
        if call is None:
            call = self._calls[sent.path] = self._channel.unary_unary(sent.path)
        sent.started, sent.seconds = time.perf_counter(), 0.0
        timeout = sent.timeout if sent.timeout < _FOR_EVER else None
        sent.future = call.future(sent.message, timeout=timeout, metadata=self._metadata)
        sent.future.add_done_callback(sent.note_time)

    def answer(self, sent: PendingCall, others: Callable[[], Sequence[PendingCall]] = tuple) -> bytes:
        """Wait for an answer; where the server is out of reach, send the message again until it is back.

        Args:
            sent: What to wait for.
            others: Gives what else is on its way, which is sent again at the same time if it failed too.

        Raises:
            ServerGoneError: The server stayed out of reach for longer than the patience.
            ClientError: The server refused, or took too long.
        """
        while True:
            try:
                content = sent.future.result()
            except grpc.RpcError as error:
                if self._closed:
                    raise ClientError("The client was closed while a request was on its way.") from error
                if not _is_retryable(error, sent.was_lost):
                    self._outage = None
                    raise self._explained(error, sent) from error
                self._pause(error)
                for one in (sent, *others()):
                    if one.is_lost():
                        one.was_lost = True
                        self.retries += 1
                        self._send(one)
            except grpc.FutureCancelledError as error:
                raise ClientError("The client was closed while a request was on its way.") from error
            else:
                self._outage = None
                sent.seconds = sent.seconds or time.perf_counter() - sent.started  # gRPC may call back a moment later
                return content

    def call(self, path: str, request: Any, response_class: Any) -> Any:
        """Send a message and wait for its answer, parsed."""
        return response_class.FromString(self.answer(self.send(path, request.SerializeToString())))

    def call_once(self, path: str, request: Any, response_class: Any) -> Any | None:
        """Send a message and return its answer, parsed, or `None` if it failed, for whatever reason."""
        sent = self.send(path, request.SerializeToString())
        try:
            return response_class.FromString(sent.future.result())
        except (grpc.RpcError, grpc.FutureCancelledError):
            return None

    def close(self) -> None:
        """Close the channel; requests that are on their way are given up."""
        self._closed = True
        self._channel.close()

    def _pause(self, error: grpc.RpcError) -> None:
        outage = self._outage
        if outage is None:
            outage = self._outage = RetryState(time.monotonic())
            if self.patience > 0:
                where = f"The model server at {self.address}"
                logger.warning("%s cannot be reached (%s). Trying again for %g s.", where, short(error), self.patience)
        outage.causes.add(error)
        if time.monotonic() - outage.began > self.patience:
            self._outage = None  # who asks again later has the whole patience again
            cause = outage.causes.most_specific()
            raise unreachable(cause, self.address, waited=self.patience, with_tls=self._tls is not None) from cause
        time.sleep(outage.next_pause())

    def _explained(self, error: grpc.RpcError, sent: PendingCall) -> ClientError:
        code, details = Code[error.code().name], short(error)
        where = f"The model server at {self.address}"
        if code == Code.DEADLINE_EXCEEDED:
            return ClientError(f"{where} did not answer within {sent.timeout:g} s. Increase the timeout.", code)
        if code == Code.UNAVAILABLE:
            return unreachable(error, self.address)
        if code == Code.UNAUTHENTICATED:
            advice = "Check what is given with" if self._metadata else "Pass a token with"
            return ClientError(f"{where} refused: {details} {advice} --auth-token-file (`token`).", code)
        if code == Code.RESOURCE_EXHAUSTED and _is_too_large(details):
            return ClientError(f"{details}. Raise max_message_bytes, here or at the server.", code)
        return ClientError(f"{where} answered {code.name}: {details}", code)


@dataclasses.dataclass(eq=False)
class PendingCall:
    """A message on its way.

    Attributes:
        path: The method.
        message: The request, serialised.
        timeout: Seconds that the answer may take.
        future: gRPC's, of the newest attempt.
        started: When the newest attempt was sent, on `time.perf_counter`'s clock.
        seconds: How long that attempt took, once it is done.
        was_lost: Whether an attempt before found the server out of reach.
    """

    path: str
    message: bytes
    timeout: float
    future: Any = None
    started: float = 0.0
    seconds: float = 0.0
    was_lost: bool = False

    def note_time(self, future: Any) -> None:
        """Note the time when the attempt is done, in gRPC's thread."""
        if future is self.future:
            self.seconds = time.perf_counter() - self.started

    def is_lost(self) -> bool:
        """Return whether the attempt ended for a reason that may pass."""
        if not self.future.done() or self.future.cancelled():
            return False
        error = self.future.exception()
        return error is not None and _is_retryable(error, self.was_lost)


@dataclasses.dataclass
class RetryState:
    """A time in which the server does not answer.

    Attributes:
        began: When, on `time.monotonic`'s clock.
        pause: Seconds before the next attempt.
        causes: Why it does not answer.
    """

    began: float
    pause: float = FIRST_PAUSE
    causes: FaultHistory = dataclasses.field(default_factory=FaultHistory)

    def next_pause(self) -> float:
        """Return seconds to wait: a random half of the pause keeps many clients from returning at the same moment."""
        seconds = self.pause * random.uniform(0.5, 1.0)
        self.pause = min(2 * self.pause, LONGEST_PAUSE)
        return seconds


def _is_retryable(error: grpc.RpcError, was_lost: bool) -> bool:
    """Return whether the same request may succeed later: the server is gone, full, or still loading models."""
    code = error.code()
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return not _is_too_large(short(error))
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):  # a server that stops cancels what it is at
        return not is_permanent(error)
    return was_lost and code == grpc.StatusCode.NOT_FOUND


def _is_too_large(details: str) -> bool:
    return "larger than max" in details


def _check_address(address: str) -> None:
    """Refuse at once what could never be reached; gRPC takes 443 for a port that is missing."""
    host, _, port = address.rpartition(":")
    other_scheme = address.startswith("unix") or ":///" in address
    if other_scheme or (host and "://" not in host and _is_port(port)):
        return
    raise ClientError(
        f"invalid address of a model server: {address!r}. Expected HOST:PORT, such as localhost:9000, or unix:PATH."
    )


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535  # gRPC would cut off its bits


def _channel(address: str, max_message_bytes: int, tls: ClientTls | None) -> grpc.Channel:
    options = [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # gRPC's own pauses grow to two minutes, in which a server that is back would go unnoticed.
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0 if _is_local(address) else 1),
    ]
    if tls is None:
        return grpc.insecure_channel(address, options)
    credentials = grpc.ssl_channel_credentials(tls.authority, tls.key, tls.certificate)
    return grpc.secure_channel(address, credentials, options)


def _is_local(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    return address.startswith("unix:") or is_loopback(host)
