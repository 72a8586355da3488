"""A client on a machine of its own: from a message of the server to the answer, with a run folder for its rounds."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from experiments_manager.federated.client.client_answers import ClientAnswers
from experiments_manager.federated.client.client_run import ClientRun, client_run
from experiments_manager.federated.client.kept_rounds import KeptRounds
from experiments_manager.federated.errors import FederationError, client_problem
from experiments_manager.federated.local.client import ClientState, FederatedClient, client_of
from experiments_manager.federated.local.trainer import LocalTrainer
from experiments_manager.federated.message_records import CLIENT, ERROR, EXAMPLES, PROC_ID
from experiments_manager.federated.settings_handshake import check_terms
from experiments_manager.settings import Settings
from experiments_manager.settings.hook_directory import session_folder, working_directory
from experiments_manager.settings.settings import Session
from experiments_manager.training.devices.devices import prepared_devices
from experiments_manager.training.engine.outcome import attributed_to_hooks

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


@dataclasses.dataclass
class _Membership:
    """What a client has for one federation, whose server says its name and the number of clients."""

    trainer: LocalTrainer
    client: FederatedClient
    folder: ClientRun
    rounds: KeptRounds
    held: int = 0
    """The round after which the client in memory is."""

    @property
    def kept(self) -> Mapping[str, Any]:
        """What the client keeps, as arrays."""
        return self.client.kept.arrays if self.client.kept else {}

    def go_to(self, round: int) -> None:  # noqa: A002
        """Let the client be as it was after a round."""
        if round != self.held:
            arrays = self.rounds.read(round)
            self.client.restore(ClientState.of(arrays) if arrays else None)
            self.held = round


class JoinedClient:
    """Answers messages; data, model and run folder are made when the first one comes.

    Args:
        settings: Those of the settings module, loaded without the client's number.
        options: Who the client is.
    """

    def __init__(self, settings: Settings, options: ClientOptions) -> None:
        self._settings, self._options = settings, options
        self._answers = ClientAnswers.of(settings, options.number)
        self._stack = contextlib.ExitStack()
        self._membership: _Membership | None = None
        self._begun_for: tuple[Any, ...] = ()

    @property
    def run_dir(self) -> Path | None:
        """Its run folder, once there is one."""
        return self._membership.folder.run.path if self._membership else None

    def answer(self, message_type: str, content: RecordDict) -> RecordDict:
        """Do what a message asks for; an error is told to the server, with the client's number."""
        config = content.config_records.get("config", {})
        try:
            answered = self._answers.answer(message_type, content, lambda: self._at_work(message_type, config))
            if self._membership and "metrics" in answered.metric_records:
                self._note(message_type, int(config.get("server-round", 0)), answered.metric_records["metrics"])
            return answered
        except Exception as error:  # whatever a user's hook raised: the server must hear of it, and the client stays
            sentence = client_problem(error)
            logger.warning("This client could not answer: %s", sentence)
            logger.debug("That came from:", exc_info=error)
            return RecordDict({CLIENT: ConfigRecord({PROC_ID: self._options.number, ERROR: sentence})})

    def close(self, state: str, error: BaseException | None = None) -> None:
        """Let go of data and model, and write into `run.json` how it ended."""
        membership, self._membership = self._membership, None
        with self._stack:
            if membership is not None:
                membership.folder.close(state, error)

    @contextlib.contextmanager
    def _at_work(self, message_type: str, config: Mapping[str, Any]) -> Iterator[tuple[LocalTrainer, FederatedClient]]:
        """Give the trainer and the client, as the round before left it; what training leaves is on the disk then."""
        membership, number = self._membership_for(config), int(config.get("server-round", 0))
        is_training = message_type.startswith("train")
        with attributed_to_hooks(self._settings):
            membership.go_to(membership.rounds.last_before(number if is_training else number + 1))
            yield membership.trainer, membership.client
            if is_training and membership.kept:
                membership.rounds.write(number, membership.kept)
                membership.held = number

    def _note(self, message_type: str, number: int, metrics: Mapping[str, Any]) -> None:
        """Write what came of a round to the run folder, and say it."""
        logs = {name: value for name, value in metrics.items() if name not in (EXAMPLES, "num-steps")}
        if not message_type.startswith("train"):
            self._membership.folder.evaluated(number, logs)
            return
        self._membership.folder.trained(number, int(metrics["num-steps"]), logs)
        values = ", ".join(f"{name} {value:.4g}" for name, value in logs.items())
        self._options.tell(f"Round {number}: {metrics[EXAMPLES]:.0f} samples, {values}")

    def _membership_for(self, config: Mapping[str, Any]) -> _Membership:
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
        if self._membership is None or self._begun_for != asked:
            if self._membership is not None:
                self.close("finished")
            self._stack, self._membership = self._begin(*asked)
            self._begun_for = asked
        return self._membership

    def _begin(self, federation: str, partitions: int, proximal: bool) -> tuple[contextlib.ExitStack, _Membership]:
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
            folder.run.update(devices=list(devices.names))
            return stack.pop_all(), _Membership(trainer, client, folder, KeptRounds(path / STATE))
