"""How the server of a federation is reached, and by whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.federated.deployment.addresses import read_address
from experiments_manager.federated.deployment.server import ServerSecurity, check_security
from experiments_manager.federated.errors import FederationError

KIND = "deployment"
"""What `run.json` calls such a federation."""


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

    @property
    def security(self) -> ServerSecurity | None:
        """What the server proves itself with."""
        if not self.certificate and not self.key:
            return None
        keys = None if self.public_keys is None else [Path(file) for file in self.public_keys]
        return ServerSecurity(Path(self.certificate or ""), Path(self.key or ""), keys)

    def check(self) -> None:
        """Raise what is wrong with it.

        Raises:
            FederationError: It is not safe, or a file is missing.
        """
        if bool(self.certificate) != bool(self.key):
            raise FederationError(
                "A server needs a certificate and its private key. Expected a certificate and its key, got one of them "
                "alone. Give `--certificate FILE --key FILE`."
            )
        check_security(read_address(self.address), self.security, self.insecure)
