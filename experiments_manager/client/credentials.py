"""What a client shows to a server, and what it asks to be shown: TLS and bearer tokens."""

from __future__ import annotations

import dataclasses
import ssl
from pathlib import Path

from experiments_manager.client.errors import ClientError
from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.protocol.tls import load_key_pair

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
    """Read how to talk TLS with a server.

    Args:
        file: Either certificates as PEM, which the server's own is checked against; or TensorFlow Serving's
            `SSLConfig` in text format, as the server takes it. There `custom_ca` is the authority that the server's
            certificate is checked against, and `server_cert` and `server_key`, where they are given, are what the
            client shows. Without `custom_ca`, the certificate itself is what is trusted, so that the file of a server
            with a certificate of its own making will do.

    Raises:
        ClientError: The file cannot be read, is neither, or holds no certificate.
    """
    file = Path(file)
    content = _read(file, "a PEM file or an SSLConfig in text format")
    if content.lstrip().startswith(_PEM):
        _check_certificates(content, str(file), "PEM certificates or an SSLConfig")
        return ClientTls(authority=content)
    from experiments_manager.protocol.text_format import read_text_config

    try:
        config = read_text_config(file, "SSLConfig")
    except ServerStartError as error:
        raise ClientError(str(error)) from error
    authority, certificate, key = (
        _pem(file, field, getattr(config, field)) for field in ("custom_ca", "server_cert", "server_key")
    )
    for field, pem in (("custom_ca", authority), ("server_cert", certificate)):
        if pem is not None:
            _check_certificates(pem, f"{file}: {field}", "PEM text or the path of a PEM file, with certificates")
    if key is None or certificate is None:
        return ClientTls(authority or certificate)
    _check_pair(file, key, certificate)
    return ClientTls(authority or certificate, certificate, key)


def _check_certificates(pem: bytes, where: str, expected: str) -> None:
    """Refuse what gRPC could not use, for it would only say that it cannot connect."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        what = "a damaged certificate" if b"-----BEGIN CERTIFICATE-----" in pem else "no certificate"
        raise ClientError(f"{where} holds {what}. Expected {expected}.") from error


def _check_pair(file: Path, key: bytes, certificate: bytes) -> None:
    try:
        load_key_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), key, certificate)
    except (ssl.SSLError, ValueError) as error:
        raise ClientError(
            f"{file}: the TLS configuration cannot be used: {error}. Expected a private key without passphrase in "
            "server_key, and the certificate that belongs to it in server_cert, as PEM."
        ) from error


def _pem(file: Path, field: str, value: str) -> bytes | None:
    if not value:
        return None
    if _PEM.decode() in value:
        return value.encode()
    return _read(file.parent / value, f"the PEM file that {field} in {file} names")


def read_token(file: Path | str) -> str:
    """Read the first token of a token file, in which empty lines and lines that begin with `#` count for nothing.

    Raises:
        ClientError: The file cannot be read, contains no token, or one that cannot be sent.
    """
    text = _read(Path(file), "a file with one token a line").decode("utf-8", "replace")
    tokens = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    if not tokens:
        raise ClientError(
            f"{file} contains no token. Expected one a line. Write the one that the server knows into it."
        )
    return checked_token(tokens[0], f"The first token in {file}")


def checked_token(token: str, where: str = "The token") -> str:
    """Return a token without the white space around it, such as the end of the line that it was read with.

    Raises:
        ClientError: It cannot be sent in a header: it has several lines, or other than printable ASCII characters.
    """
    if not isinstance(token, str):
        raise ClientError(f"{where} is not text. Expected a string, got {type(token).__name__}. Decode it.")
    token = token.strip()
    for place, character in enumerate(token, 1):
        if not " " <= character <= "~":
            kind = "a control character, such as the end of a line," if character.isascii() else "what is not ASCII"
            raise ClientError(
                f"{where} has {kind} at place {place}. Expected one line of printable ASCII characters. "
                "Give a file with several lines by its name: --auth-token-file (`token_file`)."
            )
    return token


def _read(file: Path, expected: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ClientError(f"Cannot read {file}: {error.strerror}. Expected {expected}.") from error
