"""Whether somebody listens where the settings, or their defaults, expect a Kafka broker and a model server."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from experiments_manager.doctor.finding import Finding, note, ok

_SECONDS = 1.0


def kafka(values: Mapping[str, Any]) -> Finding:
    """Tell which of the brokers of `kafka_bootstrap_servers` are reached."""
    addresses = list(values["kafka_bootstrap_servers"])
    remedy = "Needed only by settings with Kafka. For a first try: python3 tools/kafka_broker.py start"
    return _reach("Kafka", addresses, remedy)


def model_server(values: Mapping[str, Any]) -> Finding:
    """Tell whether a model server listens at `server_host` and `grpc_port`."""
    address = f"{values['server_host']}:{values['grpc_port']}"
    return _reach("Model server", [address], "Needed only to predict: experiments_manager serve RUN")


def _reach(name: str, addresses: Sequence[str], remedy: str) -> Finding:
    failures = {address: reason for address in addresses if (reason := _refusal(address))}
    reached = [address for address in addresses if address not in failures]
    if not failures:
        return ok(name, f"{', '.join(reached)} answers")
    text = "; ".join(f"{address}: {reason}" for address, reason in failures.items())
    return note(name, f"{text}{'; reached: ' + ', '.join(reached) if reached else ''}", remedy)


def _refusal(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS):
            return ""
    except TimeoutError:
        return f"no answer within {_SECONDS:g} s"
    except ValueError:
        return "no address. Expected host:port"
    except OSError as error:
        return (error.strerror or str(error)).lower()
