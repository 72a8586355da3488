"""One sample asked again and again, to see the versions of a model replace each other while it is trained."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from experiments_manager.client.client import Client, Prediction
from experiments_manager.client.errors import ClientError, ServerGoneError
from experiments_manager.client.faults import START
from experiments_manager.common.signals import shutdown_handler
from experiments_manager.protocol.status import Code

SHOWN_NUMBERS = 8
"""Numbers of one output that a line shows; of larger ones it shows the largest number and where that is."""
SHORTEST_PAUSE = 0.2
"""Seconds between two attempts to reach a server."""
_MAY_PASS = (Code.UNAVAILABLE, Code.NOT_FOUND, Code.FAILED_PRECONDITION)
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Sighting:
    """The first answer of a version after another one, or of the first.

    Attributes:
        time: When it came.
        outputs: The answer; `outputs.version` tells the version.
    """

    time: datetime.datetime
    outputs: Prediction

    def as_text(self, class_names: Sequence[str] = ()) -> str:
        """Return the line for the user; see `value_text`."""
        values = "  ".join(f"{name} = {value_text(value, class_names)}" for name, value in sorted(self.outputs.items()))
        return f"{self.time:%H:%M:%S}  version {self.outputs.version}  {values}"

    def as_record(self) -> Mapping[str, Any]:
        """Return the same for programs, all numbers of it."""
        outputs = {name: _plain(value) for name, value in self.outputs.items()}
        return {
            "time": self.time.isoformat(timespec="milliseconds"),
            "version": self.outputs.version,
            "outputs": outputs,
        }


class VersionWatch:
    """Asks a server the same, and tells when another version answers.

    Args:
        client: Asks; its own patience is to be 0, for the patience is this object's.
        interval: Seconds from one request to the next.
        patience: Tells how many seconds the server may be out of reach, or without a version, as things are now.
    """

    def __init__(self, client: Client, *, interval: float, patience: Callable[[], float]) -> None:
        self._client, self._interval, self._patience = client, interval, patience
        self.versions: list[int] = []

    def wait(self) -> None:
        """Wait for the server and its first version.

        Raises:
            ServerGoneError: There was none for as long as the patience lasts.
            ClientError: The server refuses.
        """
        self._asked(self._client.info)

    def run(self, request: Any, tell: Callable[[Sighting], None]) -> None:
        """Ask until Ctrl-C or SIGTERM.

        Args:
            request: The sample, as for `Client.predict`.
            tell: Called with the first answer, and with the first of each further version in a row.

        Raises:
            ServerGoneError: The server was out of reach for as long as the patience lasts.
            ClientError: The server refuses.
        """
        with shutdown_handler(signal.default_int_handler), contextlib.suppress(KeyboardInterrupt):
            while True:
                began = time.monotonic()
                outputs = self._asked(lambda: self._client.predict(request))
                if self.versions[-1:] != [outputs.version]:
                    self.versions.append(outputs.version)
                    tell(Sighting(datetime.datetime.now(), outputs))
                time.sleep(max(0.0, began + self._interval - time.monotonic()))

    def _asked(self, question: Callable[[], _T]) -> _T:
        since = None
        while True:
            try:
                return question()
            except ClientError as error:
                if error.code not in _MAY_PASS:
                    raise
                now = time.monotonic()
                since = now if since is None else since
                waited = now - since
                if waited >= self._patience():
                    if not isinstance(error, ServerGoneError):
                        raise
                    raise ServerGoneError(
                        f"The model server at {self._client.address} cannot be reached, for {waited:.0f} s. Expected a "
                        f"model server at that address. {START}",
                        error.code,
                    ) from error
            time.sleep(max(SHORTEST_PAUSE, min(self._interval, 1.0)))


def value_text(value: np.ndarray, class_names: Sequence[str] = ()) -> str:
    """Return the answer for the first sample in few words: class and share, some numbers, or the largest of many."""
    if not value.size:
        return "nothing"
    row = np.asarray(value[0] if value.ndim else value)
    flat = row.ravel()
    if flat.dtype.kind in "OSUc":  # bfloat16 is of kind V
        texts = [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in flat.tolist()]
        return ", ".join(texts[:SHOWN_NUMBERS]) + (", …" if len(texts) > SHOWN_NUMBERS else "")
    is_scores = flat.dtype.kind == "f" and 1 < len(class_names) == flat.size and not np.isnan(flat).any()
    if is_scores:
        best = int(flat.argmax())
        return f"{class_names[best]} ({flat[best]:.4g})"
    if flat.size > SHOWN_NUMBERS:
        best = int(np.nan_to_num(flat.astype(np.float64), nan=-np.inf).argmax())
        return f"{flat[best]:.4g} at {list(map(int, np.unravel_index(best, row.shape)))}, the largest of {flat.size:,}"
    return ", ".join(f"{number:.5g}" for number in flat.astype(np.float64))


def _plain(value: np.ndarray) -> Any:
    if value.dtype == object:
        texts = [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in value.ravel()]
        return np.array(texts, object).reshape(value.shape).tolist()
    return (value if value.dtype.isbuiltin == 1 else value.astype(np.float32)).tolist()
