"""TensorFlow's profiler service: traces of what the server computes, for TensorBoard and `tf.profiler`.

The trace goes into the answer, for the client to write where it was told to. TensorFlow's own service has a second way,
to write it on the server at a path that the request names; nobody who can merely send requests should choose that.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from experiments_manager.protocol import messages
from experiments_manager.protocol.status import Code, ServingError, invalid_argument

SERVICE = "tensorflow.ProfilerService"
MOST_SECONDS = 60.0
"""Longest trace, and longest delay of its beginning: what is traced stays in memory until the end."""
_TOOL = "xplane.pb"
_HOST_TRACER_LEVEL, _DEVICE_TRACER_LEVEL = 2, 1


class Profiler:
    """The service. There is one trace at a time, as TensorFlow has one profiler in a process.

    Args:
        in_thread: Calls a function in a thread of its own.
    """

    def __init__(self, in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._in_thread = in_thread
        self._running: dict[str, threading.Event] = {}
        """What ends a trace before its time, by the name of its session."""

    async def profile(self, request: Any) -> Any:
        """Answer a `ProfileRequest` with a trace of the next moments.

        Raises:
            ServingError: INVALID_ARGUMENT for too long a time, ALREADY_EXISTS where there is another trace.
        """
        options = request.opts
        seconds = (options.duration_ms or request.duration_ms) / 1e3
        delay = max(0.0, options.start_timestamp_ns / 1e9 - time.time()) if options.start_timestamp_ns else 0.0
        for name, value in (("duration_ms", seconds), ("start_timestamp_ns", delay)):
            if value > MOST_SECONDS:
                raise invalid_argument(f"{name}: Expected at most {MOST_SECONDS:g} s, got {value:g} s. Shorten it.")
        if self._running:
            raise ServingError(Code.ALREADY_EXISTS, "Another profiling session is active. Try again when it has ended.")
        ended = self._running[request.session_id] = threading.Event()
        try:
            trace = await self._in_thread(_traced, _levels(options), delay, seconds, ended)
        except asyncio.CancelledError:  # the client gave up: TensorFlow's profiler is free again in a moment
            ended.set()
            raise
        finally:
            del self._running[request.session_id]
        response = messages.ProfileResponse(empty_trace=_is_empty(trace))
        if request.emit_xspace:
            response.xspace = trace
        elif not response.empty_trace:
            response.tool_data.add(name=_TOOL, data=trace)
        return response

    async def terminate(self, request: Any) -> Any:
        """Answer a `TerminateRequest`: end a trace that is running, which is answered with what there is."""
        if (ended := self._running.get(request.session_id)) is not None:
            ended.set()
        return messages.TerminateResponse()

    async def monitor(self, request: Any) -> Any:
        """Answer a `MonitorRequest` as TensorFlow does where there is no TPU.

        Raises:
            ServingError: UNIMPLEMENTED, always.
        """
        raise ServingError(Code.UNIMPLEMENTED, "unimplemented.")


def _levels(options: Any) -> dict[str, int]:
    """Return what is to be traced; options without a version count as none. Python's threads are not traced."""
    if not options.version:
        return {"host_tracer_level": _HOST_TRACER_LEVEL, "device_tracer_level": _DEVICE_TRACER_LEVEL}
    return {
        "host_tracer_level": options.host_tracer_level,
        "device_tracer_level": options.device_tracer_level,
    }


def _traced(levels: dict[str, int], delay: float, seconds: float, ended: threading.Event) -> bytes:
    """Trace what TensorFlow does, until it is long enough or `ended`; return a serialised `XSpace`."""
    import tensorflow as tf

    ended.wait(delay)
    with tempfile.TemporaryDirectory(prefix="trace-") as folder:
        try:
            with tf.profiler.experimental.Profile(folder, tf.profiler.experimental.ProfilerOptions(**levels)):
                ended.wait(seconds)
        except tf.errors.OpError as error:
            raise ServingError(Code(error.error_code), error.message) from error
        return b"".join(file.read_bytes() for file in sorted(Path(folder).rglob(f"*.{_TOOL}")))


def _is_empty(trace: bytes) -> bool:
    planes = messages.XSpace.FromString(trace).planes
    return not any(line.events for plane in planes for line in plane.lines)
