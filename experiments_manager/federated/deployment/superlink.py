"""A SuperLink of Flower on the loopback address, with certificates of its own where TLS is used."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments_manager.common.machine.addresses import free_port
from experiments_manager.federated.deployment.addresses import Address, answers
from experiments_manager.federated.deployment.app_bundle import CONNECTION, write_connection
from experiments_manager.federated.deployment.certificates import make_certificates
from experiments_manager.federated.deployment.forwarding import SOCKET
from experiments_manager.federated.deployment.programs import Program, call, start
from experiments_manager.federated.errors import FederationError

START = 120.0
"""Seconds that a SuperLink has to answer, which a busy machine may need."""
_POLL = 0.1


@dataclass(frozen=True)
class SuperLink:
    """A SuperLink that runs.

    Attributes:
        program: Its process.
        address: Where it listens, on the loopback address.
        ca_certificate: What its certificate is signed with; None without TLS.
    """

    program: Program
    address: Address
    ca_certificate: Path | None

    @property
    def url(self) -> str:
        """What a gate passes requests on to."""
        return f"http{'s' if self.ca_certificate else ''}://{self.address}"


@contextlib.contextmanager
def running_superlink(
    home: Path, socket: Path, *, tls: bool = True, public_keys: Sequence[Path] | None = None
) -> Iterator[SuperLink]:
    """Run a SuperLink while the block runs.

    Args:
        home: The folder that `make_home` made.
        socket: Where the process of the ServerApp finds ours.
        tls: Whether it uses TLS; the certificate is made here, since it listens for this machine alone.
        public_keys: The public keys of the only clients that may join; None where all may.

    Raises:
        FederationError: It does not start, or does not take one of the keys.
    """
    address = Address("127.0.0.1", free_port())
    arguments = ["--disable-runtime-dependency-installation", "--host", address.host, "--port", str(address.port)]
    shutil.rmtree(home / "tls", ignore_errors=True)  # of a server that ended, and whose run goes on
    certificates = make_certificates(home / "tls", ["127.0.0.1", "localhost"]) if tls else None
    if certificates:
        arguments += ["--ssl-certfile", certificates.certificate, "--ssl-keyfile", certificates.key]
        arguments += ["--ssl-ca-certfile", certificates.ca_certificate]
    else:
        arguments.append("--insecure")
    if public_keys is not None:
        arguments.append("--enable-supernode-auth")
    ca_certificate = certificates.ca_certificate if certificates else None
    program = start("flower-superlink", arguments, home, {SOCKET: str(socket)})
    try:
        deadline = time.monotonic() + START
        while not answers(address, ca_certificate):
            program.check()
            if time.monotonic() > deadline:
                raise FederationError(
                    f"The SuperLink does not answer after {START:.0f} s. Its log is {program.log}, which ends with:\n"
                    f"{program.said()}"
                )
            time.sleep(_POLL)
        write_connection(home, str(address), ca_certificate)
        for key in public_keys or ():
            register(home, key)
        yield SuperLink(program, address, ca_certificate)
    finally:
        program.stop()


def register(home: Path, public_key: Path) -> None:
    """Let the client with a public key join.

    Raises:
        FederationError: It is not the file of a public key of the right kind, or came twice.
    """
    try:
        call("flwr", ["supernode", "register", Path(public_key).absolute(), CONNECTION], home)
    except FederationError as error:
        raise FederationError(
            f"The public key {public_key} cannot be registered. Expected a file as `ssh-keygen -t ecdsa -b 384` "
            f"writes, one for each client. {error}"
        ) from error
