"""Addresses of servers."""

import contextlib
import socket
import threading

import pytest

from experiments_manager.federated.deployment.addresses import Address, answers, read_address
from experiments_manager.federated.errors import FederationError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("example.org", "example.org", 9092),
        ("example.org:80", "example.org", 80),
        ("[::1]:81", "::1", 81),
        ("[::1]", "::1", 9092),
        ("127.0.0.1:1", "127.0.0.1", 1),
    ],
)
def test_an_address_is_a_host_and_a_port(text, host, port):
    assert read_address(text) == Address(host, port)


@pytest.mark.parametrize("text", ["", ":80", "host:", "host:0", "host:65536", "host:eighty", "https://host:80"])
def test_what_is_no_address_is_refused_by_name(text):
    with pytest.raises(FederationError, match=r"is no address of a server\. Expected HOST:PORT") as refused:
        read_address(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("example.org", False)],
)
def test_only_the_loopback_address_is_for_this_machine_alone(host, alone):
    assert Address(host, 1).is_loopback is alone


def test_nobody_answers_where_nobody_listens(free_port):
    assert not answers(Address("127.0.0.1", free_port()), None)


def test_a_server_that_speaks_no_tls_is_told_apart_from_none(tmp_path):
    from experiments_manager.federated.deployment.certificates import make_certificates

    made = make_certificates(tmp_path, ["127.0.0.1"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_greet, args=(server,))
        thread.start()
        with pytest.raises(FederationError, match="does not speak TLS"):
            answers(Address("127.0.0.1", server.getsockname()[1]), made.ca_certificate)
        thread.join()


def test_who_closes_connections_at_once_is_no_server_yet(tmp_path):
    """A proxy whose server is not up does so, with and without a reset."""
    from experiments_manager.federated.deployment.certificates import make_certificates

    made = make_certificates(tmp_path, ["127.0.0.1"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address("127.0.0.1", server.getsockname()[1])
        for reads in (0, 1 << 16):
            thread = threading.Thread(target=_close, args=(server, reads))
            thread.start()
            assert not answers(address, made.ca_certificate)
            thread.join()


def _close(server, reads):
    connection, _ = server.accept()
    with connection:
        if reads:
            connection.recv(reads)


def _greet(server):
    """Answers one connection in words."""
    connection, _ = server.accept()
    with connection, contextlib.suppress(OSError):
        connection.recv(1)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        while connection.recv(4096):
            pass
