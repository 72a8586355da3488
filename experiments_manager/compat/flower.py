"""Names of Flower that are not public, each with why it is needed.

Everything is imported when it is called: where `flwr` is not installed, this module can be imported all the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flwr.app import Message, RecordDict
    from flwr.supercore.run import Run

IN_PROCESS_RUN = 1
"""Number of the run, of the server's node and of its task in a process that talks to no SuperLink."""
_SUPERNODE = "SuperNode"


def identify_process() -> None:
    """Give this process the identity that Flower's `Message` asks for, unless Flower gave it one.

    Flower sets it in processes that it starts itself, and strategies make their messages by `Message(…)`; in a process
    of ours that fails without it. There is no public way to set it. If a release moves `TaskIdentity`: look for what
    `flwr/app/message/message.py` reads `run_id` from.
    """
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("run_id", "node_id", "task_id"):
        try:
            getattr(TaskIdentity, name)
        except RuntimeError:
            setattr(TaskIdentity, name, IN_PROCESS_RUN)


def take_identity(run: int, node: int, task: int) -> None:
    """Let this process make messages of a run, a node and a task of Flower's, whose process is another one."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, node, task


def task_of_process() -> int:
    """Return the task that Flower started this process for; its public `Context` tells run and node alone."""
    from flwr.supercore.task_identity import TaskIdentity

    return TaskIdentity.task_id


def in_process_run() -> Run:
    """Return what a grid of this process has to say of its run: Flower's `Grid` asks for it, and nobody reads it.

    The class has no public name. If a release moves it: `flwr/serverapp/grid/grid.py` imports it.
    """
    from flwr.supercore.run import Run

    return Run.create_empty(IN_PROCESS_RUN)


def records_to_bytes(content: RecordDict) -> bytes:
    """Return records in the format that Flower sends, which has no public name.

    If a release moves it: `flwr/superlink/grid/http_grid.py` turns messages into it.
    """
    from flwr.common.serde import recorddict_to_proto

    return recorddict_to_proto(content).SerializeToString()


def records_from_bytes(data: bytes) -> RecordDict:
    """Return the records of `records_to_bytes`."""
    from flwr.common.serde import recorddict_from_proto
    from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto

    return recorddict_from_proto(RecordDictProto.FromString(data))


def message_to_bytes(message: Message) -> bytes:
    """Return a message with its metadata, and with its content or its error, as `records_to_bytes` does records."""
    from flwr.common.serde import message_to_proto

    return message_to_proto(message).SerializeToString()


def message_from_bytes(data: bytes) -> Message:
    """Return the message of `message_to_bytes`."""
    from flwr.common.serde import message_from_proto
    from flwr.proto.message_pb2 import Message as MessageProto

    return message_from_proto(MessageProto.FromString(data))


def deactivate_supernode(node_id: int, server: str, ca_certificate: Path, private_key: Path) -> None:
    """Tell a server that a SuperNode is gone, as the SuperNode itself does when it ends in order.

    Flower has no program for it. If a release moves any of it: `flwr/supernode/fleet_http_connection.py` does the
    same.

    Args:
        node_id: By which the server knows it.
        server: Its address, `host:port`.
        ca_certificate: What its certificate is signed with.
        private_key: Of the SuperNode.
    """
    from cryptography.hazmat.primitives.serialization.ssh import load_ssh_private_key
    from flwr.proto.fleet_pb2 import DeactivateNodeRequest
    from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    key = load_ssh_private_key(private_key.read_bytes(), None)
    signing = [
        RuntimeVersionHttpInterceptor(component_name=_SUPERNODE),
        NodeAuthHttpInterceptor(key, key.public_key()),
    ]
    with FleetHttpClient.from_server_address(server, False, str(ca_certificate), interceptors=signing) as client:
        client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))
