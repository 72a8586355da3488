"""A whole stream of predictions, from the first request to the summary."""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from experiments_manager.client.client import IN_FLIGHT, Client, Prediction
from experiments_manager.client.stream import OnRefused, stream
from experiments_manager.client.stream_progress import ProgressLine, Summary
from experiments_manager.common.signals import shutdown_handler


def predict_all(
    client: Client,
    requests: Iterable[Any],
    on_answer: Callable[[Any, Prediction], None],
    *,
    count: int | None = None,
    in_flight: int = IN_FLIGHT,
    rate: float | None = None,
    make_line: Callable[[], ProgressLine] = ProgressLine,
    on_refused: OnRefused | None = None,
) -> Summary:
    """Stream requests until they end, or until Ctrl-C or SIGTERM, which keep what was predicted.

    Args:
        client: Asks.
        requests: What to ask.
        on_answer: Called with each request and its outputs, in order.
        count: How many requests to send at most.
        in_flight: How many may be without an answer at a time.
        rate: How many a second may be sent.
        make_line: Makes what shows how it goes, when the server was found.
        on_refused: Called with a request and the error if it has no answer, as for `stream`.

    Returns:
        How it went.

    Raises:
        ClientError: As for `Client.stream`.
    """
    client.info()  # waits for the server
    line, retries_before = make_line(), client.retries
    try:
        with shutdown_handler(signal.default_int_handler), _closing(_limited(requests, count)) as limited:
            for request, outputs in stream(client, limited, in_flight=in_flight, rate=rate, on_refused=on_refused):
                answers = getattr(request, "answers", 1)
                line.answered(outputs.version, outputs.seconds, client.retries - retries_before, answers)
                on_answer(request, outputs)
    except KeyboardInterrupt:
        pass
    finally:
        line.close()
    return line.summary(client.retries - retries_before)


@contextlib.contextmanager
def _closing(requests: Iterator[Any]) -> Iterator[Iterator[Any]]:
    try:
        yield requests
    finally:
        with contextlib.suppress(ValueError):  # a thread still waits for the next one, say from a pipe
            requests.close()


def _limited(requests: Iterable[Any], count: int | None) -> Iterator[Any]:
    try:
        yield from itertools.islice(requests, count)
    finally:
        if hasattr(requests, "close"):
            requests.close()
