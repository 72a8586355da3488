"""How the gRPC server listens, and the arguments of gRPC's core for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import grpc

from experiments_manager.serving.api.http.memory import connections_possible

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
