"""Why a model server cannot be reached, as gRPC's errors say it, and what may help."""

from __future__ import annotations

import dataclasses
import re

import grpc

from experiments_manager.client.errors import ServerGoneError
from experiments_manager.protocol.status import Code

_NO_CONNECTION = "failed to connect to all addresses"
_ADDRESS = re.compile(r"last error: \w+: ((?:ipv4|ipv6|unix)\S*?): ")


_GONE = "The model server at {address} cannot be reached{waited} ({details}). Expected a model server at that address. "
_TLS_FAILED = "TLS with the model server at {address} failed: {details}. "
_NO_TLS = "The model server at {address} does not speak TLS. "
START = "Start one: experiments_manager serve RUN"
"""What to do; where the run is known, its command stands instead."""
_REST = "This is a port for REST: name the one for gRPC."
_OTHER_PROTOCOL = "What listens there speaks another protocol: name the port for gRPC."
_HANGS_UP = "The port closes the connection: if it asks for {wanted}, give --ssl-config-file (`tls`)."
_NOT_TRUSTED = "Expected a certificate that this client trusts: --ssl-config-file names the file that says which."
_LEAVE_TLS_OUT = "Omit --ssl-config-file (`tls`)."


@dataclasses.dataclass(frozen=True)
class ConnectionFault:
    """Something listens at the address, and no connection comes about.

    Attributes:
        sign: Pattern in gRPC's words that shows it.
        what: What is wrong, for the user.
        advice: What may help.
        is_permanent: Whether waiting surely does not help.
    """

    sign: str
    what: str
    advice: str
    is_permanent: bool


_FAULTS = (  # the first whose sign is found counts
    ConnectionFault("WRONG_VERSION_NUMBER", _NO_TLS, _LEAVE_TLS_OUT, True),
    ConnectionFault("missing selected ALPN", _GONE, _REST, True),
    ConnectionFault(r"http1\.x server \(HTTP status 50[234]", _GONE, _REST, False),  # a proxy without a server
    ConnectionFault(r"http1\.x server", _GONE, _REST, True),
    ConnectionFault("Expected SETTINGS frame", _GONE, _OTHER_PROTOCOL, False),
    ConnectionFault(
        "SSL_ERROR|CERTIFICATE_VERIFY_FAILED|Peer name|security handshaker", _TLS_FAILED, _NOT_TRUSTED, True
    ),
    ConnectionFault(f"{_NO_CONNECTION}.*Socket closed", _GONE, _HANGS_UP, False),  # and not in the middle of a request
)


class FaultHistory:
    """The newest error of each network address of a server.

    A name such as `localhost` may have several addresses, and gRPC gives the error of one of them, now this and now
    that. Where something listens at one of them, that says more than that nothing listens at another.
    """

    def __init__(self) -> None:
        self._newest: dict[str, grpc.RpcError] = {}

    def add(self, error: grpc.RpcError) -> None:
        """Note an error, which takes the place of what was known of its address."""
        found = _ADDRESS.search(error.details() or "")
        address = found[1] if found else ""
        if not address or "" in self._newest:  # a connection was there, or is gone again: what was before is over
            self._newest.clear()
        self._newest.pop(address, None)
        self._newest[address] = error

    def most_specific(self) -> grpc.RpcError:
        """Return the newest error that shows what listens there, else the newest of all."""
        errors = list(reversed(self._newest.values()))
        return next(filter(fault_of, errors), errors[0])


def fault_of(error: grpc.RpcError) -> ConnectionFault | None:
    """Return what listens there, if the error says so."""
    text = error.details() or ""
    return next((one for one in _FAULTS if re.search(one.sign, text)), None)


def is_permanent(error: grpc.RpcError) -> bool:
    """Return whether waiting for the server surely does not help."""
    found = fault_of(error)
    return found is not None and found.is_permanent


def unreachable(
    error: grpc.RpcError, address: str, *, waited: float | None = None, with_tls: bool = False
) -> ServerGoneError:
    """Make the error for the user.

    Args:
        error: What gRPC said.
        address: The server's address.
        waited: For how many seconds the server was waited for; `None` where that would not have helped.
        with_tls: Whether the client talks TLS.
    """
    found = fault_of(error)
    text = found.what + found.advice if found else _GONE + START
    message = text.format(
        address=address,
        waited="" if waited is None else f", for {waited:g} s",
        details=short(error),
        wanted="a certificate of yours" if with_tls else "TLS",
    )
    return ServerGoneError(message, Code.UNAVAILABLE)


def short(error: grpc.RpcError) -> str:
    """Return the end of gRPC's words, in one line, which says what happened."""
    details = " ".join((error.details() or error.code().name.lower()).split())
    # "failed to connect to all addresses; last error: UNKNOWN: ipv4:…: Failed to connect to …: Connection refused",
    # and of TLS "…: CERTIFICATE_VERIFY_FAILED: self signed certificate: OK"
    if details.startswith(_NO_CONNECTION):
        return details.removesuffix(": OK").rpartition(": ")[2]
    return details
