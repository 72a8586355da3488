"""Many requests at a time, their answers in order.

With several requests in flight two threads share the work. One reads the requests, no faster than the rate allows,
and sends each as soon as there is a free slot. The other, which is the caller's, takes the oldest request, waits for
its answer, hands both over, and frees the slot. A slow source therefore never keeps answers back, and a slow consumer
never lets answers pile up.
"""

from __future__ import annotations

import collections
import threading
import time
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from experiments_manager.client.errors import ClientError
from experiments_manager.client.server_channel import PendingCall

Prediction = TypeVar("Prediction")

_END = object()

OnRefused = Callable[[Any, ClientError], None]


class Asks(Protocol[Prediction]):
    """What a stream needs of a client; see `Client`."""

    def info(self) -> Any:
        """Ask for the model's inputs and outputs."""

    def predict(self, inputs: Any) -> Prediction:
        """Send a request, and return its answer."""

    def send(self, inputs: Any) -> PendingCall:
        """Send a request."""

    def receive(self, sent: PendingCall, others: Callable[[], Sequence[PendingCall]]) -> Prediction:
        """Return the answer to a request; `others` are on their way, too."""


def stream(
    client: Asks[Prediction],
    requests: Iterable[Any],
    *,
    in_flight: int,
    rate: float | None,
    on_refused: OnRefused | None = None,
) -> Iterator[tuple[Any, Prediction]]:
    """Send requests and return each with its answer, in order; see `Client.stream`.

    Args:
        client: Asks.
        requests: What to ask.
        in_flight: How many requests may be without an answer at a time, at most.
        rate: How many requests a second may be sent, at most.
        on_refused: Called, when it is a request's turn, with the request and the error if it has no answer; the stream
            goes on unless this raises. By default the error is raised.
    """
    if in_flight < 1:
        raise ValueError(f"in_flight is {in_flight}. Expected at least 1 request in flight.")
    if rate is not None and not rate > 0:
        raise ValueError(f"rate is {rate}. Expected more than 0 requests a second, or None.")
    client.info()  # before any request is read: a server that is not there yet, or a wrong model, shows here
    limiter = RateLimiter(rate)
    if in_flight == 1:
        return _one_by_one(client, requests, limiter, on_refused or _raise)
    return _Pipeline(client, requests, in_flight, limiter, on_refused or _raise).run()


class RateLimiter:
    """A limit on the requests a second.

    A request that is late is sent at once and those after it keep their distance, so that a pause is not followed by
    a burst.

    Args:
        rate: Requests a second, or `None` for any number.
    """

    def __init__(self, rate: float | None) -> None:
        self._distance = 1.0 / rate if rate else 0.0
        self._next = float("-inf")
        self._stopped = threading.Event()

    def wait(self) -> None:
        """Wait for the next request's time, or until `stop` is called."""
        if not self._distance:
            return
        now = time.monotonic()
        if now < self._next:
            self._stopped.wait(self._next - now)
        # Waking up late by less than one distance is made up for, so that the rate is kept on average.
        self._next = max(self._next, now - self._distance) + self._distance

    def stop(self) -> None:
        """Wake all threads that wait for a request or an answer, and let them end."""
        self._stopped.set()


def _one_by_one(
    client: Asks[Prediction], requests: Iterable[Any], limiter: RateLimiter, on_refused: OnRefused
) -> Iterator[tuple[Any, Prediction]]:
    iterator = iter(requests)
    try:
        while True:
            limiter.wait()
            request = next(iterator, _END)
            if request is _END:
                return
            try:
                outputs = client.predict(request)
            except ClientError as error:
                on_refused(request, error)
            else:
                yield request, outputs
    finally:
        _close(iterator)


class _Pipeline(Generic[Prediction]):
    def __init__(
        self,
        client: Asks[Prediction],
        requests: Iterable[Any],
        in_flight: int,
        limiter: RateLimiter,
        on_refused: OnRefused,
    ) -> None:
        self._client, self._requests, self._limiter, self._on_refused = client, requests, limiter, on_refused
        self._free = threading.Semaphore(in_flight)
        self._changed = threading.Condition()
        self._sent: collections.deque[tuple[Any, PendingCall]] = collections.deque()
        self._finished = False
        self._failure: BaseException | None = None
        self._stopped = False

    def run(self) -> Iterator[tuple[Any, Prediction]]:
        reader = threading.Thread(target=self._read, name="requests", daemon=True)
        reader.start()
        try:
            while (oldest := self._oldest()) is not None:
                request, sent = oldest
                try:
                    outputs = self._client.receive(sent, self._others)
                except ClientError as error:
                    self._on_refused(request, error)
                    outputs = None
                with self._changed:
                    self._sent.popleft()
                if outputs is not None:
                    yield request, outputs
                self._free.release()
        finally:
            self._stopped = True
            self._limiter.stop()
            self._free.release()
            reader.join(timeout=1.0)  # it may be waiting for a camera, and is left alone then

    def _read(self) -> None:
        iterator = None
        try:
            iterator = iter(self._requests)
            while True:
                self._free.acquire()
                self._limiter.wait()
                if self._stopped:
                    break
                request = next(iterator, _END)
                if request is _END or self._stopped:
                    break
                sent = self._client.send(request)
                with self._changed:
                    self._sent.append((request, sent))
                    self._changed.notify()
        except BaseException as error:  # the caller's thread raises it, after the answers to what was sent before
            self._failure = error
        finally:
            with self._changed:
                self._finished = True
                self._changed.notify()
            _close(iterator)

    def _oldest(self) -> tuple[Any, PendingCall] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._sent or self._finished)
            if self._sent:
                return self._sent[0]
        if self._failure is not None:
            raise self._failure
        return None

    def _others(self) -> list[PendingCall]:
        """Return what else is on its way."""
        with self._changed:
            return [sent for _, sent in self._sent][1:]


def _raise(request: Any, error: ClientError) -> None:
    raise error


def _close(iterator: Any) -> None:
    """Let a generator clean up after itself, in the thread that read it."""
    if isinstance(iterator, types.GeneratorType):
        iterator.close()
