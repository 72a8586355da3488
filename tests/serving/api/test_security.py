"""TLS with client certificates and bearer tokens, on a real server, for gRPC and REST."""

import datetime
import ssl

import pytest

from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.serving.api.security import Tokens, read_tls


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, and certificates of it for a server and a client; and a client of another authority."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("certificates")
    now = datetime.datetime.now(datetime.timezone.utc)

    def make(name, signed_by=None):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        issuer, issuer_key = (signed_by[0].subject, signed_by[1]) if signed_by else (subject, key)
        import ipaddress

        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=signed_by is None, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(authority_key, critical=False)
            .sign(issuer_key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        plain = serialization.NoEncryption()
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
        (folder / f"{name}.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        return certificate, key

    authority, stranger = make("authority"), make("stranger")
    make("server", authority)
    make("client", authority)
    make("intruder", stranger)
    return folder


def tls_config(folder, tmp_path, **changes):
    fields = {"server_key": "server.key", "server_cert": "server.pem", "custom_ca": "authority.pem", **changes}
    lines = [f'{name}: "{folder / value}"' for name, value in fields.items() if isinstance(value, str)]
    lines += [f"{name}: {str(value).lower()}" for name, value in fields.items() if isinstance(value, bool)]
    file = tmp_path / "ssl.config"
    file.write_text("\n".join(lines))
    return file


@pytest.fixture(scope="module")
def secure_server(certificates, saved_models, running, tmp_path_factory):
    """Asks for a client's certificate and for a token."""
    folder = tmp_path_factory.mktemp("secure")
    saved_models.publish(saved_models.linear, folder / "linear", 1)
    tokens = folder / "tokens"
    tokens.write_text("# for tests\n\nsesame\n")
    tokens.chmod(0o600)
    config = tls_config(certificates, folder, client_verify=True)
    flags = [f"--model_base_path={folder / 'linear'}", "--model_name=linear", f"--ssl_config_file={config}"]
    with running.running_server([*flags, f"--auth-token-file={tokens}"]) as server:
        server.token_file = tokens
        yield server


@pytest.fixture
def rest(secure_server, certificates, running):
    def ask(token="sesame", name="client"):
        certificate = (certificates / f"{name}.pem", certificates / f"{name}.key") if name else None
        tls = running.tls_context(certificates / "authority.pem", certificate)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return secure_server.post("/v1/models/linear:predict", {"instances": [[1, 1, 1]]}, headers=headers, tls=tls)

    return ask


@pytest.fixture
def grpc_predict(secure_server, certificates):
    import grpc
    import numpy as np

    from experiments_manager.protocol import messages, tensors

    def ask(token="sesame", name="client"):
        read = lambda file: (certificates / file).read_bytes()  # noqa: E731
        pair = (read(f"{name}.key"), read(f"{name}.pem")) if name else (None, None)
        credentials = grpc.ssl_channel_credentials(read("authority.pem"), *pair)
        request = messages.PredictRequest()
        request.model_spec.name = "linear"
        tensors.to_proto(np.ones([1, 3], np.float32), request.inputs["x"])
        metadata = [("authorization", f"Bearer {token}")] if token else []
        with grpc.secure_channel(f"localhost:{secure_server.grpc}", credentials) as channel:
            call = channel.unary_unary(
                "/tensorflow.serving.PredictionService/Predict",
                messages.PredictRequest.SerializeToString,
                messages.PredictResponse.FromString,
            )
            return tensors.to_array(call(request, timeout=20, metadata=metadata).outputs["y"]).tolist()

    return ask


def test_who_shows_certificate_and_token_is_answered_by_rest(rest):
    assert rest().json == {"predictions": [[3.0, 3.0, 3.0]]}


def test_who_shows_certificate_and_token_is_answered_by_grpc(grpc_predict):
    assert grpc_predict() == [[3.0, 3.0, 3.0]]


@pytest.mark.parametrize(
    ("token", "reason"),
    [(token, "This server asks for a token.") for token in (None, "", " ")]
    + [(token, "does not know the token that was shown.") for token in ("sesam", "sesame2", "# for tests")],
)
def test_without_a_known_token_nothing_is_answered(rest, grpc_predict, token, reason):
    import grpc

    answer = rest(token)
    assert (answer.status, reason in answer.error, "sesame" in answer.error) == (401, True, False)
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    with pytest.raises(grpc.RpcError) as error:
        grpc_predict(token)
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.UNAUTHENTICATED, answer.error)


def test_our_client_tells_a_wrong_token_from_none(secure_server, certificates, tmp_path):
    from experiments_manager import Client
    from experiments_manager.client.errors import ClientError

    config = tmp_path / "ssl.config"
    fields = {"custom_ca": "authority.pem", "server_cert": "client.pem", "server_key": "client.key"}
    config.write_text(" ".join(f'{name}: "{certificates / file}"' for name, file in fields.items()))
    for token, message in (
        (None, r"This server asks for a token\. .* Pass a token with --auth-token-file \(`token`\)\.$"),
        ("sesam", r"the token that was shown\. .* Check what is given with --auth-token-file \(`token`\)\.$"),
    ):
        with (
            Client(f"localhost:{secure_server.grpc}", "linear", tls=config, token=token) as client,
            pytest.raises(ClientError, match=message),
        ):
            client.predict([[1, 1, 1]])


def test_a_key_with_a_passphrase_is_refused_and_not_asked_for_at_the_terminal(certificates, tmp_path):
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key((certificates / "server.key").read_bytes(), None)
    private = (serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret"))
    (tmp_path / "locked.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    with pytest.raises(ServerStartError, match="Expected a private key without passphrase in server_key"):
        read_tls(tls_config(certificates, tmp_path, server_key=str(tmp_path / "locked.key")))


@pytest.mark.parametrize("name", [None, "intruder"])
def test_without_a_certificate_of_the_authority_there_is_no_connection(rest, grpc_predict, name):
    import grpc

    with pytest.raises((ssl.SSLError, ConnectionError)):
        rest(name=name)
    with pytest.raises(grpc.RpcError) as error:
        grpc_predict(name=name)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE


def test_plain_http_is_not_understood(secure_server):
    import http.client

    with pytest.raises((http.client.HTTPException, ConnectionError)):
        secure_server.get("/v1/models/linear")


def test_a_token_file_that_changes_counts_at_once(secure_server, rest):
    secure_server.token_file.write_text("another\n")
    try:
        assert (rest().status, rest("another").status) == (401, 200)
    finally:
        secure_server.token_file.write_text("sesame\n# as before\n")
    assert rest().status == 200


def test_a_token_file_that_is_gone_refuses_every_request(tmp_path):
    file = tmp_path / "tokens"
    file.write_text("sesame")
    tokens = Tokens(file)
    assert tokens.accepts("Bearer sesame")
    file.unlink()
    assert not tokens.accepts("Bearer sesame")
    file.write_text("sesame")
    assert tokens.accepts("bearer  sesame ")


@pytest.mark.parametrize(
    "header", [None, "", "sesame", "Basic sesame", "Bearer", "Bearer ", b"Bearer \xff", "Bearer é"]
)
def test_a_header_that_is_no_bearer_token_is_refused(tmp_path, header):
    (tmp_path / "tokens").write_text("sesame")
    assert not Tokens(tmp_path / "tokens").accepts(header)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "Cannot read the token file"), ("# none\n", "contains no token")]
)
def test_a_token_file_that_cannot_be_used_is_told_at_the_start(tmp_path, content, message):
    if content is not None:
        (tmp_path / "tokens").write_text(content)
    with pytest.raises(ServerStartError, match=message):
        Tokens(tmp_path / "tokens")


def test_pem_text_stands_in_the_file_as_for_tensorflow_serving(certificates, tmp_path):
    text = {name: (certificates / f"server.{end}").read_text() for name, end in (("key", "key"), ("cert", "pem"))}
    escaped = {name: value.replace("\n", "\\n") for name, value in text.items()}
    file = tmp_path / "ssl.config"
    file.write_text(f'server_key: "{escaped["key"]}"\nserver_cert: "{escaped["cert"]}"\nclient_verify: false')
    tls = read_tls(file)
    assert (tls.server_key.decode(), tls.custom_ca, tls.client_verify) == (text["key"], None, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"server_key": None}, "server_key is missing"),
        ({"server_cert": "none.pem"}, "server_cert: cannot read"),
        ({"server_key": "client.key"}, "cannot be used"),
        ({"server_cert": "server.key"}, "cannot be used"),
        ({"custom_ca": "server.key", "client_verify": True}, "cannot be used"),
        ({"custom_ca": None, "client_verify": True}, "client_verify is set and custom_ca is missing"),
    ],
)
def test_a_tls_file_that_cannot_be_used_is_told_at_the_start(certificates, tmp_path, changes, message):
    with pytest.raises(ServerStartError, match=message):
        read_tls(tls_config(certificates, tmp_path, **changes))


def test_a_field_that_does_not_exist_is_told_with_those_that_do(tmp_path):
    file = tmp_path / "ssl.config"
    file.write_text('server_kye: "x"')
    with pytest.raises(ServerStartError, match="server_kye.*Expected a SSLConfig.*server_key, server_cert, custom_ca"):
        read_tls(file)
