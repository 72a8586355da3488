"""A SuperLink of Flower on the loopback address, and the Flower app that it starts for our server and clients."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments_manager.common.machine.addresses import free_port
from experiments_manager.federated.deployment.addresses import Address, answers
from experiments_manager.federated.deployment.certificates import make_certificates
from experiments_manager.federated.deployment.forwarding import SOCKET
from experiments_manager.federated.deployment.programs import Program, call, start
from experiments_manager.federated.errors import FederationError

START = 120.0
"""Seconds that a SuperLink has to answer, which a busy machine may need."""
_POLL = 0.1
_CONNECTION = "federation"
"""What our SuperLink is called in the configuration of Flower."""
_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "federation"
version = "1.0.0"
description = "Hands messages over to experiments_manager."
license = "MIT"
dependencies = []

[tool.flwr.app]
publisher = "experiments-manager"

[tool.flwr.app.components]
serverapp = "federation_app.server:app"
clientapp = "federation_app.client:app"

[tool.flwr.app.config]
"""
_MODULE = "from experiments_manager.federated.deployment.forwarding import {name}\n\napp = {name}\n"


class SuperLink(NamedTuple):
    """A SuperLink that runs."""

    program: Program
    url: str
    """What a gate passes requests on to."""
    ca_certificate: Path | None
    """What its certificate is signed with; `None` without TLS."""


@contextlib.contextmanager
def running_superlink(
    home: Path, socket: Path, *, tls: bool = True, public_keys: Sequence[Path | str] | None = None
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
    ca_certificate = None
    if tls:
        made = make_certificates(home / "tls", ["127.0.0.1", "localhost"])
        ca_certificate = made.ca_certificate
        arguments += [
            "--ssl-certfile",
            made.certificate,
            "--ssl-keyfile",
            made.key,
            "--ssl-ca-certfile",
            ca_certificate,
        ]
    else:
        arguments.append("--insecure")
    if public_keys is not None:
        arguments.append("--enable-supernode-auth")
    program = start("flower-superlink", arguments, home, {SOCKET: str(socket)})
    try:
        _wait_for(program, address, ca_certificate)
        trust = f"root-certificates = {json.dumps(str(ca_certificate))}" if ca_certificate else "insecure = true"
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{_CONNECTION}"\n\n[superlink.{_CONNECTION}]\naddress = "{address}"\n{trust}\n'
        )
        for key in public_keys or ():
            _register(home, Path(key))
        yield SuperLink(program, f"http{'s' if tls else ''}://{address}", ca_certificate)
    finally:
        program.stop()


def _wait_for(program: Program, address: Address, ca_certificate: Path | None) -> None:
    deadline = time.monotonic() + START
    while not answers(address, ca_certificate):
        program.check()
        if time.monotonic() > deadline:
            raise FederationError(
                f"The SuperLink does not answer after {START:.0f} s. Its log is {program.log}, which ends with:\n"
                f"{program.said()}"
            )
        time.sleep(_POLL)


def _register(home: Path, public_key: Path) -> None:
    """Let the client with a public key join.

    Raises:
        FederationError: It is not the file of a public key of the right kind, or came twice.
    """
    try:
        call("flwr", ["supernode", "register", public_key.absolute(), _CONNECTION], home)
    except FederationError as error:
        raise FederationError(
            f"The public key {public_key} cannot be registered. Expected a file as `ssh-keygen -t ecdsa -b 384` "
            f"writes, one for each client. {error}"
        ) from error


def submit_app(home: Path) -> None:
    """Hand an app of two modules of one line over to the SuperLink, which starts it at once.

    Raises:
        FederationError: Flower refused it; its own words are in the message.
    """
    folder = home / "app"
    shutil.rmtree(folder, ignore_errors=True)  # of a server that ended, and whose run goes on
    modules = folder / "federation_app"
    modules.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(_PROJECT)
    (modules / "__init__.py").write_text("")
    for name in ("server", "client"):
        (modules / f"{name}.py").write_text(_MODULE.format(name=f"{name}_app"))
    call("flwr", ["run", folder, _CONNECTION], home)
