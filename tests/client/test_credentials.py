"""TLS from the client's side: whom it trusts, and what it shows."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import re
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from experiments_manager import Client
from experiments_manager.client.credentials import read_client_tls, read_token
from experiments_manager.client.errors import ClientError, ServerGoneError
from tests.helpers import fake_model_server


@pytest.fixture(scope="module")
def pem(tmp_path_factory: Any) -> Path:
    """A folder with certificate and key, for 127.0.0.1, each signed by itself, of a server and of a client."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("pem")
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.timezone.utc)
        certificate = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(key, hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / f"{name}.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    return folder


@pytest.fixture
def secure(pem: Path) -> Iterator[Any]:
    """Starts servers that talk TLS."""
    servers = []

    def start(**options: Any) -> Any:
        pair = ((pem / "server.key").read_bytes(), (pem / "server.pem").read_bytes())
        servers.append(fake_model_server.FakeServer(credentials=grpc.ssl_server_credentials([pair], **options)))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def ask(server: Any, **options: Any) -> list[list[float]]:
    with Client(server.address, "double", **({"patience": 0.5} | options)) as client:
        return client.predict([[1, 2]])["y"].tolist()


def test_a_pem_file_says_whom_to_trust(secure: Any, pem: Path) -> None:
    assert ask(secure(), tls=pem / "server.pem", token="secret") == [[2, 4]]


@pytest.mark.parametrize("tls", [True, "client.pem"])
def test_a_certificate_that_is_not_trusted_is_an_error_at_once(tls: Any, secure: Any, pem: Path) -> None:
    start = time.monotonic()
    with pytest.raises(ClientError, match=r"TLS with the model server at 127.0.0.1:\d+ failed: .* --ssl-config-file"):
        ask(secure(), tls=pem / tls if isinstance(tls, str) else tls, patience=300.0)
    assert time.monotonic() - start < 100


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_client_without_tls_is_told_that_the_server_may_ask_for_it(host: str, secure: Any) -> None:
    address = secure().address.replace("127.0.0.1", host)
    with (
        Client(address, "double", patience=1.0) as client,
        pytest.raises(
            ServerGoneError, match=r"closes the connection: if it asks for TLS, give --ssl-config-file \(`tls`\)\.$"
        ),
    ):
        client.predict([[1, 2]])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_without_tls_is_not_said_to_have_a_bad_certificate(host: str, pem: Path) -> None:
    server = fake_model_server.FakeServer()
    address = server.address.replace("127.0.0.1", host)
    expected = f"The model server at {address} does not speak TLS. Omit --ssl-config-file (`tls`)."
    try:
        with (
            Client(address, "double", patience=300.0, tls=pem / "server.pem") as client,
            pytest.raises(ServerGoneError, match=f"^{re.escape(expected)}$"),
        ):
            client.predict([[1, 2]])
    finally:
        server.stop()


def test_a_port_for_rest_with_tls_is_told_from_one_for_grpc(pem: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem / "server.pem", pem / "server.key")
    rest = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    rest.socket = context.wrap_socket(rest.socket, server_side=True)
    serving = threading.Thread(target=rest.serve_forever)
    serving.start()
    try:
        with (
            Client(f"127.0.0.1:{rest.server_port}", "double", patience=300.0, tls=pem / "server.pem") as client,
            pytest.raises(ServerGoneError, match="This is a port for REST: name the one for gRPC.$"),
        ):
            client.predict([[1, 2]])
    finally:
        rest.shutdown()
        serving.join()
        rest.server_close()


def test_the_servers_own_file_will_do(secure: Any, pem: Path, tmp_path: Path) -> None:
    (tmp_path / "ssl.config").write_text(f'server_key: "{pem}/server.key"\nserver_cert: "{pem}/server.pem"\n')
    assert ask(secure(), tls=tmp_path / "ssl.config") == [[2, 4]]


def test_a_client_shows_its_certificate(secure: Any, pem: Path, tmp_path: Path) -> None:
    server = secure(root_certificates=(pem / "client.pem").read_bytes(), require_client_auth=True)
    config = tmp_path / "ssl.config"
    config.write_text(
        f'custom_ca: "{pem}/server.pem"\nserver_cert: "{pem}/client.pem"\nserver_key: "{pem}/client.key"\n'
    )
    assert ask(server, tls=config) == [[2, 4]]
    with pytest.raises(ClientError):
        ask(server, tls=pem / "server.pem")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "Cannot read .*: No such file or directory. Expected a PEM file or an SSLConfig"),
        ("custom_ca: 1", "Invalid protobuf file"),
        ('custom_ca: "none.pem"', "Cannot read .*none.pem: No such file .* that custom_ca in .* names"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "ssl.config").write_text(text)
    with pytest.raises(ClientError, match=message):
        read_client_tls(tmp_path / "ssl.config")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("server.key", None, r"server.key holds no certificate\. Expected PEM certificates or an SSLConfig\.$"),
        (
            "cut.pem",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            "cut.pem holds a damaged certificate",
        ),
        ("ssl.config", 'custom_ca: "server.key"', "ssl.config: custom_ca holds no certificate. Expected PEM text or"),
        ("ssl.config", 'server_cert: "server.key"', "ssl.config: server_cert holds no certificate."),
        ("ssl.config", 'server_cert: "client.pem" server_key: "server.key"', "ssl.config: the TLS .* cannot be used"),
    ],
)
def test_a_file_without_a_certificate_is_refused_at_once(
    file: str, text: str | None, message: str, pem: Path, tmp_path: Path
) -> None:
    for name in ("server.key", "client.pem"):
        (tmp_path / name).write_bytes((pem / name).read_bytes())
    if text is not None:
        (tmp_path / file).write_text(text)
    with pytest.raises(ClientError, match=message):
        Client("127.0.0.1:1", "double", tls=tmp_path / file)


def test_a_key_beside_the_certificate_does_no_harm(secure: Any, pem: Path, tmp_path: Path) -> None:
    both = (pem / "server.key").read_bytes() + "# für uns\n".encode() + (pem / "server.pem").read_bytes()
    (tmp_path / "both.pem").write_bytes(both)
    assert ask(secure(), tls=tmp_path / "both.pem") == [[2, 4]]


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("# for us\nsesame\n", r"The token has a control character, such as the end of a line, at place 9\."),
        ("sésame", r"The token has what is not ASCII at place 2\."),
        (b"sesame", "The token is not text. Expected a string, got bytes."),
    ],
)
def test_a_token_that_cannot_be_sent_is_refused_without_showing_it(token: Any, message: str) -> None:
    with pytest.raises(ClientError, match=message) as raised:
        Client("127.0.0.1:1", "double", token=token)
    assert "same" not in str(raised.value)


def test_a_token_file_with_what_cannot_be_sent_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("sésame", encoding="utf-8")
    with pytest.raises(ClientError, match="The first token in .*tokens has what is not ASCII"):
        read_token(tmp_path / "tokens")
