"""The gate before a SuperLink, with a server in its place that repeats what it gets."""

import http.server
import socket
import threading
import urllib.error
import urllib.request

import pytest

from experiments_manager.federated.deployment.addresses import Address
from experiments_manager.federated.deployment.fleet_gate import open_gate
from experiments_manager.federated.errors import FederationError


class Repeating(http.server.BaseHTTPRequestHandler):
    """Answers with the body that came, however it was sent, and with one header of the request."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        """Answers one request."""
        if "Content-Length" in self.headers:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        else:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.send_response(418)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Signed", self.headers.get("X-Signature", ""))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing."""


@pytest.fixture
def repeating():
    """Where such a server listens."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Repeating) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def ask(port, path, body=b"", method="POST"):
    """Sends a request; gives status, body and headers of the answer."""
    headers = {"X-Signature": "signed"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body, method=method, headers=headers)
    with pytest.raises(urllib.error.HTTPError) as answered:
        urllib.request.urlopen(request, timeout=30)
    with answered.value as answer:
        return answer.code, answer.read(), answer.headers


def test_what_supernodes_ask_passes_with_its_body_and_headers(free_port, repeating):
    port, body = free_port(), bytes(range(256)) * 20_000
    with open_gate(Address("127.0.0.1", port), repeating, None, None, None):
        status, came, headers = ask(port, "/v1/fleet/push-object", body)
    assert (status, came, headers["X-Signed"]) == (418, body, "signed")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/fleet/../control/start-run"),
        ("GET", "/v1/fleet/x"),
        ("POST", "/"),
    ],
)
def test_nothing_else_passes(free_port, repeating, method, path):
    port = free_port()
    with open_gate(Address("127.0.0.1", port), repeating, None, None, None):
        assert ask(port, path, None if method == "GET" else b"", method)[0] == 404


def test_a_superlink_that_is_gone_is_told_so_that_supernodes_try_again(free_port):
    port, gone = free_port(), free_port()
    with open_gate(Address("127.0.0.1", port), f"http://127.0.0.1:{gone}", None, None, None):
        assert ask(port, "/v1/fleet/pull-messages")[0] == 503


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with (
            pytest.raises(FederationError, match=f"Cannot listen at {address}. Expected a free port"),
            open_gate(address, "http://127.0.0.1:1", None, None, None),
        ):
            pass


def test_a_key_that_does_not_belong_to_the_certificate_is_refused(free_port, tmp_path):
    from experiments_manager.federated.deployment.certificates import make_certificates

    one, other = (make_certificates(tmp_path / name, ["localhost"]) for name in ("one", "other"))
    with (
        pytest.raises(FederationError, match="Expected two files in PEM that belong together"),
        open_gate(Address("127.0.0.1", free_port()), "http://127.0.0.1:1", None, one.certificate, other.key),
    ):
        pass
