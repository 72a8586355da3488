"""Private keys and certificates in PEM, given to OpenSSL."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path


def load_key_pair(context: ssl.SSLContext, key: bytes, certificate: bytes) -> None:
    """Load a private key without passphrase and the certificate that belongs to it.

    Args:
        context: What is to use them.
        key: The key, as PEM.
        certificate: The certificate and its chain, as PEM.

    Raises:
        ssl.SSLError: They are damaged, or do not belong together.
    """
    with _as_file(certificate + b"\n" + key) as file:
        context.load_cert_chain(file, password="")  # without, OpenSSL would ask at the terminal for one


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """OpenSSL reads keys from files alone; this one is readable by its owner only, and gone a moment later."""
    descriptor, name = tempfile.mkstemp(suffix=".pem")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        yield name
    finally:
        Path(name).unlink(missing_ok=True)
