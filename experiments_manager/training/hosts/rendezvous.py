"""The meeting of the processes of a training before TensorFlow starts, at the chief's address.

The chief listens there until all have come; then the port is free again for TensorFlow's own server.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from experiments_manager.common.addresses import is_loopback
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.hosts.cluster import Cluster
from experiments_manager.training.hosts.peer import Peer

PATIENCE = 300.0
"""Seconds that processes wait for each other at the start: on a cluster they may come up at very different times."""
_LONGEST_GREETING = 4096


def gather_workers(cluster: Cluster, patience: float = PATIENCE) -> list[Peer]:
    """Return connections to all others, in their order; for the chief.

    Raises:
        TrainingError: The port is taken, or not all have come in time.
    """
    host, _, port = cluster.addresses[0].rpartition(":")
    host = host.strip("[]")
    deadline, found = time.monotonic() + patience, {}
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        # On its own machine a host's name is often an alias of the loopback address, where no other host could come.
        here = host if is_loopback(host) else ""
        with socket.create_server((here, int(port)), family=family, backlog=len(cluster.addresses)) as server:
            server.settimeout(0.5)
            while len(found) < len(cluster.addresses) - 1:
                number, connection = _accepted(server, cluster)
                if connection is not None:
                    found[number] = connection
                elif time.monotonic() > deadline:
                    missing = [a for i, a in enumerate(cluster.addresses) if i and i not in found]
                    raise TrainingError(_missing("not all workers came", ", ".join(missing), patience))
    except OSError as error:
        raise TrainingError(
            f"The chief cannot listen on {cluster.addresses[0]}: {error}. Expected a free port of this host. Change "
            "its address in TF_CONFIG, or end what uses the port."
        ) from error
    return [Peer(found[number], f"worker {number} ({cluster.addresses[number]})") for number in sorted(found)]


def _accepted(server: socket.socket, cluster: Cluster) -> tuple[int, socket.socket | None]:
    """Return the number of a worker that has come, and its connection; others that come by are turned away."""
    try:
        connection, _ = server.accept()
    except TimeoutError:
        return 0, None
    connection.settimeout(10.0)
    try:
        greeting = json.loads(_line(connection))
        number = greeting["worker"]
        if greeting["cluster"] == list(cluster.addresses) and number in range(1, len(cluster.addresses)):
            connection.sendall(b"welcome\n")
            return number, connection
    except (OSError, ValueError, LookupError, TypeError):
        pass
    connection.close()
    return 0, None


def _line(connection: socket.socket) -> bytes:
    content = b""
    while not content.endswith(b"\n") and len(content) < _LONGEST_GREETING:
        part = connection.recv(1)
        if not part:
            break
        content += part
    return content


def join_chief(cluster: Cluster, patience: float = PATIENCE) -> Peer:
    """Return the connection to the chief; for the others.

    Raises:
        TrainingError: It did not come in time.
    """
    host, _, port = cluster.addresses[0].rpartition(":")
    greeting: dict[str, Any] = {"worker": cluster.index, "cluster": list(cluster.addresses)}
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            connection = socket.create_connection((host.strip("[]"), int(port)), timeout=10.0)
        except OSError:
            time.sleep(0.2)
            continue
        try:
            connection.sendall(json.dumps(greeting).encode() + b"\n")
            if _line(connection) == b"welcome\n":
                return Peer(connection, f"the chief ({cluster.addresses[0]})")
        except OSError:
            pass
        connection.close()
        time.sleep(0.2)
    raise TrainingError(_missing("the chief did not come", cluster.addresses[0], patience))


def _missing(what: str, who: str, patience: float) -> str:
    return (
        f"The training on several hosts cannot begin: {what} within {patience:.0f} s. Expected a process at {who}, got "
        "none. Start one process for each address, with the same settings, and see what they print."
    )
