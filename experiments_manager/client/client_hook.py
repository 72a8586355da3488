"""The settings' `client` hook: requests, and what becomes of the answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from experiments_manager.client.client import IN_FLIGHT, Prediction
from experiments_manager.dialects import dialect_of_client
from experiments_manager.settings import Settings, SettingsError
from experiments_manager.settings.problems import problem_at

CANONICAL = ("requests", "on_response")


@dataclasses.dataclass(frozen=True)
class ClientHook:
    """A client that the user wrote.

    Attributes:
        requests: The requests, read one after the other.
        on_response: Called with each request and its outputs, in order.
        close: Called once at the end.
        in_flight: How many requests may be without an answer at a time, by default.
        reads_messages: Whether its `on_response` reads the messages that the answers came in.
        first_timeout: How many times as long as others the first answer may take.
        closes_after_failure: Whether it is closed also where something failed.
    """

    requests: Iterator[Any]
    on_response: Callable[[Any, Prediction], None]
    close: Callable[[], None]
    in_flight: int
    reads_messages: bool = False
    first_timeout: float = 1
    closes_after_failure: bool = True


def make_client_hook(settings: Settings, options: Mapping[str, Any], *, debug: bool = False) -> ClientHook:
    """Make an instance of the settings' client.

    Args:
        settings: Settings that have the hook.
        options: What the class is offered as `options`.
        debug: Whether the command is to show more, of which classes of another form are told.

    Raises:
        UserCodeError: Its constructor raised. Its methods do so when they are called.
        SettingsError: It has not the methods of any form.
    """
    dialect = dialect_of_client(settings.client)
    if dialect is not None:
        return dialect.client_hook(settings, debug)
    instance = settings.call("client", options=dict(options))
    client = UserClient(settings, instance)
    if all(callable(getattr(instance, name, None)) for name in CANONICAL):
        return ClientHook(client.requests(), client.on_response, client.close, IN_FLIGHT)
    methods = ", ".join(name for name in dir(instance) if not name.startswith("_")) or "none"
    place, _, line = settings.location("client").rpartition(":")
    text = (
        "not a client. Expected a class with `requests()`, a generator of dictionaries of arrays by input name, "
        f"and `on_response(request, outputs)`; got the methods {methods}. Add those that are missing."
    )
    raise SettingsError([problem_at(place, int(line) if line.isdigit() else 0, "client", text)])


class UserClient:
    """The user's client; errors of its methods say where in the user's file they arose."""

    def __init__(self, settings: Settings, instance: Any) -> None:
        self.settings, self.instance = settings, instance

    def run(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call one of its methods."""
        return self.settings.run_user_code(name, function, *arguments)

    def requests(self) -> Iterator[Any]:
        """Yield what it asks for, one request after the other."""
        iterator = self.run("requests", lambda: iter(self.instance.requests()))
        end = object()
        while (request := self.run("requests", next, iterator, end)) is not end:
            yield request

    def on_response(self, request: Any, outputs: Prediction) -> None:
        """Hand over an answer."""
        self.run("on_response", self.instance.on_response, request, outputs)

    def close(self) -> None:
        """End it, where it has a method for that."""
        if callable(getattr(self.instance, "close", None)):
            self.run("close", self.instance.close)
