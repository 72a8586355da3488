"""A client on a machine of its own: from a message of the server to the answer, with a run folder for its rounds."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.common.error_text import named_reason
from experiments_manager.common.errors import UserError
from experiments_manager.compat.flower import SecureProtocol
from experiments_manager.federated.client.client_run import ClientRun, client_run
from experiments_manager.federated.client.kept_rounds import KeptRounds
from experiments_manager.federated.client.messages import answer_content
from experiments_manager.federated.client.private_answers import PrivateAnswers
from experiments_manager.federated.client.secure_answers import SecureAnswers
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.local.client import FederatedClient
from experiments_manager.federated.local.task import LocalTask
from experiments_manager.federated.local.trainer import LocalResult, LocalTrainer
from experiments_manager.federated.settings_handshake import check_terms
from experiments_manager.federated.simulation.clients import client_of
from experiments_manager.federated.strategies.reply_checks import CLIENT, ERROR, PROC_ID
from experiments_manager.settings import Settings
from experiments_manager.settings.hook_directory import session_folder, working_directory
from experiments_manager.settings.settings import Session
from experiments_manager.training.devices.devices import prepared_devices
from experiments_manager.training.engine.outcome import attributed_to_hooks

if TYPE_CHECKING:
    from flwr.app import RecordDict

logger = logging.getLogger(__name__)

STATE = "state"
"""The folder in the client's run folder for what it keeps from round to round."""


@dataclasses.dataclass(frozen=True)
class ClientOptions:
    """Who a client is.

    Attributes:
        number: Its number.
        partitions: How many clients there are; `None`: as the server says.
        working_dir: Where its run folder is made; by default that of the settings.
        command: The command line, for `run.json`.
        tell: Called with sentences that a person may want to read.
    """

    number: int
    partitions: int | None = None
    working_dir: Path | str | None = None
    command: Sequence[str] = ()
    tell: Callable[[str], None] = logger.info


class JoinedClient:
    """Answers messages; data, model and run folder are made when the first one comes.

    Args:
        settings: Those of the settings module, loaded without the client's number.
        options: Who the client is.
    """

    def __init__(self, settings: Settings, options: ClientOptions) -> None:
        self._settings, self._options = settings, options
        self._privacy = PrivateAnswers.of(settings)
        self._secure = SecureAnswers.of(settings)
        self._stack = contextlib.ExitStack()
        self._work: _Work | None = None
        self._begun_for: tuple[Any, ...] = ()

    @property
    def run_dir(self) -> Path | None:
        """Its run folder, once there is one."""
        return self._work.folder.run.path if self._work else None

    def answer(self, message_type: str, content: RecordDict) -> RecordDict:
        """Do what a message asks for; an error is told to the server, with the client's number."""
        from flwr.app import ConfigRecord, RecordDict

        try:
            if SecureProtocol.is_stage(content):  # of a round for which this client trained
                return answer_content(message_type, content, None, self._options.number, secure=self._secure)
            config = content.config_records.get("config", {})
            work = self._work_for(config)
            work.round = int(config.get("server-round", 0))
            with attributed_to_hooks(self._settings):
                return answer_content(message_type, content, work, self._options.number, self._privacy, self._secure)
        except Exception as error:  # whatever a user's hook raised: the server must hear of it, and the client stays
            sentence = str(error) if isinstance(error, UserError) else f"{named_reason(error)}."
            logger.warning("This client could not answer: %s", sentence)
            logger.debug("That came from:", exc_info=error)
            return RecordDict({CLIENT: ConfigRecord({PROC_ID: self._options.number, ERROR: sentence})})

    def close(self, state: str, error: BaseException | None = None) -> None:
        """Let go of data and model, and write into `run.json` how it ended."""
        work, self._work = self._work, None
        with self._stack:
            if work is not None:
                work.folder.close(state, error)

    def _work_for(self, config: Mapping[str, Any]) -> _Work:
        """Return data, model and run folder for what the server says, which may be another one after a while."""
        check_terms(config, self._settings)
        told = config.get("run"), config.get("clients")
        if not isinstance(told[0], str) or not isinstance(told[1], int):
            raise FederationError(
                f"The server does not say the name of its run and the number of clients. Expected both, got {told}. "
                "Use the same release of experiments_manager on both sides."
            )
        partitions = self._options.partitions or told[1]
        if self._options.number >= partitions and not self._settings.dialect.any_client_number:
            raise FederationError(
                f"The number of this client, {self._options.number}, is too large. Expected 0 to {partitions - 1}, as "
                f"there are {partitions} clients. Choose another --proc-id, or set the number of clients on the server."
            )
        asked = (told[0], partitions, "proximal-mu" in config)
        if self._work is None or self._begun_for != asked:
            if self._work is not None:
                self.close("finished")
            self._stack, self._work = self._begin(*asked)
            self._begun_for = asked
        return self._work

    def _begin(self, federation: str, partitions: int, proximal: bool) -> tuple[contextlib.ExitStack, _Work]:
        settings, options = self._settings, self._options
        with contextlib.ExitStack() as stack:
            made = client_run(settings, options.number, federation, options.working_dir, options.command)
            folder = stack.enter_context(made)
            options.tell(f"Run folder {folder.run.path}")
            path = folder.run.path
            stack.enter_context(settings.active())
            devices = stack.enter_context(prepared_devices(settings))
            session = Session(str(session_folder(settings, path)), str(folder.run.exports_dir), False)
            stack.enter_context(working_directory(settings, session_folder(settings, path), session))
            with attributed_to_hooks(settings):
                client = client_of(settings, options.number, partitions, run=folder.run)
                stack.callback(client.close)
                trainer = LocalTrainer.make(settings, devices, client.train, proximal=proximal)
            stack.callback(trainer.close)
            keep = bool(settings.federated.get("keep_optimizer", False))
            folder.run.update(devices=list(devices.names))
            work = _Work(trainer, client, folder, KeptRounds(path / STATE), keep=keep, tell=options.tell)
            return stack.pop_all(), work


class _Work:
    """A trainer at work for one client, whose state is on disk."""

    def __init__(
        self,
        trainer: LocalTrainer,
        client: FederatedClient,
        folder: ClientRun,
        kept: KeptRounds,
        *,
        keep: bool,
        tell: Callable[[str], None],
    ) -> None:
        self._trainer, self._client, self.folder = trainer, client, folder
        self._kept, self._keep, self._tell = kept, keep, tell
        self._held = 0
        """The round after which the client in memory is."""
        self.round = 0

    def train(self, weights: Mapping[str, np.ndarray], task: LocalTask) -> LocalResult:
        """Train the epochs of a round, from what the round before left."""
        self._go_to(self._kept.last_before(task.round))
        result = self._trainer.train(self._client, weights, task, keep=self._keep)
        left = self._client.state()
        if left:
            self._kept.write(task.round, left)
            self._held = task.round
        self.folder.trained(task.round, result)
        values = ", ".join(f"{name} {value:.4g}" for name, value in result.logs.items())
        self._tell(f"Round {task.round}: {result.samples} samples, {values}")
        return result

    def evaluate(self, weights: Mapping[str, np.ndarray]) -> LocalResult:
        """Evaluate the weights of a round on the client's validation data."""
        self._go_to(self._kept.last_before(self.round + 1))
        result = self._trainer.evaluate(self._client, weights)
        self.folder.evaluated(self.round, result)
        return result

    def _go_to(self, round: int) -> None:  # noqa: A002
        if round != self._held:
            self._client.restore(self._kept.read(round))
            self._held = round
