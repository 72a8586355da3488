"""What runs in the processes that Flower starts: it hands everything over to ours, and imports no TensorFlow.

Flower starts a process for each message. One that built a model each time would spend minutes on seconds of training,
so that model and data stay in our own process, at the other end of a Unix domain socket.
"""

from __future__ import annotations

import os
from multiprocessing.connection import Client

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from experiments_manager.compat.flower import (
    message_from_bytes,
    message_to_bytes,
    records_from_bytes,
    records_to_bytes,
    task_of_process,
)
from experiments_manager.federated.deployment import wire

SOCKET = "EXPERIMENTS_MANAGER_FEDERATION_SOCKET"
"""The variable of the environment that says where our process listens."""
TRAINER_GONE = 1001
"""Code of an error in a reply: the trainer's process is not there."""


class ForwardingClientApp(ClientApp):
    """A client that hands each message to the trainer and returns its answer."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Let the process that trains answer a message of the server."""
        path = os.environ.get(SOCKET, "")
        try:
            with Client(path, "AF_UNIX") as connection:
                wire.send(connection, {"type": message.metadata.message_type}, [records_to_bytes(message.content)])
                _, parts = wire.receive(connection)
        except (OSError, wire.Disconnected) as error:
            reason = f"The process that trains does not answer at {path!r}: {error}. See the client's console."
            return Message(Error(TRAINER_GONE, reason), reply_to=message)
        return Message(records_from_bytes(parts[0]), reply_to=message)


def serve_grid(grid: Grid, context: Context) -> None:
    """Do with the grid what our process asks for, until it closes the connection."""
    with Client(os.environ[SOCKET], "AF_UNIX") as connection:
        wire.send(connection, {"run": context.run_id, "node": context.node_id, "task": task_of_process()})
        while True:
            try:
                asked, parts = wire.receive(connection)
            except wire.Disconnected:
                return
            if asked["do"] == "nodes":
                wire.send(connection, {"nodes": list(grid.get_node_ids())})
            elif asked["do"] == "push":
                ids = grid.push_messages([_addressed(message_from_bytes(part)) for part in parts])
                wire.send(connection, {"ids": list(ids)})
            else:
                found = grid.pull_messages(asked["ids"])
                wire.send(connection, {}, [message_to_bytes(message) for message in found])


def _addressed(message: Message) -> Message:
    """Return the same message as of this process, whose run and task Flower knows."""
    told = message.metadata
    return Message(message.content, told.dst_node_id, told.message_type, ttl=told.ttl, group_id=told.group_id)


client_app = ForwardingClientApp()
server_app = ServerApp()
server_app.main()(serve_grid)
