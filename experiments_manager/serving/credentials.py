"""What a client shows to a server, and what it asks to be shown: TLS and bearer tokens."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from experiments_manager.serving.errors import ClientError

_PEM = b"-----BEGIN"


@dataclasses.dataclass(frozen=True)
class ClientTls:
    """TLS of a client, as PEM.

    Attributes:
        authority: Certificates that the server's own is checked against; `None`: those that the machine trusts.
        certificate: The client's certificate, for servers that ask for one.
        key: Its private key.
    """

    authority: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None


def read_client_tls(file: Path | str) -> ClientTls:
    """Reads how to talk TLS with a server.

    Args:
        file: Either certificates as PEM, which the server's own is checked against; or TensorFlow Serving's
            `SSLConfig` in text format, as the server takes it. There `custom_ca` is the authority that the server's
            certificate is checked against, and `server_cert` and `server_key`, where they are given, are what the
            client shows. Without `custom_ca`, the certificate itself is what is trusted, so that the file of a server
            with a certificate of its own making will do.

    Raises:
        ClientError: The file cannot be read, or is neither.
    """
    file = Path(file)
    content = _read(file, "a PEM file or an SSLConfig in text format")
    if content.lstrip().startswith(_PEM):
        return ClientTls(authority=content)
    from experiments_manager.serving.errors import ServerStartError
    from experiments_manager.serving.text_configs import read_text_config

    try:
        config = read_text_config(file, "SSLConfig")
    except ServerStartError as error:
        raise ClientError(str(error)) from error
    authority, certificate, key = (
        _pem(file, field, getattr(config, field)) for field in ("custom_ca", "server_cert", "server_key")
    )
    if key is None or certificate is None:
        return ClientTls(authority or certificate)
    return ClientTls(authority or certificate, certificate, key)


def _pem(file: Path, field: str, value: str) -> bytes | None:
    if not value:
        return None
    if _PEM.decode() in value:
        return value.encode()
    return _read(file.parent / value, f"the PEM file that {field} in {file} names")


def read_token(file: Path | str) -> str:
    """Reads the first token of a token file, in which empty lines and lines that begin with `#` count for nothing.

    Raises:
        ClientError: The file cannot be read, or holds no token.
    """
    text = _read(Path(file), "a file with one token a line").decode("utf-8", "replace")
    tokens = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    if not tokens:
        raise ClientError(f"{file} holds no token. Expected one a line. Write the one that the server knows into it.")
    return tokens[0]


def _read(file: Path, expected: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ClientError(f"Cannot read {file}: {error.strerror}. Expected {expected}.") from error
