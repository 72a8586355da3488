"""Addresses of servers, `host:port`, and whether one answers there with a certificate that is trusted."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from experiments_manager.common.machine.addresses import is_loopback
from experiments_manager.federated.errors import FederationError

DEFAULT_PORT = 9092


@dataclass(frozen=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)


def read_address(text: str) -> Address:
    """Read `host`, `host:port` or `[IPv6]:port`; the port is 9092 where there is none.

    Raises:
        FederationError: It is none of them.
    """
    host, _, port = text.rpartition(":") if ":" in text.rpartition("]")[2] else (text, "", str(DEFAULT_PORT))
    host = host.removeprefix("[").removesuffix("]")
    if not host or "/" in text or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise FederationError(
            f"{text!r} is no address of a server. Expected HOST:PORT, such as federation.example.org:{DEFAULT_PORT}."
        )
    return Address(host, int(port))


def answers(address: Address, ca_certificate: Path | None, timeout: float = 5.0) -> bool:
    """Return whether a server answers there. Who accepts a connection and closes it at once, as a proxy does whose
    server is not up, is none.

    Args:
        address: Where.
        ca_certificate: What its certificate must be signed with; None without TLS.
        timeout: Seconds to wait.

    Raises:
        FederationError: It answers, but not with a certificate that is signed so and made out for this host.
    """
    try:
        with socket.create_connection((address.host, address.port), timeout=timeout) as connection:
            if ca_certificate is not None:
                context = ssl.create_default_context(cafile=str(ca_certificate))
                context.wrap_socket(connection, server_hostname=address.host).close()
            return True
    except ssl.SSLCertVerificationError as error:
        raise FederationError(
            f"The certificate of the server at {address} is not accepted: {error.verify_message}. Expected one that is "
            f"signed by {ca_certificate} and made out for {address.host}. Ask who runs the server for the certificate "
            "of its authority."
        ) from error
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return False
    except ssl.SSLError as error:
        raise FederationError(
            f"The server at {address} does not speak TLS: {error.reason or error}. Expected the server of a federation "
            "there. If that one was started with `--insecure`, start the client so, too."
        ) from error
    except OSError:
        return False
