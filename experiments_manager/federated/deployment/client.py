"""A client of a federation over several machines: its SuperNode, which connects it to the server, and the answers."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from experiments_manager.common.machine.addresses import free_port
from experiments_manager.federated.deployment import wire
from experiments_manager.federated.deployment.addresses import Address, answers, read_address
from experiments_manager.federated.deployment.server import FAREWELL, listening
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.flower import flower

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from flwr.app import RecordDict

    from experiments_manager.federated.deployment.programs import Program

logger = logging.getLogger(__name__)

Handler = Callable[[str, "RecordDict"], "RecordDict"]
"""Answers one message, given its type (`train`, `evaluate`, `query.NAME`) and its content."""

_POLL = 0.2
_RESTART_PAUSE = 2.0
"""Seconds before a SuperNode that ended is started again."""
_RECONNECT = 20.0
"""Seconds that a SuperNode tries by itself to reach a server that went away; then it ends, and we try."""
_DELIVERY = 15.0
"""Seconds that the answer to a farewell has to leave."""
_HINT = " (or what listens there closes connections at once: a proxy whose server is not up, or a server without TLS)"
_CONNECTED, _SENT = "SuperNode ID:", "Sent successfully"
"""What a SuperNode writes when it is connected, and when an answer has left."""
_ID = re.compile(r"SuperNode ID: (\d+)")
_REFUSED = ("could not be activated", "node activation", "activate")


@dataclasses.dataclass(frozen=True)
class ServerEndpoint:
    """How a client reaches the server of its federation.

    Attributes:
        server: `host:port`.
        ca_certificate: What the server's certificate is signed with; `None` only with `insecure`.
        private_key: Who this client is; `None` where the server asks for no key.
        insecure: Whether there is no TLS, which must be asked for and is for the loopback address alone.
    """

    server: str
    ca_certificate: Path | str | None = None
    private_key: Path | str | None = None
    insecure: bool = False

    @property
    def address(self) -> Address:
        """Where the server listens."""
        return read_address(self.server)

    def check(self) -> None:
        """Raise where a client would speak without TLS and nobody asked for that, or a file is missing.

        Raises:
            FederationError: It is not safe, the address is none, or a file is missing.
        """
        address = self.address
        if self.insecure and (self.ca_certificate or self.private_key):
            raise FederationError(
                "A client was asked to be insecure, and to use a certificate or a key. Expected one of both. Leave "
                "`--insecure` out."
            )
        if self.insecure and not address.is_loopback:
            raise FederationError(
                f"Without TLS everybody on the network to {address} could read and change the model. Expected the "
                "certificate of an authority for any other address than 127.0.0.1. Give `--ca-certificate`."
            )
        if not self.insecure and not self.ca_certificate:
            raise FederationError(
                "A client needs the certificate of the authority that signed the server's. Give `--ca-certificate "
                "FILE`, or `--insecure` for a first try on this machine."
            )
        for file in filter(None, (self.ca_certificate, self.private_key)):
            if not Path(file).is_file():
                raise FederationError(f"{file} is not there. Expected a certificate or a key in this file.")


def run_client(
    handle: Handler,
    endpoint: ServerEndpoint,
    proc_id: int,
    *,
    home: Path | None = None,
    refused_patience: float = 75.0,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Take part in a federation until it is over.

    Args:
        handle: Called in the thread that calls this, one message after the other.
        endpoint: How the server is reached.
        proc_id: The client's number.
        home: A folder for the logs and everything else that Flower writes; a temporary one where there is none. It is
            this client's alone: what a process that was killed left there is ended, and signed off at the server.
        refused_patience: Seconds to try again where the server refuses this client. Flower needs a minute to let one in
            again that was killed.
        stopping: Asked between messages; the client leaves when it returns True.

    Raises:
        FederationError: The server is not trusted, or does not know this client's key.
    """
    endpoint.check()
    flower()
    from experiments_manager.federated.deployment.programs import held_alone, make_home

    with contextlib.ExitStack() as stack:
        # A socket's path may have 107 characters at the most: it is not put into a run's folder.
        temporary = tempfile.TemporaryDirectory(prefix="em_client_", ignore_cleanup_errors=True)
        path = Path(stack.enter_context(temporary)) / "client.sock"
        home = make_home(home or path.parent / "flower")
        stack.enter_context(held_alone(home, proc_id))
        listener = stack.enter_context(listening(path))
        refused_until = None
        while not stopping() and _wait_for(endpoint, stopping):
            node = _start_supernode(home, path, endpoint, proc_id)
            try:
                if _serve(listener, handle, node, stopping):
                    return
            finally:
                node.stop()
            if _was_refused(node):
                _sign_off(node.output_before(), endpoint)
                refused_until = refused_until or time.monotonic() + refused_patience
                if time.monotonic() >= refused_until:
                    raise _refusal(node, endpoint)
                logger.warning("The server at %s refuses this client. It is tried again for a minute.", endpoint.server)
            else:
                refused_until = None
                _sign_off(node.output(), endpoint)
                logger.warning("The connection to the server at %s was lost. It is tried again.", endpoint.server)
            _pause(_RESTART_PAUSE, stopping)


def _wait_for(endpoint: ServerEndpoint, stopping: Callable[[], bool]) -> bool:
    """Wait until a server answers; return False when this process is to stop instead."""
    certificate = endpoint.ca_certificate and Path(endpoint.ca_certificate)
    has_said = False
    while not answers(endpoint.address, certificate):
        if not has_said:
            logger.warning("No server answers at %s yet%s. It is tried again.", endpoint.address, _HINT)
            has_said = True
        if _pause(1.0, stopping):
            return False
    return True


def _pause(seconds: float, stopping: Callable[[], bool]) -> bool:
    """Wait so many seconds, and return whether this process is to stop."""
    deadline = time.monotonic() + seconds
    while not stopping() and time.monotonic() < deadline:
        time.sleep(min(_POLL, seconds))
    return stopping()


def _start_supernode(home: Path, socket: Path, endpoint: ServerEndpoint, proc_id: int) -> Program:
    """Start what connects this client to the server; the process of its ClientApp finds ours at the socket."""
    from experiments_manager.federated.deployment.forwarding import SOCKET
    from experiments_manager.federated.deployment.programs import start

    arguments = ["--superlink", str(endpoint.address), "--host", "127.0.0.1", "--port", str(free_port())]
    if endpoint.ca_certificate:
        arguments += ["--root-certificates", str(Path(endpoint.ca_certificate).absolute())]
    else:
        arguments.append("--insecure")
    arguments += ["--max-wait-time", str(_RECONNECT), "--node-config", f"proc-id={proc_id}"]
    if endpoint.private_key:
        arguments += ["--auth-supernode-private-key", str(Path(endpoint.private_key).absolute())]
    return start("flower-supernode", arguments, home, {SOCKET: str(socket)})


def _serve(listener: socket.socket, handle: Handler, node: Program, stopping: Callable[[], bool]) -> bool:
    """Answer messages; return whether that is all: False when the SuperNode ended before the federation was over."""
    while not stopping():
        try:
            connection = wire.accept(listener)
        except TimeoutError:
            if node.ended:
                return False
            continue
        with connection:
            try:
                if _answer_one(connection, handle) == FAREWELL:
                    _let_leave(node)
                    return True
            except wire.Disconnected as error:
                logger.warning(
                    "An answer could not be handed to the SuperNode: %s. It has ended or was restarted.", error
                )
    return True


def _answer_one(connection: Connection, handle: Handler) -> str:
    """Answer the message that comes through a connection and return its type.

    Raises:
        Disconnected: The other side ended before it had the answer.
    """
    from flwr.app import RecordDict

    from experiments_manager.compat.flower import records_from_bytes, records_to_bytes

    header, parts = wire.receive(connection)
    if header["type"] == FAREWELL:
        with contextlib.suppress(wire.Disconnected):  # its process may have ended with the server
            wire.send(connection, {}, [records_to_bytes(RecordDict())])
    else:
        wire.send(connection, {}, [records_to_bytes(handle(header["type"], records_from_bytes(parts[0])))])
    return header["type"]


def _let_leave(node: Program) -> None:
    """Wait until the SuperNode has sent the last answer; it says so in its log."""
    sent = node.output().count(_SENT)
    deadline = time.monotonic() + _DELIVERY
    while not node.ended and time.monotonic() < deadline:
        if node.output().count(_SENT) > sent:
            return
        time.sleep(0.1)


def _sign_off(said: str, endpoint: ServerEndpoint) -> None:
    """Tell a server that a SuperNode was killed: else it lets it in again only after a minute.

    That this fails is no error, since the server notices it by itself.

    Args:
        said: What the SuperNode wrote; its number is in there.
        endpoint: How the server is reached; without a key nobody need be signed off.
    """
    from experiments_manager.compat.flower import deactivate_supernode

    found = _ID.findall(said)
    if not found or not endpoint.ca_certificate or not endpoint.private_key:
        return
    try:
        files = Path(endpoint.ca_certificate), Path(endpoint.private_key)
        deactivate_supernode(int(found[-1]), str(endpoint.address), *files)
    except Exception as error:  # the server may be gone as well, which is the usual reason to be here
        logger.debug("SuperNode %s was not signed off: %s", found[-1], error)


def _was_refused(node: Program) -> bool:
    """Return whether a SuperNode ended because the server did not let it in.

    Raises:
        FederationError: It ended before it was connected, for another reason.
    """
    said = node.output()
    if _CONNECTED in said:
        return False  # the server went away, and may come again
    if any(words in said.lower() for words in _REFUSED):
        return True
    node.check()
    return False


def _refusal(node: Program, endpoint: ServerEndpoint) -> FederationError:
    """Return the error of a client that is not let in."""
    key = endpoint.private_key
    who = f"The key {key} is" if key else "This client has no key, and is"
    return FederationError(
        f"{who} not known to the server at {endpoint.address}, or another client uses it. Expected the private key "
        "that belongs to one of its public keys. Give `--private-key`, or add the public key at the server. Flower "
        f"says:\n{node.said()}"
    )
