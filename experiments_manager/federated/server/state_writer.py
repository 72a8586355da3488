"""States written while the next round runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np

from experiments_manager.common.background import LatestJobWorker
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.server.federation_state import FederationState
from experiments_manager.federated.server.state_files import write_state


class StateWriter:
    """Writes states in a thread of its own; one that comes while another waits takes its place.

    That is for federations in one process, whose clients die with it and begin again at whatever state is on the disk.
    A server whose clients live on writes each state before it sends anything (`write_state`).

    Used in a `with` block, which ends when everything is on the disk.

    Args:
        folder: The run's `checkpoints/`.
        bring_logs_to_disk: Called in the thread before a state counts: no row of an earlier round is written again.
    """

    def __init__(self, folder: Path, bring_logs_to_disk: Callable[[], None] = lambda: None) -> None:
        self._folder, self._bring_logs_to_disk = folder, bring_logs_to_disk
        self._failure: BaseException | None = None
        self._worker: LatestJobWorker[FederationState] = LatestJobWorker(self._write, self._failed, name="states")

    def save(self, state: FederationState) -> None:
        """Hand in a state and return at once.

        Raises:
            FederationError: An earlier one could not be written.
        """
        self._raise()
        # Strategies may change what they remember in place.
        kept = {name: np.array(array) for name, array in state.strategy_arrays.items()}
        self._worker.submit(dataclasses.replace(state, strategy_arrays=kept))

    def __enter__(self) -> StateWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._worker.close()
        if error is None:
            self._raise()

    def _write(self, state: FederationState) -> None:
        self._bring_logs_to_disk()
        write_state(self._folder, state)

    def _failed(self, state: FederationState, error: BaseException) -> None:
        self._failure = error

    def _raise(self) -> None:
        if isinstance(self._failure, FederationError):
            raise self._failure
        if self._failure is not None:
            raise FederationError(f"A state cannot be written: {self._failure}.") from self._failure
