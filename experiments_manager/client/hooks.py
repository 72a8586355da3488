"""The settings' `client` hook, of the canonical or the legacy form: requests, and what becomes of the answers."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from experiments_manager.client.client import IN_FLIGHT, Prediction
from experiments_manager.protocol import messages
from experiments_manager.settings import Settings, SettingsError
from experiments_manager.settings.problems import problem_at

CANONICAL = ("requests", "on_response")
LEGACY = ("getInputData", "decodeResponse")


@dataclasses.dataclass(frozen=True)
class ClientHook:
    """A client that the user wrote.

    Attributes:
        requests: The requests, read one after the other.
        on_response: Called with each request and its outputs, in order.
        close: Called once at the end.
        in_flight: How many requests may be without an answer at a time, by default.
        is_legacy: Whether it has the legacy methods. Its `on_response` reads the messages that the answers came in, its
            first answer may take five times as long as others, and it is closed only where nothing failed: a
            `finalize` that sums up answers would fail itself then, and hide why.
    """

    requests: Iterator[Any]
    on_response: Callable[[Any, Prediction], None]
    close: Callable[[], None]
    in_flight: int
    is_legacy: bool = False


def make_client_hook(settings: Settings, options: Mapping[str, Any], *, debug: bool = False) -> ClientHook:
    """Make an instance of the settings' client.

    Args:
        settings: Settings that have the hook.
        options: What the class is offered as `options`; one with the legacy methods gets an empty dictionary, as ever.
        debug: Whether the command is to show more, which a legacy class is told as `debugMode`.

    Raises:
        UserCodeError: Its constructor raised. Its methods do so when they are called.
        SettingsError: It has neither the canonical methods nor the legacy ones.
    """
    is_legacy = all(callable(getattr(settings.client, name, None)) for name in LEGACY)
    offered = {"options": {}, "debug": debug} if is_legacy else {"options": dict(options)}
    instance = settings.call("client", **offered)
    client = _UserClient(settings, instance)
    if all(callable(getattr(instance, name, None)) for name in CANONICAL):
        return ClientHook(client.requests(), client.on_response, client.close, IN_FLIGHT)
    if all(callable(getattr(instance, name, None)) for name in LEGACY):
        in_flight = IN_FLIGHT if settings.client_async else 1
        return ClientHook(client.legacy_requests(), client.decode, client.finalize, in_flight, is_legacy=True)
    methods = ", ".join(name for name in dir(instance) if not name.startswith("_")) or "none"
    place, _, line = settings.location("client").rpartition(":")
    text = (
        "not a client. Expected a class with `requests()`, a generator of dictionaries of arrays by input name, "
        f"and `on_response(request, outputs)`; got the methods {methods}. Add those that are missing."
    )
    raise SettingsError([problem_at(place, int(line) if line.isdigit() else 0, "client", text)])


class _UserClient:
    """The user's client; errors of its methods say where in the user's file they arose."""

    def __init__(self, settings: Settings, instance: Any) -> None:
        self._settings, self._instance = settings, instance
        self._has_enough = False

    def _run(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._settings.run_user_code(name, function, *arguments)

    def requests(self) -> Iterator[Any]:
        iterator = self._run("requests", lambda: iter(self._instance.requests()))
        end = object()
        while (request := self._run("requests", next, iterator, end)) is not end:
            yield request

    def on_response(self, request: Any, outputs: Prediction) -> None:
        self._run("on_response", self._instance.on_response, request, outputs)

    def close(self) -> None:
        if callable(getattr(self._instance, "close", None)):
            self._run("close", self._instance.close)

    def legacy_requests(self) -> Iterator[Any]:
        """Ask for sample 1, 2, … until the client raises `StopIteration`, here or on an answer, or return none."""
        for index in itertools.count(1):
            if self._has_enough:
                return
            try:
                request = self._run("getInputData", self._instance.getInputData, index)
            except StopIteration:
                return
            if request is None:
                return
            yield request

    def decode(self, request: Any, outputs: Prediction) -> None:
        """Hand over the whole message, whose `outputs[name].float_val` is a list of numbers."""
        if self._has_enough:  # what was sent before it had
            return
        response = messages.PredictResponse.FromString(outputs.message)
        try:
            self._run("decodeResponse", self._instance.decodeResponse, response)
        except StopIteration:
            self._has_enough = True

    def finalize(self) -> None:
        if callable(getattr(self._instance, "finalize", None)):
            self._run("finalize", self._instance.finalize)
