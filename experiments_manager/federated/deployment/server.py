"""The server of a federation over several machines: where it listens and for whom, SuperLink, gate, and its fleet."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments_manager.federated.checked_options import checked_options
from experiments_manager.federated.deployment.addresses import read_address
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.fleet import Fleet
from experiments_manager.federated.flower import flower
from experiments_manager.federated.settings_handshake import terms_of

if TYPE_CHECKING:
    from experiments_manager.federated.deployment.grid import ForwardedGrid
    from experiments_manager.federated.deployment.programs import Program
    from experiments_manager.training.engine.context import TrainingContext

logger = logging.getLogger(__name__)

KIND = "deployment"
"""What `run.json` calls such a federation."""
FLOWER = "flower"
"""The folder of the run in which Flower writes."""
FAREWELL = "query.federation_over"
"""The type of the message that tells clients to end."""
_FAREWELL_PATIENCE = 60.0
"""Seconds that clients have to answer the last message, which a busy machine may need."""
_APP_START = 180.0
"""Seconds that Flower has to start the process of the ServerApp."""


@dataclasses.dataclass(frozen=True)
class Deployment:
    """Where a server listens, how it proves who it is, and who may join; all paths are absolute.

    Attributes:
        address: `host:port`.
        certificate: In PEM, with those between it and the authority that clients trust; `None` only with `insecure`.
        key: Its private key.
        public_keys: Files of the public keys of the only clients that may join; `None` lets everyone in.
        insecure: Whether there is neither TLS nor authentication.
    """

    address: str
    certificate: str | None = None
    key: str | None = None
    public_keys: Sequence[str] | None = None
    insecure: bool = False

    @classmethod
    def make(
        cls,
        address: str,
        *,
        certificate: Path | str | None = None,
        key: Path | str | None = None,
        public_keys: Sequence[Path | str] = (),
        insecure: bool = False,
    ) -> Deployment:
        """Return the deployment with absolute paths, after all that can be wrong with it was looked at.

        Raises:
            FederationError: It is not safe, the address is none, or a file is missing.
        """
        paths = [None if file is None else str(Path(file).expanduser().absolute()) for file in (certificate, key)]
        keys = [str(Path(file).expanduser().absolute()) for file in public_keys]
        made = cls(str(read_address(address)), *paths, keys or None, insecure)
        made.check()
        return made

    @classmethod
    def of(cls, federation: Mapping[str, Any]) -> Deployment:
        """Return what `run.json` says of it."""
        return cls(**{field.name: federation.get(field.name, field.default) for field in dataclasses.fields(cls)})

    def to_json(self) -> dict[str, Any]:
        """Return what is kept in `run.json`, for a resume: paths, and nothing that is in the files."""
        return dataclasses.asdict(self)

    def check(self) -> None:
        """Raise where a server would be open to others without that being asked for, or a file is missing.

        Raises:
            FederationError: It is not safe, the address is none, or a file is missing.
        """
        address = read_address(self.address)
        if bool(self.certificate) != bool(self.key):
            raise FederationError(
                "A server needs a certificate and its private key. Expected a certificate and its key, got one of them "
                "alone. Give `--certificate FILE --key FILE`."
            )
        if self.insecure and self.certificate:
            raise FederationError(
                "A server was asked to be insecure, and to use a certificate. Expected one of both. Leave `--insecure` "
                "out."
            )
        if self.insecure and not address.is_loopback:
            raise FederationError(
                f"A server without TLS at {address} would let everybody on the network read and change the model. "
                "Expected a certificate and its key for any other address than 127.0.0.1. Give `--certificate` and "
                "`--key`."
            )
        if not self.insecure and not self.certificate:
            raise FederationError(
                "A server needs a certificate and its private key. Give `--certificate FILE --key FILE`, or "
                "`--insecure` for a first try on this machine."
            )
        for file in [] if self.insecure else [self.certificate, self.key, *(self.public_keys or ())]:
            if not Path(file).is_file():
                raise FederationError(f"{file} is not there. Expected a certificate or a key in this file.")


@contextlib.contextmanager
def deployed_fleet(context: TrainingContext, deployment: Deployment) -> Iterator[Fleet]:
    """Listen for the clients of a run; nothing of Flower runs afterwards.

    Args:
        context: The run of the global model.
        deployment: Where to listen, and for whom.

    Raises:
        FederationError: The server cannot start.
    """
    settings = context.experiment.settings

    def is_over() -> bool:
        progress = context.experiment.state.progress  # a resume puts another one in its place
        return progress.epoch >= settings.epochs or bool(progress.stop_reason)

    config = terms_of(settings) | {"run": context.run.name, "clients": checked_options(settings).clients}
    with running_server(deployment, home=context.run.path / FLOWER, is_over=is_over) as grid:
        context.dispatch("on_message", f"The server of the federation listens at {deployment.address}.")
        yield Fleet(grid, config)


@contextlib.contextmanager
def running_server(
    deployment: Deployment, *, home: Path | None = None, is_over: Callable[[], bool] = lambda: True
) -> Iterator[ForwardedGrid]:
    """Give the grid of a federation to which SuperNodes connect while the block runs.

    Args:
        deployment: Where to listen, and for whom.
        home: A folder for the logs and everything else that Flower writes; a temporary one where there is none.
        is_over: Asked when the block ended without an error: whether the clients are told that the federation is over,
            and end. Otherwise they wait for a server at the same address.

    Raises:
        FederationError: It cannot start, or ended by itself.
    """
    deployment.check()
    flower()
    from experiments_manager.federated.deployment.fleet_gate import open_gate
    from experiments_manager.federated.deployment.programs import make_home
    from experiments_manager.federated.deployment.superlink import running_superlink

    with contextlib.ExitStack() as stack:
        # A socket's path may have 107 characters at the most: it is not put into a run's folder.
        temporary = tempfile.TemporaryDirectory(prefix="em_server_", ignore_cleanup_errors=True)
        path = Path(stack.enter_context(temporary)) / "server.sock"
        home = make_home(home or path.parent / "flower")
        listener = stack.enter_context(listening(path))
        tls, public_keys = not deployment.insecure, deployment.public_keys
        link = stack.enter_context(running_superlink(home, path, tls=tls, public_keys=public_keys))
        address, files = read_address(deployment.address), (deployment.certificate, deployment.key)
        stack.enter_context(open_gate(address, link.url, link.ca_certificate, *files))
        grid = stack.enter_context(_server_app(home, listener, link.program))
        yield grid
        if is_over():
            say_farewell(grid)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Listen at a Unix domain socket, in a folder that nobody else may enter."""
    path.parent.chmod(0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(16)
        listener.settimeout(0.2)
        yield listener


@contextlib.contextmanager
def _server_app(home: Path, listener: socket.socket, superlink: Program) -> Iterator[ForwardedGrid]:
    """Let Flower start the ServerApp, and give the grid that it forwards."""
    from experiments_manager.compat.flower import take_identity
    from experiments_manager.federated.deployment import wire
    from experiments_manager.federated.deployment.grid import ForwardedGrid
    from experiments_manager.federated.deployment.superlink import submit_app

    submit_app(home)
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
