"""Who may talk to the server: TLS with client certificates, and bearer tokens, for gRPC and REST alike.

The TLS file is TensorFlow Serving's `SSLConfig` in text format. `server_key`, `server_cert` and `custom_ca` hold PEM
text as there; a path to a PEM file is taken too, so that no key need be pasted into another file:

    server_key: "/etc/serving/key.pem"
    server_cert: "/etc/serving/cert.pem"
    custom_ca: "/etc/serving/ca.pem"
    client_verify: true

A token file holds one token a line; empty lines and lines that begin with `#` count for nothing. It is read again when
it changes, so a token is withdrawn without a restart.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import logging
import os
import ssl
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.protocol.text_format import read_text_config
from experiments_manager.protocol.tls import load_key_pair

if TYPE_CHECKING:
    import grpc

logger = logging.getLogger(__name__)

UNAUTHENTICATED = "This server asks for a token. Send `authorization: Bearer TOKEN` with one that it knows."
UNKNOWN_TOKEN = (
    "This server does not know the token that was shown. Send `authorization: Bearer TOKEN` with one that it knows."
)
_SCHEME = "bearer "


@dataclasses.dataclass(frozen=True)
class Tls:
    """Key and certificates of a server, as PEM."""

    server_key: bytes
    server_cert: bytes
    custom_ca: bytes | None
    """Authority that client certificates are checked against."""
    client_verify: bool
    """Whether a client must show a certificate."""

    def ssl_context(self) -> ssl.SSLContext:
        """For a server of Python's own `ssl`, such as aiohttp.

        Raises:
            ServerStartError: Key and certificate do not belong together, or are damaged.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            load_key_pair(context, self.server_key, self.server_cert)
            if self.client_verify:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(cadata=(self.custom_ca or b"").decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise ServerStartError(
                f"The TLS configuration cannot be used: {error}. Expected a private key without passphrase in "
                "server_key, the certificate that belongs to it in server_cert, and certificates in custom_ca, as PEM."
            ) from error
        return context

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For a gRPC server.

        Raises:
            ServerStartError: As for `ssl_context`; gRPC itself would only say that it could not bind.
        """
        import grpc

        self.ssl_context()
        return grpc.ssl_server_credentials(
            [(self.server_key, self.server_cert)], self.custom_ca, require_client_auth=self.client_verify
        )


def read_tls(file: Path | str) -> Tls:
    """Read an `SSLConfig` file.

    Args:
        file: Text proto; see the head of this module.

    Returns:
        What it says, checked to be usable.

    Raises:
        ServerStartError: It cannot be read, lacks key or certificate, or they do not fit together.
    """
    file = Path(file)
    config = read_text_config(file, "SSLConfig")
    for field in ("server_key", "server_cert"):
        if not getattr(config, field):
            raise ServerStartError(f"{file}: {field} is missing. Expected PEM text or the path of a PEM file. Add it.")
    if config.client_verify and not config.custom_ca:
        raise ServerStartError(
            f"{file}: client_verify is set and custom_ca is missing. "
            "Expected PEM text or the path of a PEM file. Add it, or omit client_verify."
        )
    tls = Tls(
        server_key=_pem(file, "server_key", config.server_key),
        server_cert=_pem(file, "server_cert", config.server_cert),
        custom_ca=_pem(file, "custom_ca", config.custom_ca) if config.custom_ca else None,
        client_verify=config.client_verify,
    )
    tls.ssl_context()
    return tls


def _pem(file: Path, field: str, value: str) -> bytes:
    if "-----BEGIN" in value:
        return value.encode()
    path = file.parent / value
    try:
        return path.read_bytes()
    except OSError as error:
        raise ServerStartError(
            f"{file}: {field}: cannot read {path}: {error.strerror}. Expected PEM text or the path of a PEM file."
        ) from error


class Tokens:
    """The tokens that a server accepts.

    Args:
        file: One token a line.

    Raises:
        ServerStartError: The file cannot be read, or contains no token.
    """

    def __init__(self, file: Path | str) -> None:
        self._file = Path(file)
        self._lock = threading.Lock()
        try:
            self._stamp = self._read_stamp()
            self._digests = _digests(self._file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise ServerStartError(
                f"Cannot read the token file {file}: {reason}. Expected a text file with one token a line."
            ) from error
        if not self._digests:
            raise ServerStartError(
                f"The token file {file} contains no token. Expected one token a line. Make one: "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        if os.name == "posix" and self._file.stat().st_mode & 0o077:
            logger.warning("Others may read the token file %s. Run: chmod 600 %s", file, file)

    def accepts(self, authorization: str | bytes | None) -> bool:
        """Tell whether the value of an `authorization` header names one of the tokens.

        It takes the same time for each wrong token: digests are compared, all of them, in constant time.
        """
        return self.refusal(authorization) is None

    def refusal(self, authorization: str | bytes | None) -> str | None:
        """Say why the value of an `authorization` header is refused; `None` where it names one of the tokens."""
        if isinstance(authorization, bytes):
            authorization = authorization.decode("latin-1")
        authorization = authorization or ""
        token = authorization[len(_SCHEME) :].strip()
        if authorization[: len(_SCHEME)].lower() != _SCHEME or not token:
            return UNAUTHENTICATED
        return None if self._knows(token) else UNKNOWN_TOKEN

    def _knows(self, token: str) -> bool:
        digest = _digest(token)
        known_token = False
        for known in self._current():
            known_token |= hmac.compare_digest(digest, known)
        return known_token

    def _current(self) -> list[bytes]:
        """Return the digests, read again where the file has changed; an unreadable file accepts no new token."""
        with self._lock:
            try:
                stamp = self._read_stamp()
                if stamp != self._stamp:
                    self._digests = _digests(self._file.read_text(encoding="utf-8"))
                    self._stamp = stamp
                    logger.warning("Read %d tokens from %s again, for it changed.", len(self._digests), self._file)
            except (OSError, UnicodeDecodeError) as error:
                if self._stamp is not None:
                    logger.error("Cannot read the token file %s (%s): every request is refused.", self._file, error)
                self._stamp, self._digests = None, []
            return self._digests

    def _read_stamp(self) -> tuple[int, int, int] | None:
        status = self._file.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino


def grpc_token_interceptor(tokens: Tokens) -> Any:
    """Return an interceptor for `grpc.aio.server` that answers UNAUTHENTICATED without a known token."""
    import grpc

    def refusing(message: str) -> Any:
        async def refuse(request: Any, context: grpc.aio.ServicerContext) -> Any:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, message)

        return grpc.unary_unary_rpc_method_handler(refuse)

    handlers = {message: refusing(message) for message in (UNAUTHENTICATED, UNKNOWN_TOKEN)}

    class TokenInterceptor(grpc.aio.ServerInterceptor):
        """Look at the metadata of each call before anything of it is read."""

        async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
            metadata = handler_call_details.invocation_metadata
            refusal = tokens.refusal(next((value for key, value in metadata if key == "authorization"), None))
            return handlers[refusal] if refusal else await continuation(handler_call_details)

    return TokenInterceptor()


def _digests(text: str) -> list[bytes]:
    lines = (line.strip() for line in text.splitlines())
    return [_digest(line) for line in lines if line and not line.startswith("#")]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", errors="surrogateescape")).digest()
