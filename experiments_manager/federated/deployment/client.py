"""A client of a federation over several machines: its SuperNode, and the answers to messages."""

from __future__ import annotations

import contextlib
import logging
import socket
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from experiments_manager.federated.deployment import wire
from experiments_manager.federated.deployment.addresses import Address, answers
from experiments_manager.federated.deployment.server import FAREWELL, listening
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.flower import flower

if TYPE_CHECKING:
    from flwr.app import RecordDict

    from experiments_manager.federated.deployment.programs import Program

logger = logging.getLogger(__name__)

_POLL = 0.2
_RESTART_PAUSE = 2.0
"""Seconds before a SuperNode that ended is started again."""
_DELIVERY = 15.0
"""Seconds that the answer to a farewell has to leave."""
_HINT = " (or what listens there closes connections at once: a proxy whose server is not up, or a server without TLS)"
_CONNECTED, _SENT = "SuperNode ID:", "Sent successfully"
"""What a SuperNode writes when it is connected, and when an answer has left."""
_REFUSED = ("could not be activated", "node activation", "activate")


def run_client(
    handle: Callable[[str, RecordDict], RecordDict],
    *,
    server: Address,
    ca_certificate: Path | None,
    private_key: Path | None,
    proc_id: int,
    insecure: bool = False,
    home: Path | None = None,
    patience: float | None = None,
    refused_patience: float = 75.0,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Take part in a federation until it is over.

    Args:
        handle: Answers one message, given its type (`train`, `evaluate`, `query.NAME`) and its content. Called in the
            thread that calls this, one message after the other. An error that it raises is the reply to the server.
        server: Where the server of the federation listens.
        ca_certificate: What its certificate is signed with; None only with `insecure`.
        private_key: Who this client is; None where the server asks for no key.
        proc_id: The client's number.
        insecure: Whether there is no TLS, which must be asked for.
        home: A folder for the logs and everything else that Flower writes; a temporary one where there is none. It is
            this client's alone: what a process that was killed left there is ended, and signed off at the server.
        patience: Seconds to wait for a server that does not answer; None waits for ever.
        refused_patience: Seconds to try again where the server refuses this client. Flower needs a minute to let one in
            again that was killed.
        stopping: Asked between messages; the client leaves when it returns True.

    Raises:
        FederationError: The server is not trusted, does not answer, or does not know this client's key.
    """
    _check_security(server, ca_certificate, private_key, insecure)
    flower()
    from experiments_manager.federated.deployment.programs import held_alone, make_home
    from experiments_manager.federated.deployment.supernode import sign_off, start_supernode

    with contextlib.ExitStack() as stack:
        # A socket's path may have 107 characters at the most: it is not put into a run's folder.
        private = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="em_client_", ignore_cleanup_errors=True))
        )
        home = make_home(home or private / "flower")
        stack.enter_context(held_alone(home, proc_id))
        path = private / "client.sock"
        listener = stack.enter_context(listening(path))
        listener.settimeout(_POLL)
        refused_until = None
        while not stopping() and _wait_for(server, ca_certificate, patience, stopping):
            node = start_supernode(
                home, path, server, ca_certificate=ca_certificate, private_key=private_key, proc_id=proc_id
            )
            try:
                if _serve(listener, handle, node, stopping):
                    return
            finally:
                node.stop()
            if _was_refused(node):
                if ca_certificate and private_key:
                    sign_off(node.output_before(), server, ca_certificate, private_key)
                refused_until = refused_until or time.monotonic() + refused_patience
                if time.monotonic() >= refused_until:
                    raise _refusal(node, server, private_key)
                logger.warning("The server at %s refuses this client. It is tried again for a minute.", server)
            else:
                refused_until = None
                if ca_certificate and private_key:
                    sign_off(node.output(), server, ca_certificate, private_key)
                logger.warning("The connection to the server at %s was lost. It is tried again.", server)
            _pause(_RESTART_PAUSE, stopping)


def _check_security(server: Address, ca_certificate: Path | None, private_key: Path | None, insecure: bool) -> None:
    """Raise where a client would speak without TLS and nobody asked for that, or a file is missing."""
    if insecure and (ca_certificate or private_key):
        raise FederationError(
            "A client was asked to be insecure, and to use a certificate or a key. Expected one of both. Leave "
            "`--insecure` out."
        )
    if insecure and not server.is_loopback:
        raise FederationError(
            f"Without TLS everybody on the network to {server} could read and change the model. Expected the "
            "certificate of an authority for any other address than 127.0.0.1. Give `--ca-certificate`."
        )
    if not insecure and not ca_certificate:
        raise FederationError(
            "A client needs the certificate of the authority that signed the server's. Give `--ca-certificate FILE`, "
            "or `--insecure` for a first try on this machine."
        )
    for file in filter(None, (ca_certificate, private_key)):
        if not Path(file).is_file():
            raise FederationError(f"{file} is not there. Expected a certificate or a key in this file.")


def _wait_for(
    server: Address, ca_certificate: Path | None, patience: float | None, stopping: Callable[[], bool]
) -> bool:
    """Wait until a server answers; return False when this process is to stop instead."""
    deadline = None if patience is None else time.monotonic() + patience
    told = False
    while not answers(server, ca_certificate):
        if deadline is not None and time.monotonic() > deadline:
            raise FederationError(
                f"No server answers at {server}. Expected that of a federation within {patience:g} s. Start it with "
                "`federate server`, or look whether a firewall is between."
            )
        if not told:
            logger.warning("No server answers at %s yet%s. It is tried again.", server, _HINT)
            told = True
        if _pause(1.0, stopping):
            return False
    return True


def _pause(seconds: float, stopping: Callable[[], bool]) -> bool:
    """Wait so many seconds, and return whether this process is to stop."""
    deadline = time.monotonic() + seconds
    while not stopping() and time.monotonic() < deadline:
        time.sleep(min(_POLL, seconds))
    return stopping()


def _serve(
    listener: socket.socket,
    handle: Callable[[str, RecordDict], RecordDict],
    node: Program,
    stopping: Callable[[], bool],
) -> bool:
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
                if answer_one(connection, handle) == FAREWELL:
                    _let_leave(node)
                    return True
            except wire.Disconnected as error:
                logger.warning(
                    "An answer could not be handed to the SuperNode: %s. It has ended or was restarted.", error
                )
    return True


def answer_one(connection: Connection, handle: Callable[[str, RecordDict], RecordDict]) -> str:
    """Answer the message that comes through a connection and return its type.

    Raises:
        Disconnected: The other side ended before it had the answer.
    """
    from flwr.app import RecordDict

    from experiments_manager.compat.flower import records_from_bytes, records_to_bytes

    header, parts = wire.receive(connection)
    kind = header["type"]
    if kind == FAREWELL:
        with contextlib.suppress(wire.Disconnected):  # its process may have ended with the server
            wire.send(connection, {}, [records_to_bytes(RecordDict())])
        return kind
    try:
        told, content = {}, [records_to_bytes(handle(kind, records_from_bytes(parts[0])))]
    except Exception as error:  # whatever it is, the server shall know and the others go on
        logger.error("The answer to a message of type %s failed.\n%s", kind, traceback.format_exc())
        told, content = {"error": f"{type(error).__name__}: {error}"}, []
    wire.send(connection, told, content)
    return kind


def _let_leave(node: Program) -> None:
    """Wait until the SuperNode has sent the last answer; it says so in its log."""
    sent = node.output().count(_SENT)
    deadline = time.monotonic() + _DELIVERY
    while not node.ended and time.monotonic() < deadline:
        if node.output().count(_SENT) > sent:
            return
        time.sleep(0.1)


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


def _refusal(node: Program, server: Address, private_key: Path | None) -> FederationError:
    """Return the error of a client that is not let in."""
    who = f"The key {private_key} is" if private_key else "This client has no key, and is"
    return FederationError(
        f"{who} not known to the server at {server}, or another client uses it. Expected the private key that belongs "
        f"to one of its public keys. Give `--private-key`, or add the public key at the server. Flower says:\n"
        f"{node.said()}"
    )
