"""What runs in a process of Ray: clients and a model for them, which stay there from message to message."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from experiments_manager.common.error_text import named_reason
from experiments_manager.common.errors import UserError
from experiments_manager.federated.flower import flower

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp

    from experiments_manager.federated.client.private_answers import PrivateAnswers
    from experiments_manager.federated.local.client import FederatedClient
    from experiments_manager.federated.local.trainer import LocalTrainer
    from experiments_manager.federated.plan import FederationPlan
    from experiments_manager.settings import Settings

logger = logging.getLogger(__name__)

KEPT, PROC_ID, KEPT_DTYPES = "kept", "proc-id", "kept-dtypes"
"""The record in which a client's own variables travel, and keys of `config`."""


@dataclasses.dataclass(frozen=True)
class ActorTask:
    """What a process has to know before its first message.

    Attributes:
        name: Of this run of the federation; processes keep what they built as long as it is the same.
        folder: The working directory.
        file: The settings module.
        start_dir: What its relative paths start from.
        overrides: Those of the settings, with the number of clients.
    """

    name: str
    folder: str
    file: str
    start_dir: str
    overrides: Mapping[str, Any]


class Worker:
    """Clients that were asked for so far, and one model for them in turn."""

    def __init__(self, task: ActorTask) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # each process would take all of a GPU's memory
        from experiments_manager.federated.client.private_answers import PrivateAnswers
        from experiments_manager.federated.plan import FederationPlan
        from experiments_manager.settings import load_settings
        from experiments_manager.training.devices.devices import prepared_devices

        os.chdir(task.folder)
        self.task = task
        self._settings: Settings = load_settings(task.file, dict(task.overrides), start_dir=task.start_dir)
        self._plan: FederationPlan = FederationPlan.of(self._settings)
        self._privacy: PrivateAnswers = PrivateAnswers.of(self._settings, self._settings.random_seed)
        self._clients: dict[int, FederatedClient] = {}
        self._trainer: LocalTrainer | None = None
        self._open = contextlib.ExitStack()
        self._devices = self._open.enter_context(prepared_devices(self._settings))

    def answer(self, message: Message) -> Message:
        """Do what a message asks for; what the client keeps came with it and goes back with the answer."""
        from flwr.app import RecordDict

        from experiments_manager.federated.array_records import to_arrays, to_record, widened_dtypes
        from experiments_manager.federated.client.messages import answer
        from experiments_manager.federated.simulation.simulated_fleet import OfClient

        content, config = message.content, message.content.config_records["config"]
        number = int(config[PROC_ID])
        client = self._client(number)
        kept = content.array_records.get(KEPT)
        if kept is not None or client.kept is not None:  # else it begins as any client does
            client.restore({} if kept is None else to_arrays(kept, config.get(KEPT_DTYPES, ())))
        # Mods expect one record of a kind.
        message.content = RecordDict({name: record for name, record in content.items() if name != KEPT})
        reply = answer(
            message, OfClient(self._trainer_for(client), client, self._plan.keep_optimizer), number, self._privacy
        )
        arrays = client.state()
        if reply.has_content() and arrays:
            reply.content[KEPT] = to_record(arrays)
            reply.content.config_records["client"][KEPT_DTYPES] = widened_dtypes(arrays)
        return reply

    def close(self) -> None:
        """Let go of the model."""
        if self._trainer is not None:
            self._trainer.close()
        self._open.close()

    def _client(self, number: int) -> FederatedClient:
        from experiments_manager.federated.simulation.clients import client_of

        if number not in self._clients:
            self._clients[number] = client_of(self._settings, number, self._plan.clients)
        return self._clients[number]

    def _trainer_for(self, client: FederatedClient) -> LocalTrainer:
        from experiments_manager.federated.local.trainer import LocalTrainer

        if self._trainer is None:
            proximal = self._plan.strategy.get("strategy") == "FedProx"
            self._trainer = LocalTrainer.make(self._settings, self._devices, client.train, proximal=proximal)
        return self._trainer


_worker: Worker | None = None


def reply(task: ActorTask, message: Message, _: Context) -> Message:
    """Answer a message; one sentence says why where that fails."""
    global _worker  # noqa: PLW0603  (the process is the place where things are kept)
    flower()
    from flwr.app import Error, Message

    from experiments_manager.federated.client.messages import CLIENT_FAILED

    try:
        if _worker is None or _worker.task.name != task.name:
            if _worker is not None:
                _worker.close()
            _worker = Worker(task)
        return _worker.answer(message)
    except Exception as error:  # whatever a user's hook raised: the server must hear of it, and other clients go on
        sentence = str(error) if isinstance(error, UserError) else f"{named_reason(error)}."
        logger.debug("That came from:", exc_info=error)
        return Message(Error(CLIENT_FAILED, sentence), reply_to=message)


def client_app(task: ActorTask) -> ClientApp:
    """Return Flower's app, which Ray sends with each message: it holds nothing but the task."""
    from flwr.clientapp import ClientApp

    app = ClientApp()

    def answered(message: Message, context: Context) -> Message:
        return reply(task, message, context)

    app.train()(answered)
    app.evaluate()(answered)
    return app
