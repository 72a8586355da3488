"""What gRPC's words about a server out of reach are taken to mean."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from experiments_manager.client.faults import FaultHistory, is_permanent, short, unreachable


class Failure(grpc.RpcError):
    """An error in gRPC's words."""

    def __init__(self, details: str) -> None:
        self._details = details

    def details(self) -> str:
        return self._details

    def code(self) -> Any:
        return grpc.StatusCode.UNAVAILABLE


def connecting(address: str, details: str) -> Failure:
    return Failure(f"failed to connect to all addresses; last error: UNKNOWN: {address}: {details}")


REFUSED = "Failed to connect to remote host: Connection refused"
IPV4, IPV6 = "ipv4:127.0.0.1:9000", "ipv6:%5B::1%5D:9000"
HTTP_1 = (
    "Failed parsing HTTP/2 (Expected SETTINGS frame, got 80) (Trying to connect an http1.x server (HTTP status {}))"
)


def telling(*errors: Failure) -> str:
    causes = FaultHistory()
    for error in errors:
        causes.add(error)
    return short(causes.most_specific())


def test_what_listens_at_one_address_says_more_than_that_another_is_empty() -> None:
    hangs_up = connecting(IPV4, "Socket closed")
    for errors in ([hangs_up, connecting(IPV6, REFUSED)], [connecting(IPV6, REFUSED), hangs_up]):
        assert telling(*errors) == "Socket closed"


def test_of_each_address_the_newest_error_counts() -> None:
    hangs_up = connecting(IPV4, "Socket closed")
    assert telling(hangs_up, connecting(IPV6, REFUSED), connecting(IPV4, REFUSED)) == "Connection refused"


def test_a_server_that_is_killed_at_work_and_stays_away_does_not_hang_up() -> None:
    assert telling(Failure("Socket closed"), connecting(IPV4, REFUSED)) == "Connection refused"
    assert telling(connecting(IPV4, "Socket closed"), Failure("Socket closed")) == "Socket closed"
    assert str(unreachable(Failure("Socket closed"), "a:1", waited=1.0)).endswith(
        "Start one: experiments_manager serve RUN"
    )


@pytest.mark.parametrize(
    ("details", "end", "lasting"),
    [
        (HTTP_1.format(400), "This is a port for REST: name the one for gRPC.", True),
        (HTTP_1.format(503), "This is a port for REST: name the one for gRPC.", False),
        ("Failed parsing HTTP/2 (Expected SETTINGS frame, got 79)", "name the port for gRPC.", False),
        (
            "SSL_ERROR_SSL: WRONG_VERSION_NUMBER: Invalid context: OK",
            "does not speak TLS. Omit --ssl-config-file",
            True,
        ),
        ("CERTIFICATE_VERIFY_FAILED: self signed certificate: OK", "failed: self signed certificate. Expected", True),
        (
            "Socket closed",
            "closes the connection: if it asks for a certificate of yours, give --ssl-config-file",
            False,
        ),
        (REFUSED, "cannot be reached, for 3 s (Connection refused). Expected", False),
    ],
)
def test_each_cause_has_its_own_ending(details: str, end: str, lasting: bool) -> None:
    error = connecting(IPV4, details)
    assert end in str(unreachable(error, "localhost:9000", waited=3.0, with_tls=True))
    assert is_permanent(error) is lasting
