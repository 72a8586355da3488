"""A SuperNode of Flower: what connects a client to the server."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from experiments_manager.common.machine.addresses import free_port
from experiments_manager.compat.flower import deactivate_supernode
from experiments_manager.federated.deployment.addresses import Address
from experiments_manager.federated.deployment.forwarding import SOCKET
from experiments_manager.federated.deployment.programs import Program, start

logger = logging.getLogger(__name__)

_ID = re.compile(r"SuperNode ID: (\d+)")
RECONNECT = 20.0
"""Seconds that a SuperNode tries by itself to reach a server that went away; then it ends, and we try."""


def start_supernode(
    home: Path,
    socket: Path,
    server: Address,
    *,
    ca_certificate: Path | None,
    private_key: Path | None,
    proc_id: int,
) -> Program:
    """Start a SuperNode.

    Args:
        home: The folder that `make_home` made.
        socket: Where the process of the ClientApp finds ours.
        server: Where the server of the federation listens.
        ca_certificate: What its certificate is signed with; None without TLS.
        private_key: Who this client is; None where the server asks for no key.
        proc_id: Its number.
    """
    arguments: list[str | Path] = ["--superlink", str(server), "--host", "127.0.0.1", "--port", str(free_port())]
    arguments += ["--root-certificates", ca_certificate.absolute()] if ca_certificate else ["--insecure"]
    arguments += ["--max-wait-time", str(RECONNECT)]
    if private_key:
        arguments += ["--auth-supernode-private-key", private_key.absolute()]
    arguments += ["--node-config", f"proc-id={proc_id}"]
    return start("flower-supernode", arguments, home, {SOCKET: str(socket)})


def sign_off(said: str, server: Address, ca_certificate: Path, private_key: Path) -> None:
    """Tell a server that a SuperNode was killed: else it lets it in again only after a minute.

    That this fails is no error, since the server notices it by itself.

    Args:
        said: What the SuperNode wrote; its number is in there.
        server: Where the server of the federation listens.
        ca_certificate: What its certificate is signed with.
        private_key: Whose the SuperNode was.
    """
    if not (found := _ID.findall(said)):
        return
    try:
        deactivate_supernode(int(found[-1]), str(server), ca_certificate, private_key)
    except Exception as error:  # the server may be gone as well, which is the usual reason to be here
        logger.debug("SuperNode %s was not signed off: %s", found[-1], error)
