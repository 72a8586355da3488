"""The server of a federation over several machines: SuperLink, gate, and the grid for the rounds."""

from __future__ import annotations

import contextlib
import logging
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments_manager.federated.deployment.addresses import Address
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.flower import flower

if TYPE_CHECKING:
    from experiments_manager.federated.deployment.grid import ForwardedGrid
    from experiments_manager.federated.deployment.programs import Program

logger = logging.getLogger(__name__)

FAREWELL = "query.federation_over"
"""The type of the message that tells clients to end."""
_FAREWELL_PATIENCE = 60.0
"""Seconds that clients have to answer the last message, which a busy machine may need."""
_APP_START = 180.0
"""Seconds that Flower has to start the process of the ServerApp."""


@dataclass(frozen=True)
class ServerSecurity:
    """How a server proves who it is, and who may join.

    Attributes:
        certificate: In PEM, with those between it and the authority that clients trust.
        key: Its private key, in PEM.
        public_keys: Files of the public keys of the only clients that may join; None lets everyone in who reaches it.
    """

    certificate: Path
    key: Path
    public_keys: Sequence[Path] | None


@contextlib.contextmanager
def running_server(
    address: Address,
    security: ServerSecurity | None,
    *,
    insecure: bool = False,
    home: Path | None = None,
    is_over: Callable[[], bool] = lambda: True,
) -> Iterator[ForwardedGrid]:
    """Give the grid of a federation to which SuperNodes connect while the block runs.

    Args:
        address: Where SuperNodes connect.
        security: TLS, and who may join; None only with `insecure`.
        insecure: Whether there is neither TLS nor authentication, which must be asked for.
        home: A folder for the logs and everything else that Flower writes; a temporary one where there is none.
        is_over: Asked when the block ended without an error: whether the clients are told that the federation is over,
            and end. Otherwise they wait for a server at the same address.

    Raises:
        FederationError: It cannot start, or ended by itself.
    """
    check_security(address, security, insecure)
    flower()
    from experiments_manager.federated.deployment.fleet_gate import open_gate
    from experiments_manager.federated.deployment.programs import make_home
    from experiments_manager.federated.deployment.superlink import running_superlink

    public_keys = security.public_keys if security else None
    with contextlib.ExitStack() as stack:
        # A socket's path may have 107 characters at the most: it is not put into a run's folder.
        private = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="em_server_", ignore_cleanup_errors=True))
        )
        home = make_home(home or private / "flower")
        listener = stack.enter_context(listening(private / "server.sock"))
        link = stack.enter_context(
            running_superlink(home, private / "server.sock", tls=not insecure, public_keys=public_keys)
        )
        files = (security.certificate, security.key) if security else (None, None)
        stack.enter_context(open_gate(address, link.url, link.ca_certificate, *files))
        grid = stack.enter_context(_server_app(home, listener, link.program))
        yield grid
        if is_over():
            say_farewell(grid)


def check_security(address: Address, security: ServerSecurity | None, insecure: bool) -> None:
    """Raise where a server would be open to others without that being asked for, or a file is missing."""
    if insecure and security:
        raise FederationError(
            "A server was asked to be insecure, and to use a certificate. Expected one of both. Leave `--insecure` out."
        )
    if insecure and not address.is_loopback:
        raise FederationError(
            f"A server without TLS at {address} would let everybody on the network read and change the model. Expected "
            "a certificate and its key for any other address than 127.0.0.1. Give `--certificate` and `--key`."
        )
    if not insecure and not security:
        raise FederationError(
            "A server needs a certificate and its private key. Give `--certificate FILE --key FILE`, or `--insecure` "
            "for a first try on this machine."
        )
    files = [security.certificate, security.key, *(security.public_keys or ())] if security else []
    for file in files:
        if not Path(file).is_file():
            raise FederationError(f"{file} is not there. Expected a certificate or a key in this file.")


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Listen at a Unix domain socket, in a folder that nobody else may enter."""
    path.parent.chmod(0o700)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(16)
        yield listener


@contextlib.contextmanager
def _server_app(home: Path, listener: socket.socket, superlink: Program) -> Iterator[ForwardedGrid]:
    """Let Flower start the ServerApp, and give the grid that it forwards."""
    from experiments_manager.compat.flower import take_identity
    from experiments_manager.federated.deployment import wire
    from experiments_manager.federated.deployment.app_bundle import submit
    from experiments_manager.federated.deployment.grid import ForwardedGrid

    submit(home)
    listener.settimeout(0.2)
    deadline = time.monotonic() + _APP_START
    while True:
        with contextlib.suppress(TimeoutError):
            connection = wire.accept(listener)
            break
        superlink.check()
        if time.monotonic() > deadline:
            raise FederationError(
                f"Flower did not start its ServerApp within {_APP_START:.0f} s. The log of the SuperLink is "
                f"{superlink.log}, which ends with:\n{superlink.said()}"
            )
    with connection:
        header, _ = wire.receive(connection)
        take_identity(**header)
        yield ForwardedGrid(connection, superlink.check)


def say_farewell(grid: ForwardedGrid) -> None:
    """Tell all clients that are there that the federation is over, and give them some time to answer."""
    from flwr.app import Message, RecordDict

    try:
        messages = [Message(RecordDict(), node, FAREWELL, ttl=2 * _FAREWELL_PATIENCE) for node in grid.get_node_ids()]
        grid.send_and_receive(messages, timeout=_FAREWELL_PATIENCE)
    except FederationError as error:  # the rounds are done, and what they gave is kept
        logger.warning("The clients could not be told that the federation is over. %s", error)
