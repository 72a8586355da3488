"""Classes `Client_IO` of the legacy framework, as clients of a model server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from experiments_manager.client.client import IN_FLIGHT, Prediction
from experiments_manager.client.client_hook import ClientHook, UserClient
from experiments_manager.protocol import messages
from experiments_manager.settings import Settings

FIRST_TIMEOUT = 5
"""How many times as long as others the first answer may take."""


def make_client_io(settings: Settings, debug: bool) -> ClientHook:
    """Make an instance of a `Client_IO`, which gets an empty dictionary and `debugMode`.

    It is closed only where nothing failed: a `finalize` that sums up answers would fail itself then, and hide why.

    Raises:
        UserCodeError: Its constructor raised.
    """
    client = _ClientIO(settings, settings.call("client", options={}, debug=debug))
    return ClientHook(
        client.requests(),
        client.on_response,
        client.close,
        IN_FLIGHT if settings.client_async else 1,
        reads_messages=True,
        first_timeout=FIRST_TIMEOUT,
        closes_after_failure=False,
    )


class _ClientIO(UserClient):
    _has_enough = False

    def requests(self) -> Iterator[Any]:
        """Ask for sample 1, 2, … until the client raises `StopIteration`, here or on an answer, or return none."""
        for index in itertools.count(1):
            if self._has_enough:
                return
            try:
                request = self.run("getInputData", self.instance.getInputData, index)
            except StopIteration:
                return
            if request is None:
                return
            yield request

    def on_response(self, request: Any, outputs: Prediction) -> None:
        """Hand over the whole message, whose `outputs[name].float_val` is a list of numbers."""
        if self._has_enough:  # what was sent before it had
            return
        response = messages.PredictResponse.FromString(outputs.message)
        try:
            self.run("decodeResponse", self.instance.decodeResponse, response)
        except StopIteration:
            self._has_enough = True

    def close(self) -> None:
        """Let it sum up."""
        if callable(getattr(self.instance, "finalize", None)):
            self.run("finalize", self.instance.finalize)
