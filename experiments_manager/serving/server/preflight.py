"""What is checked before a server is started: its libraries, and its port."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
from pathlib import Path

from experiments_manager.common.installation import install_command
from experiments_manager.protocol.errors import ServerStartError

_LONGEST_SOCKET = 107
EMBEDDED_NEEDS = ("grpc", "grpc_health", "aiohttp")
"""Modules of the extra `serving` that the embedded engine cannot do without."""


def check_embedded() -> None:
    """Check that the embedded engine's libraries are installed; none is imported.

    Raises:
        ServerStartError: One is missing; the message says how to get it.
    """
    missing = [name for name in EMBEDDED_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ServerStartError(
            f"The embedded engine needs {', '.join(missing)}, not installed here. Install what the extra `serving` "
            f"names: {install_command('serving')}"
        )


def check_port(host: str, port: int, flag: str) -> None:
    """Refuse one port that cannot be listened at.

    Raises:
        ServerStartError: It is in use, may not be used, or the host is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise ServerStartError(
            f"Host {host} not found: {error.strerror}. Expected an address of this machine."
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise ServerStartError(
                f"{host} is not an address of this machine. Expected one of its own, such as 127.0.0.1, or 0.0.0.0 for "
                "all. Change --host."
            ) from error
        raise ServerStartError(
            f"Port {port} on {host or 'this machine'} cannot be used: {error.strerror}. Choose another by {flag}, or "
            "end the process that listens there."
        ) from error


def check_socket(path: str, flag: str) -> None:
    """Refuse a path at which no socket can be made, or another server listens; one that a dead server left is none.

    Raises:
        ServerStartError: It is taken, too long, or in a folder that is not there or may not be written.
    """
    place = Path(path)
    if len(os.fsencode(path)) > _LONGEST_SOCKET:
        problem = f"has {len(os.fsencode(path))} bytes. Expected at most {_LONGEST_SOCKET}, which is the system's limit"
    elif not os.access(place.parent, os.W_OK | os.X_OK):
        problem = "cannot be made. Expected a path in a folder that exists and may be written"
    elif not place.exists():
        return
    elif not place.is_socket():
        problem = "exists and is no socket. Expected a path that is free"
    elif _answers(path):
        problem = "is in use by another server. Expected one that is free"
    else:
        return
    raise ServerStartError(
        f"The socket {path} {problem}. Choose another by {flag}, or end the process that listens there."
    )


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:  # not ours to connect to, or it is busy: somebody's in any case
            return True
        return True
